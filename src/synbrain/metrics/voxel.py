"""How well predicted responses match measured ones, within a trial and per voxel.

Two families that answer different questions. *Within a trial* (MSE, Pearson, cosine over voxels) is the
published protocol; a static mean map scores well there. *Per voxel* (``voxel_r``, ``r2`` over images) asks
whether the image was encoded; a mean map scores 0.

A correlation is undefined where a side is constant. Where the *measured* side is constant there is nothing
to predict: the value is NaN, and :func:`mean_defined` leaves it out and counts it. Where only the
*prediction* is constant it carries no information: the value is 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synbrain.arrays import Float64

BLOCK_VALUES = 2**23  # float64 values of one temporary: 64 MiB
CONSTANT = 1e-7  # relative spread below which a float32 series counts as constant


def blocks(n: int, width: int, budget: int = BLOCK_VALUES) -> Iterator[slice]:
    """Slices over ``n`` items such that one slice of items, ``width`` values each, stays in ``budget``."""
    step = max(1, budget // max(1, width))
    for start in range(0, n, step):
        yield slice(start, min(start + step, n))


def power_of_two(sd: NDArray[Any] | float) -> Float64:
    """The power of two nearest to each ``sd``, 1 for 0: values over it are near 1, and none is rounded.

    >>> power_of_two(np.array([0.9, 5e-4, 0.0])).tolist()
    [1.0, 0.00048828125, 1.0]
    """
    return np.asarray(2.0 ** np.round(np.log2(np.where(np.asarray(sd) > 0, sd, 1.0))))


def mean_defined(values: NDArray[Any]) -> tuple[float | None, int]:
    """Mean over the finite ``values`` (any shape) and the number left out; None where none is finite."""
    finite = np.isfinite(values)
    n_undefined = int(values.size - finite.sum())
    return (float(np.mean(values[finite])) if finite.any() else None), n_undefined


def squared_error(predicted: NDArray[Any], measured: NDArray[Any]) -> Float64:
    """Mean squared error over voxels of each row.

    Args:
        predicted, measured: (n, n_voxels), row i against row i, one unit.

    Returns:
        (n,) float64, unit squared.
    """
    _same_shape(predicted, measured)
    out = np.empty(len(predicted))
    for rows in blocks(len(predicted), predicted.shape[1]):
        difference = np.asarray(predicted[rows], dtype=np.float64) - measured[rows]
        out[rows] = np.mean(difference**2, axis=1)
    return out


def mse(predicted: NDArray[Any], measured: NDArray[Any]) -> float:
    """Mean squared error over all rows and voxels of two (n, n_voxels) arrays, unit squared."""
    return float(np.mean(squared_error(predicted, measured)))


def pearson_within(predicted: NDArray[Any], measured: NDArray[Any]) -> Float64:
    """Pearson correlation across voxels within each row (the published "Pearson").

    Args:
        predicted, measured: (n, n_voxels), row i against row i.

    Returns:
        (n,) float64 in [-1, 1]; NaN where the measured row is constant, 0 where the predicted one is.
    """
    return _within(predicted, measured, centre=True)


def cosine_within(predicted: NDArray[Any], measured: NDArray[Any]) -> Float64:
    """Cosine similarity across voxels within each row; shapes and zeros as :func:`pearson_within`."""
    return _within(predicted, measured, centre=False)


def _within(predicted: NDArray[Any], measured: NDArray[Any], *, centre: bool) -> Float64:
    _same_shape(predicted, measured)
    out = np.empty(len(predicted))
    for rows in blocks(len(predicted), predicted.shape[1]):
        a = np.asarray(predicted[rows], dtype=np.float64)
        b = np.asarray(measured[rows], dtype=np.float64)
        out[rows] = _correlate(a, b, axis=1, centre=centre)
    return out


def voxel_r(predicted: NDArray[Any], measured: NDArray[Any]) -> Float64:
    """Pearson correlation across images, per voxel.

    Args:
        predicted, measured: (n, n_voxels), row i against row i; rows are images (or trials).

    Returns:
        (n_voxels,) float64; NaN where the measured voxel is constant, 0 where the predicted one is.

    >>> measured = np.array([[1.0, 2.0], [2.0, 1.0], [3.0, 3.0]])
    >>> voxel_r(measured * 2 + 1, measured).round(2).tolist()
    [1.0, 1.0]
    """
    _same_shape(predicted, measured)
    out = np.empty(predicted.shape[1])
    for voxels in blocks(predicted.shape[1], len(predicted)):
        a = np.asarray(predicted[:, voxels], dtype=np.float64)
        b = np.asarray(measured[:, voxels], dtype=np.float64)
        out[voxels] = _correlate(a, b, axis=0, centre=True)
    return out


def r2(predicted: NDArray[Any], measured: NDArray[Any]) -> Float64:
    """Coefficient of determination across images, per voxel; unlike ``voxel_r`` it punishes wrong size.

    Args:
        predicted, measured: (n, n_voxels), row i against row i.

    Returns:
        (n_voxels,) float64, at most 1; NaN where the measured voxel is constant.
    """
    _same_shape(predicted, measured)
    out = np.empty(predicted.shape[1])
    for voxels in blocks(predicted.shape[1], len(predicted)):
        b = np.asarray(measured[:, voxels], dtype=np.float64)
        left = np.sum((np.asarray(predicted[:, voxels], dtype=np.float64) - b) ** 2, axis=0)
        total = np.sum((b - b.mean(axis=0)) ** 2, axis=0)
        constant = is_constant(b, axis=0)
        out[voxels] = np.where(constant, np.nan, 1 - left / np.where(constant, 1.0, total))
    return out


def skill(error: float, error_of_mean_map: float) -> float | None:
    """Share of the mean map's MSE that a model removes: 0 as good as the mean map, 1 perfect."""
    return 1 - error / error_of_mean_map if error_of_mean_map > 0 else None


def is_constant(values: Float64, axis: int) -> NDArray[np.bool_]:
    """Whether a series is constant up to float32 rounding, along ``axis``."""
    size = np.max(np.abs(values), axis=axis)
    return np.asarray(np.std(values, axis=axis) <= CONSTANT * size)


def _correlate(a: Float64, b: Float64, *, axis: int, centre: bool) -> Float64:
    if centre:
        no_a, no_b = is_constant(a, axis), is_constant(b, axis)
        a, b = a - a.mean(axis=axis, keepdims=True), b - b.mean(axis=axis, keepdims=True)
    else:
        no_a, no_b = ~np.any(a, axis=axis), ~np.any(b, axis=axis)
    norm = np.linalg.norm(a, axis=axis) * np.linalg.norm(b, axis=axis)
    r = np.sum(a * b, axis=axis) / np.where(norm > 0, norm, 1.0)
    r = np.where(no_b, np.nan, np.where(no_a, 0.0, np.clip(r, -1.0, 1.0)))
    return np.asarray(r, dtype=np.float64)


def _same_shape(predicted: NDArray[Any], measured: NDArray[Any]) -> None:
    if predicted.shape != measured.shape or predicted.ndim != 2:
        raise ValueError(f"two (n, n_voxels) arrays, got {predicted.shape} and {measured.shape}")
