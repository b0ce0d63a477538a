"""Normals with covariance C = L L' + diag(u), L of few columns: nothing of size n_voxels^2 is made."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from synbrain.arrays import Float64


def log_density(z: NDArray[Any], loadings: NDArray[Any], unique: NDArray[Any]) -> Float64:
    """log N(z; 0, C) = -(z' C^-1 z + log |C| + n_voxels log 2 pi) / 2.

    With M = I + L' U^-1 L, U = diag(u)::

        C^-1  = U^-1 - U^-1 L M^-1 L' U^-1     (Woodbury)
        log |C| = sum log u + log |M|          (matrix determinant lemma)

    Args:
        z: (n, n_voxels).
        loadings: (n_voxels, rank).
        unique: (n_voxels,), above 0.

    Returns:
        (n,) float64.

    >>> float(log_density(np.zeros((1, 1)), np.zeros((1, 0)), np.ones(1))[0])  # doctest: +ELLIPSIS
    -0.9189...
    """
    values, of, variances = (np.asarray(array, dtype=np.float64) for array in (z, loadings, unique))
    weighed = of / variances[:, None]
    # M = F F'; then z' U^-1 L M^-1 L' U^-1 z is the squared norm of F^-1 L' U^-1 z
    factor = np.linalg.cholesky(np.eye(of.shape[1]) + of.T @ weighed)
    projected = np.linalg.solve(factor, (values @ weighed).T)
    distance = np.sum(values**2 / variances, axis=1) - np.sum(projected**2, axis=0)
    log_determinant = np.sum(np.log(variances)) + 2 * np.sum(np.log(np.diag(factor)))
    return np.asarray(-0.5 * (distance + log_determinant + len(variances) * np.log(2 * np.pi)))
