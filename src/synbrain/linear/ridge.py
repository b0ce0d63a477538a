"""Kernel ridge regression with its cross-validated predictions in closed form, all folds in one go.

Images are laid out fold by fold, each fold of the same size: a fold is then a slice, and what is done to
every fold is one batched product. Folds that are short of an image are filled with an empty place (weight 0,
response 0), whose row of any matrix is that of the identity: it stays 0 and touches nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from synbrain.arrays import Float64, Rows
from synbrain.linear.meter import Meter

# Largest eigenvalue over penalty up to which float32 factorisations are used: their error grows with it, and
# stays below 1e-3 of the predictions' sd up to here (tests/linear/test_ridge.py).
SINGLE_PRECISION_CONDITION = 5e3


@dataclass(frozen=True)
class FoldLayout:
    """Where each image lies among ``n_folds * size`` places.

    Attributes:
        place: (n_images,) int64, on the device.
        n_folds, size: folds, and places in each of them.
        weights: (n_places,) float32 weights of images, 0 in empty places.
    """

    place: Tensor
    n_folds: int
    size: int
    weights: Tensor

    @classmethod
    def of(cls, folds: Rows, weights: Float64, n_folds: int, device: torch.device) -> FoldLayout:
        """Lay out images.

        Args:
            folds: (n_images,) fold of each image, from 0.
            weights: (n_images,) positive.
            n_folds: how many there are; some may be empty.
            device: of the result.
        """
        size = max(1, int(np.bincount(folds, minlength=n_folds).max()))
        place = np.empty(len(folds), dtype=np.int64)
        for fold in range(n_folds):
            rows = np.flatnonzero(folds == fold)
            place[rows] = fold * size + np.arange(len(rows))
        at = torch.from_numpy(place).to(device)
        laid = torch.zeros(n_folds * size, device=device)
        laid[at] = torch.from_numpy(weights.astype(np.float32)).to(device)
        return cls(at, n_folds, size, laid)

    @property
    def n_places(self) -> int:
        return self.n_folds * self.size

    @property
    def filled(self) -> Tensor:
        """(n_places,) bool: places that hold an image."""
        return self.weights > 0

    def lay_columns(self, values: Tensor) -> Tensor:
        """(n, n_images) to (n, n_places), 0 in empty places."""
        laid = torch.zeros((len(values), self.n_places), dtype=values.dtype, device=values.device)
        laid[:, self.place] = values
        return laid

    def lay_kernel(self, kernel: Tensor) -> Tensor:
        """(n_images, n_images) to (n_places, n_places)."""
        laid = torch.zeros((self.n_places, self.n_places), dtype=kernel.dtype, device=kernel.device)
        laid[self.place[:, None], self.place] = kernel
        return laid


def largest_eigenvalue(kernel: Tensor, steps: int = 12) -> float:
    """Of a positive semidefinite matrix, by power iteration: from below, within some per cent."""
    generator = torch.Generator().manual_seed(0)
    vector = torch.randn(len(kernel), generator=generator, device="cpu").to(kernel.device)
    for _ in range(steps):
        vector = kernel @ (vector / vector.norm().clamp_min(1e-30))
    return float(vector.norm())


@dataclass(frozen=True)
class Ridge:
    """Ridge with a free intercept for one kernel and penalty.

    Minimises ``sum_i w_i (y_i - f_i - b)^2 + alpha |f|^2`` over f in the kernel's space and b. With
    ``G = K + alpha diag(1 / w)`` the dual weights are ``S y``, ``S = G^-1 - G^-1 1 1' G^-1 / (1' G^-1 1)``.

    Attributes:
        factor: (n_places, n_places) lower Cholesky factor of G.
        sums: (n_places,) ``G^-1 1``, of the same dtype.
        layout: of the images.
    """

    factor: Tensor
    sums: Tensor
    layout: FoldLayout

    @classmethod
    def fit(cls, kernel: Tensor, largest: float, alpha: float, layout: FoldLayout, meter: Meter) -> Ridge:
        """Factorise.

        Args:
            kernel: (n_places, n_places) float32, laid out.
            largest: eigenvalue of ``kernel``, which decides on the precision.
            alpha: penalty.
            layout: of the images.
            meter: counts.
        """
        filled = layout.filled
        heaviest = float(layout.weights.max())
        single = largest * heaviest / alpha < SINGLE_PRECISION_CONDITION
        g = kernel.clone() if single else kernel.double()
        g.diagonal().add_(torch.where(filled, alpha / layout.weights.clamp_min(1e-30), 1.0).to(g.dtype))
        factor = g.mT  # symmetric, and laid out as LAPACK wants it: the factor takes g's own memory
        torch.linalg.cholesky(factor, out=factor)
        ones = filled.to(g.dtype)[:, None]
        sums = torch.cholesky_solve(ones, factor)[:, 0]
        meter.add(len(g) ** 3 / 3)
        return cls(factor, sums, layout)

    def solve(self, columns: Tensor, meter: Meter) -> Tensor:
        """``S @ columns``, (n_places, k) float32."""
        meter.product(len(columns), len(columns), columns.shape[1])
        solved = torch.cholesky_solve(columns.to(self.factor.dtype), self.factor)
        means = (self.sums @ columns.to(self.factor.dtype)) / self.sums.sum()
        return solved.sub_(self.sums[:, None] * means).float()

    def into_matrix(self, meter: Meter) -> Tensor:
        """``S``, (n_places, n_places), takes the factor's memory: nothing can be solved after it."""
        meter.add(len(self.factor) ** 3 * 2 / 3)
        inverse = torch.cholesky_inverse(self.factor, out=self.factor)
        return inverse.addr_(self.sums, self.sums / -self.sums.sum())


