"""Kernel ridge regression with its cross-validated predictions in closed form."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack

from synbrain.arrays import Float64, Rows


@dataclass(frozen=True)
class RidgeInverse:
    """``S`` with ``dual = S @ y`` and ``intercept = offset @ y``, and its diagonal blocks of folds.

    Attributes:
        matrix: (n, n) float64.
        offset: (n,) float64.
        blocks: for each fold its rows and the inverse of ``matrix`` there.
    """

    matrix: Float64
    offset: Float64
    blocks: list[tuple[Rows, Float64]]


def ridge_inverse(kernel: NDArray[np.float32], weights: Float64, alpha: float, folds: Rows) -> RidgeInverse:
    """Solve ridge with a free intercept for all responses at once.

    Minimises ``sum_i weights_i (y_i - f_i - b)^2 + alpha |f|^2`` over f in the kernel's space and b:
    ``G = K + alpha / weights``, ``S = G^-1 - G^-1 1 1' G^-1 / (1' G^-1 1)``.

    Args:
        kernel: (n, n) float32.
        weights: (n,) positive, of the images.
        alpha: penalty.
        folds: (n,) fold of each image.
    """
    g = kernel.astype(np.float64)
    g[np.diag_indices_from(g)] += alpha / weights
    factor, failed = lapack.dpotrf(g, lower=1, overwrite_a=1)
    if failed:
        raise np.linalg.LinAlgError("the kernel is not positive definite")
    inverse, _ = lapack.dpotri(factor, lower=1, overwrite_c=1)
    inverse = inverse + inverse.T - np.diag(np.diag(inverse))  # dpotrf left zeros above the diagonal
    sums = inverse.sum(axis=1)
    offset = sums / sums.sum()
    matrix = inverse - np.outer(sums, offset)
    rows = [np.flatnonzero(folds == fold) for fold in np.unique(folds)]
    return RidgeInverse(matrix, offset, [(r, np.linalg.inv(matrix[np.ix_(r, r)])) for r in rows])


def out_of_fold(solution: RidgeInverse, responses: Float64, dual: Float64) -> Float64:
    """(n, n_voxels) predictions of each fold by the ridge that was fitted on the others, exactly.

    ``y_B - (S_BB)^-1 dual_B`` for the images B of a fold (Cawley and Talbot 2007, in blocks): a fit without
    B leaves no residual that ``dual_B`` could stand for.

    Args:
        solution: of :func:`ridge_inverse`.
        responses: (n, n_voxels).
        dual: (n, n_voxels), ``solution.matrix @ responses``.
    """
    predicted = np.empty_like(responses)
    for rows, block in solution.blocks:
        predicted[rows] = responses[rows] - block @ dual[rows]
    return predicted


def out_of_two_folds(
    solution: RidgeInverse, responses: Float64, dual: Float64, first: int, second: int
) -> tuple[Float64, Float64]:
    """Predictions of two folds, (n, n_voxels) each, by the ridge that was fitted on neither.

    Args:
        solution: of :func:`ridge_inverse`, on three folds at least.
        responses, dual: as for :func:`out_of_fold`.
        first, second: places of the folds in ``solution.blocks``.
    """
    one, two = solution.blocks[first][0], solution.blocks[second][0]
    rows = np.concatenate([one, two])
    left = np.linalg.solve(solution.matrix[np.ix_(rows, rows)], dual[rows])
    predicted = responses[rows] - left
    return predicted[: len(one)], predicted[len(one) :]
