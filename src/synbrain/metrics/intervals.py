"""Intervals and tests: bootstrap over images or subjects, t over seeds, paired differences, Holm.

Replicates of all systems are drawn with the same image weights (same seed), so that the difference of
two replicate series is a paired bootstrap.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synbrain.arrays import Float64
from synbrain.metrics.device import Device, host, on
from synbrain.metrics.voxel import CONSTANT, blocks

N_BOOTSTRAP, LEVEL = 2000, 0.95
Interval = tuple[float, float]


def image_weights(n_images: int, n_bootstrap: int = N_BOOTSTRAP, seed: int = 0) -> Float64:
    """(n_bootstrap, n_images) float64, how often each image is drawn in each bootstrap sample."""
    generator = np.random.default_rng(seed)
    return generator.multinomial(n_images, np.full(n_images, 1 / n_images), size=n_bootstrap).astype(float)


def mean_replicates(weights: Float64, totals: NDArray[Any], counts: NDArray[Any] | None = None) -> Float64:
    """Bootstrap replicates of a mean over items that come in images.

    Args:
        weights: (n_bootstrap, n_images) of :func:`image_weights`.
        totals: (n_images,) sum of the score over each image's items.
        counts: (n_images,) number of items; one each where left out. Images of no item drop out.

    Returns:
        (n_bootstrap,) float64; NaN where there is one image, whose mean does not vary over samples.
    """
    if weights.shape[1] < 2:
        return np.full(len(weights), np.nan)
    number = np.ones(len(totals)) if counts is None else np.asarray(counts, dtype=np.float64)
    below = weights @ number
    out = (weights @ np.asarray(totals, dtype=np.float64)) / np.where(below > 0, below, 1.0)
    return np.asarray(np.where(below > 0, out, np.nan), dtype=np.float64)


def voxel_r_replicates(weights: Float64, predicted: NDArray[Any], measured: NDArray[Any]) -> Float64:
    """Bootstrap replicates of the mean over voxels of Pearson across images.

    Args:
        weights: (n_bootstrap, n_images).
        predicted, measured: (n_images, n_voxels); voxels with a constant measured side are left out.

    Returns:
        (n_bootstrap,) float64.
    """
    everything = np.ones((1, predicted.shape[1]), dtype=np.bool_)
    return np.asarray(voxel_r_replicates_of(everything, weights, predicted, measured)[0])


def voxel_r_replicates_of(
    groups: NDArray[np.bool_],
    weights: Float64,
    predicted: NDArray[Any],
    measured: NDArray[Any],
    device: Device = "cpu",
) -> Float64:
    """:func:`voxel_r_replicates` of several groups of voxels at the cost of one.

    Args:
        groups: (n_groups, n_voxels).
        weights, predicted, measured: as there.
        device: where products of weights and voxels are made.

    Returns:
        (n_groups, n_bootstrap) float64.
    """
    n_bootstrap, n = weights.shape
    share = on(weights / n, device)
    total, used = (np.zeros((n_bootstrap, len(groups))) for _ in range(2))
    for voxels in blocks(predicted.shape[1], 6 * (n + n_bootstrap)):
        sides = predicted[:, voxels], measured[:, voxels]
        sizes = [on(np.abs(side).max(axis=0), device) for side in sides]
        r, alive = _weighed_r(share, *(on(side, device) for side in sides), *sizes)
        inside = on(groups[:, voxels].T, device)
        total += host(r @ inside)
        used += host(alive @ inside)
    return np.asarray(np.where(used > 0, total / np.maximum(used, 1), np.nan).T, dtype=np.float64)


def _weighed_r(share: Any, a: Any, b: Any, size_a: Any, size_b: Any) -> tuple[Any, Any]:
    """Correlations (n_bootstrap, n) of columns, 0 where one is constant; and 1 where b varies, 0 where not.

    Args:
        share: (n_bootstrap, n_images) weights that sum to 1.
        a, b: predicted and measured; numpy's arrays or tensors.
        size_a, size_b: (n,) largest absolute values, beside which a spread may be none.
    """
    a, b = a - a.mean(0), b - b.mean(0)
    mean_a, mean_b = share @ a, share @ b
    var_a, var_b = (share @ a**2 - mean_a**2).clip(0), (share @ b**2 - mean_b**2).clip(0)
    alive_a, alive_b = var_a**0.5 > CONSTANT * size_a, var_b**0.5 > CONSTANT * size_b
    alive = alive_a & alive_b
    norm = (var_a * var_b) ** 0.5 * alive + ~alive
    # a bool times a float is float64 in numpy alone
    return (share @ (a * b) - mean_a * mean_b) * alive / norm, alive_b + 0 * var_b


def percentile_interval(replicates: NDArray[Any], level: float = LEVEL) -> Interval | None:
    """Central interval of bootstrap replicates (n_bootstrap,); None where fewer than two are finite."""
    finite = replicates[np.isfinite(replicates)]
    if len(finite) < 2:
        return None
    low, high = np.quantile(finite, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def bootstrap_mean(
    values: NDArray[Any], *, level: float = LEVEL, n_bootstrap: int = 2000, seed: int = 0
) -> Interval:
    """Bootstrap interval (bias-corrected and accelerated, scipy) of the mean of (n_items,) values."""
    from scipy import stats  # half a second: not for those who need the constants above alone

    finite = np.asarray(values, dtype=np.float64)
    finite = finite[np.isfinite(finite)]
    # equal but for rounding: scipy then finds no sample on one side of the mean, and gives NaN
    if len(finite) < 2 or np.ptp(finite) <= 1e-12 * np.abs(finite).max():
        centre = float(finite.mean()) if len(finite) else float("nan")
        return centre, centre
    result = stats.bootstrap(
        (finite,), np.mean, confidence_level=level, n_resamples=n_bootstrap, rng=np.random.default_rng(seed)
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def bootstrap_subjects(
    values: Sequence[NDArray[Any]], *, level: float = LEVEL, n_bootstrap: int = 2000, seed: int = 0
) -> Interval:
    """Interval of the mean over subjects of their mean over images; subjects, then images, are resampled.

    Args:
        values: one (n_images,) array per subject; images may differ in number.
        level, n_bootstrap, seed: of the bootstrap.
    """
    generator = np.random.default_rng(seed)
    means = np.empty(n_bootstrap)
    for k in range(n_bootstrap):
        drawn = generator.integers(len(values), size=len(values))
        means[k] = np.mean([np.mean(generator.choice(values[s], size=len(values[s]))) for s in drawn])
    interval = percentile_interval(means, level)
    assert interval is not None
    return interval


def seed_interval(values: NDArray[Any], level: float = LEVEL) -> Interval | None:
    """Student's t interval of the mean over (n_seeds,) values; None for a single seed."""
    from scipy import stats

    if len(values) < 2:
        return None
    half = float(stats.t.ppf((1 + level) / 2, len(values) - 1) * stats.sem(values))
    return float(np.mean(values)) - half, float(np.mean(values)) + half


def paired_p(difference: NDArray[Any], n_images: int | None = None) -> float:
    """Two-sided p-value that a difference is 0, from its paired bootstrap replicates (n_bootstrap,).

    Twice the smaller tail, with one added to numerator and denominator so that it is never 0. Where all of n
    images favour one side no sample disagrees, however few they are: p is at least that of as many equal
    signs, ``2 / 2^n``.
    """
    finite = difference[np.isfinite(difference)]
    tail = min(int(np.sum(finite <= 0)), int(np.sum(finite >= 0)))
    least = 0.0 if n_images is None else 2.0 ** (1 - n_images)
    return float(min(1.0, max(2 * (tail + 1) / (len(finite) + 1), least)))


def holm(p_values: NDArray[Any]) -> Float64:
    """Holm's step-down correction (1979) of (n_tests,) p-values for the number of tests."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p)
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    out = np.empty_like(p)
    out[order] = np.minimum(stepped, 1.0)
    return out
