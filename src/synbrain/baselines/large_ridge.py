"""Ridge with a cross-validated penalty for every voxel on thousands of images, in float32 and in blocks.

The same function as himalaya's ``solve_kernel_ridge_cv_eigenvalues``: no intercept, the penalty of least
squared error, mean over folds. Instead of decomposing the kernel of every fold, each penalty is factorised
once on all images, ``S = (K + alpha I)^-1``; the residuals of fold f without it are ``(S_ff)^-1 (S y)_f``
(Cawley and Talbot 2007). Penalties far from any voxel's choice are tried on some voxels alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from synbrain.arrays import Float32, Float64, Rows
from synbrain.linear.candidates import parts_of
from synbrain.linear.meter import Meter
from synbrain.linear.ridge import (
    SINGLE_PRECISION_CONDITION,
    FoldInverses,
    FoldLayout,
    largest_eigenvalue,
    residuals,
)
from synbrain.progress import bar

PROBED, STRIDE = 512, 3  # voxels on which every third penalty is tried first


def chosen_ridge(
    gram: Float32, targets: Float32, alphas: Float64, folds: Rows, *, show_progress: bool = False
) -> tuple[Float64, Float32]:
    """The penalty of each voxel, and dual weights on all images.

    The error is taken to have one minimum along the penalties: a voxel whose best penalty lies at the end of
    those tried is tried further until it does not.

    Args:
        gram: (n_images, n_images), centred kernel.
        targets: (n_images, n_voxels), centred.
        alphas: (n_alphas,) penalties, rising.
        folds: (n_images,) fold of each image.
        show_progress: show a bar, in penalties.

    Returns:
        (n_voxels,) penalties, and (n_images, n_voxels) float32.
    """
    search = _Search.begun(gram, targets, alphas, folds)
    n_voxels = targets.shape[1]
    some = torch.linspace(0, n_voxels - 1, min(PROBED, n_voxels)).long().unique()
    progress = bar("choose penalties", total=len(alphas), unit="penalty", show=show_progress)
    coarse = range(0, len(alphas), STRIDE)
    for a in coarse:
        search.try_penalty(a, some)
        progress.update(1)
    at = search.best[some]
    low, high = int(at.min()) - STRIDE + 1, int(at.max()) + STRIDE - 1
    tried = range(max(0, low), min(len(alphas), high + 1))
    search.forget()
    everyone = torch.arange(n_voxels)
    for a in tried:
        search.try_penalty(a, everyone)
        progress.update(1)
    for step, end in ((-1, tried[0]), (1, tried[-1])):
        while 0 <= end + step < len(alphas):
            undecided = torch.nonzero(search.best == end)[:, 0]
            if len(undecided) == 0:
                break
            end += step
            search.try_penalty(end, undecided)
            progress.update(1)
    progress.close()
    weights = search.weights[:, search.layout.place].T.contiguous().numpy()
    return alphas[search.best.numpy()], weights


@dataclass
class _Search:
    """Penalties that were tried, and the best of each voxel so far.

    Attributes:
        kernel: (n_places, n_places) float32 laid out by folds.
        largest: eigenvalue of it.
        y: (n_voxels, n_places) float32.
        layout: of the images.
        alphas: penalties.
        error, best: (n_voxels,) least error, and its penalty's number.
        weights: (n_voxels, n_places) float32 dual weights under it.
    """

    kernel: Tensor
    largest: float
    y: Tensor
    layout: FoldLayout
    alphas: Float64
    error: Tensor
    best: Tensor
    weights: Tensor

    @classmethod
    def begun(cls, gram: Float32, targets: Float32, alphas: Float64, folds: Rows) -> _Search:
        cpu = torch.device("cpu")
        layout = FoldLayout.of(folds, np.ones(len(folds)), int(folds.max()) + 1, cpu)
        kernel = layout.lay_kernel(torch.from_numpy(gram).float())
        y = layout.lay_columns(torch.from_numpy(np.ascontiguousarray(targets.T, dtype=np.float32)))
        search = cls(
            kernel, largest_eigenvalue(kernel), y, layout, alphas, torch.empty(len(y)), torch.empty(0),
            torch.zeros_like(y),
        )  # fmt: skip
        search.forget()
        return search

    def forget(self) -> None:
        """Begin anew."""
        self.error = torch.full((len(self.y),), torch.inf)
        self.best = torch.full((len(self.y),), -1)

    def try_penalty(self, a: int, voxels: Tensor) -> None:
        """Hold penalty ``a`` against the best so far of some voxels."""
        matrix, inverses = self._factorised(float(self.alphas[a]))
        in_fold = self.layout.filled.view(self.layout.n_folds, self.layout.size).sum(dim=1)
        for part in self._parts(len(voxels)):
            rows = voxels[part]
            dual = self.y[rows] @ matrix
            left = residuals(dual, inverses.one, Meter()).square_()
            error = (left.view(len(rows), self.layout.n_folds, -1).sum(dim=2) / in_fold).mean(dim=1)
            better = error < self.error[rows]
            improved = rows[better]
            self.error[improved], self.best[improved] = error[better], a
            self.weights[improved] = dual[better]

    def _parts(self, n: int) -> Iterator[slice]:
        return parts_of(n, 4 * self.layout.n_places)

    def _factorised(self, alpha: float) -> tuple[Tensor, FoldInverses]:
        """``S`` float32 and its inverted blocks; float64 on the way where the penalty is small."""
        single = self.largest / alpha < SINGLE_PRECISION_CONDITION
        g = self.kernel.clone() if single else self.kernel.double()
        g.diagonal().add_(alpha)
        matrix = torch.cholesky_inverse(torch.linalg.cholesky(g))
        return matrix.float(), FoldInverses.of(matrix, self.layout, 0, Meter())