@dataclass(frozen=True)
class FoldInverses:
    """What predictions without folds need, from ``S`` of :class:`Ridge`.

    A fit without the images B leaves no residual that the dual weights of B could stand for, so the residuals
    of B are ``(S_BB)^-1 (S y)_B`` (Cawley and Talbot 2007, in blocks). Without a fold f first, ``S`` becomes
    its Schur complement ``S - S_.f (S_ff)^-1 S_f.``, and the same holds for a second fold.

    Attributes:
        one: (n_folds, size, size) float32, ``(S_ff)^-1``.
        two: (n_outer, n_folds, size, size) float32, ``(S_gg - S_gf (S_ff)^-1 S_fg)^-1`` for each outer
            fold f and other fold g; the identity where g is f.
    """

    one: Tensor
    two: Tensor

    @classmethod
    def of(cls, matrix: Tensor, layout: FoldLayout, n_outer: int, meter: Meter) -> FoldInverses:
        """Invert the blocks of all folds, and of pairs with each of the first ``n_outer`` folds."""
        n_folds, size = layout.n_folds, layout.size
        blocks = matrix.view(n_folds, size, n_folds, size)
        own = torch.stack([blocks[f, :, f] for f in range(n_folds)])
        one = _inverse(own)
        meter.add(n_folds * size**3)
        two = torch.empty((n_outer, n_folds, size, size), device=matrix.device)
        identity = torch.eye(size, dtype=matrix.dtype, device=matrix.device)
        for f in range(n_outer):
            across = blocks[f].transpose(0, 1)  # (n_folds, size of f, size of g)
            left = own - across.transpose(1, 2) @ (one[f] @ across)
            left[f] = identity
            two[f] = _inverse(left).float()
            meter.add(n_folds * 5.0 * size**3)
        return cls(one.float(), two)


def _inverse(blocks: Tensor) -> Tensor:
    """Inverses of symmetric positive definite (n, size, size)."""
    return torch.cholesky_inverse(torch.linalg.cholesky(blocks))


def residuals(dual: Tensor, inverses: Tensor, meter: Meter) -> Tensor:
    """Measured minus predicted for every fold by the ridge without it.

    Args:
        dual: (k, n_places) ``S y`` of k responses, or of a fit without an outer fold.
        inverses: (n_folds, size, size), of :class:`FoldInverses`.
        meter: counts.

    Returns:
        (k, n_places) float32.
    """
    n_folds, size, _ = inverses.shape
    meter.product(len(dual), size, size * n_folds)
    by_fold = dual.view(len(dual), n_folds, size).transpose(0, 1)
    return (by_fold @ inverses).transpose(0, 1).reshape(len(dual), -1)


def without_fold(dual: Tensor, residual: Tensor, matrix: Tensor, fold: slice, meter: Meter) -> Tensor:
    """``S y`` of the fit without a fold, (k, n_places): ``S y - S_.f residual_f``, about 0 in the fold.

    Args:
        dual: (k, n_places) ``S y``.
        residual: (k, n_places), of :func:`residuals`.
        matrix: ``S`` float32.
        fold: its places.
        meter: counts.
    """
    meter.product(len(dual), fold.stop - fold.start, len(matrix))
    return torch.addmm(dual, residual[:, fold], matrix[fold], alpha=-1)
