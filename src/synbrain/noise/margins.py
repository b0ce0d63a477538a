"""Shape of one voxel's distribution: skewed, and flatter or heavier than a normal.

``warp(z) = (sinh(tail * asinh(z) + skew) - mean) / sd``, the sinh-arcsinh transform of Jones and Pewsey
(2009, Biometrika 96, eq. 2) brought to mean 0 and variance 1; the identity at skew 0 and tail 1.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synbrain.arrays import Float64

LARGEST_SKEW = 2.0  # of the warp's parameter; skewness then is 1.2 to 1.8, by the tail
_NODES, _NODE_WEIGHTS = np.polynomial.hermite_e.hermegauss(60)


def _bend(z: NDArray[Any], skew: NDArray[Any], tail: NDArray[Any]) -> NDArray[Any]:
    # sinh and asinh by log and exp, which numpy vectorises: ten times faster than the functions themselves
    grown = np.exp(tail * np.log(z + np.sqrt(z * z + 1)) + skew)
    return np.asarray((grown - 1 / grown) / 2)


def warp_moments(skew: NDArray[Any], tail: NDArray[Any]) -> tuple[Float64, ...]:
    """Mean, sd, skewness and excess kurtosis (n_voxels,) of ``sinh(tail * asinh(z) + skew)``, z normal."""
    bent = _bend(_NODES[:, None], np.asarray(skew, np.float64)[None], np.asarray(tail, np.float64)[None])
    weights = _NODE_WEIGHTS / _NODE_WEIGHTS.sum()
    mean = weights @ bent
    sd = np.sqrt(weights @ (bent - mean) ** 2)
    standard = (bent - mean) / sd
    return mean, sd, weights @ standard**3, weights @ standard**4 - 3


def warp(z: NDArray[Any], skew: NDArray[Any], tail: NDArray[Any]) -> NDArray[Any]:
    """Standard normals (..., n_voxels) to residuals of mean 0 and variance 1, in the dtype of ``z``."""
    return warper(skew, tail, z.dtype)(z)


def warper(
    skew: NDArray[Any], tail: NDArray[Any], dtype: Any = np.float32
) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """:func:`warp` for many calls: its moments are computed once."""
    if not np.any(skew) and np.all(tail == 1):
        return lambda z: z
    skew, tail = (np.asarray(shape, dtype=np.float64) for shape in (skew, tail))
    mean, sd = (moment.astype(dtype) for moment in _kept_moments(skew.tobytes(), tail.tobytes()))
    skew, tail = skew.astype(dtype), tail.astype(dtype)
    return lambda z: np.asarray((_bend(z, skew, tail) - mean) / sd)


@lru_cache(maxsize=8)  # draws come in blocks of images, all of one shape
def _kept_moments(skew: bytes, tail: bytes) -> tuple[Float64, Float64]:
    mean, sd, _, _ = warp_moments(np.frombuffer(skew), np.frombuffer(tail))
    return mean, sd


def unwarp(residuals: NDArray[Any], skew: NDArray[Any], tail: NDArray[Any]) -> tuple[Float64, Float64]:
    """Inverse of :func:`warp` and the log of its slope dz/dresidual, both (..., n_voxels) float64."""
    mean, sd = warp_moments(skew, tail)[:2]
    bent = residuals * sd + mean
    inner = (np.arcsinh(bent) - skew) / tail
    log_slope = np.log(np.cosh(inner) * sd / tail) - 0.5 * np.log1p(bent**2)
    return np.sinh(inner), log_slope


def drawn_skewness(skewness: Float64, n_trials: int) -> Float64:
    """(n_voxels,) sample skewness, each drawn to the median by its standard error, sqrt(6 / n_trials)."""
    common = float(np.median(skewness))
    error = 6 / n_trials
    between = max(float(np.mean((skewness - common) ** 2)) - error, 0.0)
    return np.asarray(common + (skewness - common) * between / (between + error))


def skew_parameter(skewness: Float64, tail: float) -> Float64:
    """(n_voxels,) the warp's skew parameter that gives that skewness at ``tail``."""
    table = np.linspace(-LARGEST_SKEW, LARGEST_SKEW, 241)
    given = warp_moments(table, np.full_like(table, tail))[2]
    return np.asarray(np.interp(skewness, given, table))
