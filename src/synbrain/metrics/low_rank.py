"""Normals with covariance C = L L' + diag(u), L of few columns: nothing of size n_voxels^2 is made."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synbrain.arrays import Float64
from synbrain.metrics.device import namespace


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
    arrays = (np.asarray(array, dtype=np.float64) for array in (z, loadings, unique))
    return np.asarray(log_density_of(*arrays))


def log_density_of(values: Any, loadings: Any, unique: Any) -> Any:
    """:func:`log_density` of numpy's arrays or of tensors, in float64, where they are."""
    xp = namespace(values)
    weighed = loadings / unique[:, None]
    # M = F F'; then z' U^-1 L M^-1 L' U^-1 z is the squared norm of F^-1 L' U^-1 z
    inner = loadings.T @ weighed
    inner.ravel()[:: len(inner) + 1] += 1  # plus the identity
    factor = xp.linalg.cholesky(inner)
    projected = xp.linalg.solve(factor, (values @ weighed).T)
    distance = xp.einsum("ij,ij,j->i", values, values, 1 / unique) - (projected**2).sum(0)  # in one pass
    log_determinant = xp.log(unique).sum() + 2 * xp.log(factor.diagonal()).sum()
    return -0.5 * (distance + log_determinant + len(unique) * math.log(2 * math.pi))
