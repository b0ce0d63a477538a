"""Ridge of every voxel on all images, with the candidates that were chosen for it."""

from __future__ import annotations

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
    inverses: dict[int, NDArray[np.float32]] = {}
    kernel, at_kernel = None, -1
    for candidate in choice.used():
        k, a = divmod(candidate, len(problem.config.alphas))
        if k != at_kernel:
            kernel, at_kernel = problem.kernel(k), k
        assert kernel is not None
        matrix = problem.ridge(k, problem.config.alphas[a], kernel).matrix(problem.meter)
        inverse = FoldInverses.of(matrix, problem.layout, n_outer, problem.meter)
        if n_outer:
            inverses[candidate] = scratch.empty(tuple(inverse.one.shape), np.float32)
            inverses[candidate][:] = inverse.one.cpu().numpy()
        _predict(problem, y, choice.of(candidate), matrix.float(), inverse, unseen, outer)
    return VoxelFit(unseen, outer, inverses)


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
