"""Ridge of every voxel on all images, with the candidates that were chosen for it."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from synbrain.linear.candidates import Choice, Problem, parts_of
from synbrain.linear.ridge import FoldInverses, residuals, without_fold
from synbrain.linear.scratch import Scratch

OUTER_BYTES = 3 << 30  # what predictions without an outer fold may take in float16
SINGLE_BYTES = 1 << 30  # up to here they are float32
PASS, KEEP_SECONDS = "voxels", 600.0  # between states that are kept of an interrupted fit


@dataclass(frozen=True)
class VoxelFit:
    """Predictions of single voxels for images that the fits have not seen.

    Attributes:
        unseen: (n_voxels, n_places) float32 predictions of each fold by fits without it.
        outer: (n_outer, n_voxels, n_places) float16 or float32; row f holds predictions by fits without fold
            f and without the image's own fold, 0 in fold f.
        inverses: candidate -> (n_folds, size, size) float32, :attr:`FoldInverses.one` on all images.
    """

    unseen: Tensor
    outer: Tensor
    inverses: dict[int, NDArray[np.float32]]


def outer_folds(n_voxels: int, problem: Problem) -> int:
    """For how many folds predictions without two folds are made: as many as memory allows, two at least.

    0 where nothing is shared: not asked for, or fewer than three folds (a fit without two needs a third).
    """
    config = problem.config
    if not config.share or config.n_folds < 3:
        return 0
    return max(2, min(config.n_folds, OUTER_BYTES // (2 * n_voxels * problem.layout.n_places)))


def fit_voxels(problem: Problem, y: Tensor, choice: Choice, n_outer: int, scratch: Scratch) -> VoxelFit:
    """Predict every image without its fold, and without its fold and an outer one.

    Args:
        problem: kernels, images and folds.
        y: (n_voxels, n_places) float32, 0 in empty places.
        choice: candidates of the voxels.
        n_outer: folds that are left out beside an image's own.
        scratch: where inverses are kept for :mod:`synbrain.linear.components`.
    """
    single = 4 * n_outer * y.numel() <= SINGLE_BYTES
    outer = torch.zeros(
        (n_outer, *y.shape), dtype=torch.float32 if single else torch.float16, device=y.device
    )
    unseen = torch.zeros_like(y)
    progress = _Progress(problem, scratch, unseen, outer)
    inverses, done = progress.taken_up()
    mine, kernel, at_kernel = problem.team.share(len(y)), None, -1
    for candidate in choice.used():
        k, a = divmod(candidate, len(problem.config.alphas))
        voxels, weights = choice.of(candidate)
        own = (voxels >= mine.start) & (voxels < mine.stop)
        if k < done or not own.any():
            continue
        if k != at_kernel:
            progress.keep(k, inverses)
            kernel, at_kernel = problem.kernel(k), k
        assert kernel is not None
        matrix = problem.ridge(k, problem.config.alphas[a], kernel).into_matrix(problem.meter)
        inverse = FoldInverses.of(matrix, problem.layout, n_outer, problem.meter)
        if n_outer:
            inverses[candidate] = scratch.empty(tuple(inverse.one.shape), np.float32, f"inverse-{candidate}")
            inverses[candidate][:] = inverse.one.cpu().numpy()
        matrix = matrix.float()  # the one in float64 ends here
        _predict(problem, y, (voxels[own], weights[:, own]), matrix, inverse, unseen, outer)
    if done < len(problem.kernels):
        problem.team.bring_together(unseen, dim=0)
        problem.team.bring_together(outer, dim=1)
        progress.keep(len(problem.kernels), inverses, at_once=True)
    return VoxelFit(unseen, outer, inverses)


class _Progress:
    """Predictions of the kernels that are done, kept from time to time so that an interrupted fit goes on."""

    def __init__(self, problem: Problem, scratch: Scratch, unseen: Tensor, outer: Tensor) -> None:
        self.problem, self.scratch, self.unseen, self.outer = problem, scratch, unseen, outer
        self._kept = time.monotonic()

    def taken_up(self) -> tuple[dict[int, NDArray[np.float32]], int]:
        """Inverses by candidate and the number of kernels that an earlier process did; fills the arrays."""
        about = self.scratch.finished(PASS)
        if about is None:
            return {}, 0
        stored = self.scratch.tensors(f"{PASS}-{about['kernels']}")
        self.unseen.copy_(stored["unseen"])
        self.outer.copy_(stored["outer"])
        self.problem.meter.catch_up(about["gflop"])
        return {c: self.scratch.open(f"inverse-{c}") for c in about["inverses"]}, int(about["kernels"])

    def keep(self, kernels: int, inverses: dict[int, NDArray[np.float32]], at_once: bool = False) -> None:
        """Keep what the first ``kernels`` kernels gave, where it is time to."""
        if not at_once and time.monotonic() - self._kept < KEEP_SECONDS:
            return
        before = self.scratch.finished(PASS)
        about = {"kernels": kernels, "inverses": sorted(inverses), "gflop": self.problem.meter.gflop}
        # tensors first, under a name of their own: the record changes from one whole state to the next
        self.scratch.finish(f"{PASS}-{kernels}", {}, {"unseen": self.unseen, "outer": self.outer})
        self.scratch.finish(PASS, about)
        if before is not None and before["kernels"] != kernels:
            self.scratch.forget(f"{PASS}-{before['kernels']}")
        self._kept = time.monotonic()


def _predict(
    problem: Problem,
    y: Tensor,
    weighted: tuple[Tensor, Tensor],
    matrix: Tensor,
    inverse: FoldInverses,
    unseen: Tensor,
    outer: Tensor,
) -> None:
    """Add one candidate's weighted predictions to ``unseen`` and ``outer``, a block of voxels at a time."""
    layout, meter = problem.layout, problem.meter
    voxels, weights = weighted
    fold_of_place = torch.arange(layout.n_folds, device=y.device).repeat_interleave(layout.size)
    for part in parts_of(len(voxels), 6 * layout.n_places):
        at, weight = voxels[part], weights[:, part]
        measured = y[at]
        meter.product(len(at), layout.n_places, layout.n_places)
        dual = measured @ matrix
        left = residuals(dual, inverse.one, meter)
        # fold f is predicted with the weights that its own errors had no part in
        unseen.index_add_(0, at, (measured - left).mul_(weight[fold_of_place].T))
        for f in range(len(outer)):
            some = torch.nonzero(weight[f])[:, 0]
            if len(some):
                fold = slice(f * layout.size, (f + 1) * layout.size)
                rest = without_fold(dual[some], left[some], matrix, fold, meter)
                predicted = measured[some] - residuals(rest, inverse.two[f], meter)
                predicted[:, fold] = 0
                predicted.mul_(weight[f, some, None])
                outer[f].index_add_(0, at[some], predicted.to(outer.dtype))
