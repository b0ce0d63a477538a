"""Trial variance of each voxel as a line of the mean, slopes drawn together over voxels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synbrain.arrays import Float64, Rows
from synbrain.metrics.voxel import blocks

LEAST_TRIALS = 20  # from which slopes are fitted
LEAST_LEVEL = 0.1  # of a voxel's average variance


@dataclass(frozen=True)
class VarianceFit:
    """``max(base + slope * mean, floor)`` for each voxel, right on average over the trials.

    Attributes:
        line: base, slope, floor, each (n_voxels,).
        average: (n_voxels,) mean over trials.
        signal: (n_voxels,) variance of the true mean over images.
        of_means: (n_voxels,) variance of the repeat means over images, noise and all.
        fraction: of the squares that it was fitted to.
    """

    line: tuple[Float64, Float64, Float64]
    average: Float64
    signal: Float64
    of_means: Float64
    fraction: float = 1.0

    def of(self, mean: NDArray[Any], voxels: slice = slice(None)) -> Float64:
        """(n, n_voxels) variance at these means."""
        base, slope, floor = (part[voxels] for part in self.line)
        return np.asarray(np.maximum(base + slope * mean, floor))

    def scaled(self, fraction: float) -> VarianceFit:
        """The same line with ``fraction`` of the variance; the rest is error of the mean."""
        base, slope, floor = (part * fraction for part in self.line)
        average = self.average * fraction
        signal = np.maximum(self.signal - average, 0) if fraction < 1 else self.signal
        return replace(self, line=(base, slope, floor), average=average, signal=signal, fraction=fraction)


def variance_function(
    parts: Iterable[tuple[slice, Float64, Float64, Float64]],
    image: Rows,
    repeats: Rows,
    repeated: bool,
    mean_dependent: bool,
) -> VarianceFit:
    """Least squares of squared residuals on the mean.

    Slopes are drawn to the one that all voxels share (in units of their own variance and spread of means) as
    far as their standard errors say (empirical Bayes).

    Args:
        parts: (voxels, residuals (n_trials, n), means (n_images, n), repeat means (n_images, n)).
        image: (n_trials,) row of the means.
        repeats: (n_images,).
        repeated: whether residuals are within images; then noise is taken out of the signal's variance.
        mean_dependent: False for slopes of 0.
    """
    with_slopes = mean_dependent and len(image) >= LEAST_TRIALS
    columns: list[tuple[Float64, ...]] = []
    for _, residual, mean, repeat_means in parts:
        squares = residual**2
        average = np.maximum(squares.mean(axis=0), 1e-12)
        m = mean[image]
        centre, spread = m.mean(axis=0), np.maximum(m.std(axis=0), 1e-12)
        x, relative = (m - centre) / spread, squares / average
        raw = np.mean(x * relative, axis=0)
        error = np.mean((x * (relative - 1 - x * raw)) ** 2, axis=0) / len(x)
        noise = average * np.mean(1 / repeats) if repeated else np.zeros_like(average)
        of_means = repeat_means.var(axis=0, ddof=1)
        signal = np.maximum(of_means - noise, 0)
        columns.append((average, centre, spread, raw, error, signal, of_means))
    average, centre, spread, raw, error, signal, of_means = (
        np.concatenate(part) for part in zip(*columns, strict=True)
    )
    shrunk = _shrunk_slopes(raw, error) if with_slopes else np.zeros_like(raw)
    slope = average * shrunk / spread
    base, floor = average - slope * centre, LEAST_LEVEL * average
    return VarianceFit((base, slope, floor), average, signal, of_means)


def drawn_together(fit: VarianceFit, around: Float64, freedom: int, repeats: Rows) -> VarianceFit:
    """Trial variances, drawn to the share of ``around`` that voxels have in common.

    From few repeats a voxel's variance within images is a guess, while that of its trials around a
    cross-fitted mean is known from all images. What they differ by would be taken for error of the mean, and
    where it falls below 0 nothing gives back what lies above: both parts together would be too large. Shares
    are drawn as far as their standard errors say (empirical Bayes).

    Args:
        fit: from residuals within images.
        around: (n_voxels,) mean square of trials around their cross-fitted mean.
        freedom: degrees of freedom within images.
        repeats: (n_images,).
    """
    alive = (around > 1e-20) & (fit.average > 1e-12)
    if not alive.any():
        return fit
    share = fit.average[alive] / around[alive]
    # of normal residuals a variance V varies by 2 V^2 / freedom, but what lies around the mean holds
    # freedom / n_trials of V, and varies with it: where all images were repeated a share is known better
    moved = share * np.maximum(1 - share * freedom / repeats.sum(), 0)
    uncertain = 2 * float(np.mean(moved**2)) / (freedom + 2)
    common = float(share.mean())
    between = max(float(np.mean((share - common) ** 2)) - uncertain, 0.0)
    certain = between / max(between + uncertain, 1e-12)
    scale = np.ones_like(fit.average)
    scale[alive] = (common + (share - common) * certain) / share
    base, slope, floor = (part * scale for part in fit.line)
    average = fit.average * scale
    signal = np.maximum(fit.of_means - average * float(np.mean(1 / repeats)), 0)
    return replace(fit, line=(base, slope, floor), average=average, signal=signal)


def _shrunk_slopes(raw: Float64, error: Float64) -> Float64:
    known = error > 0  # a voxel that never varies, or whose mean does not, shows nothing of slopes
    if not known.any():
        return np.zeros_like(raw)
    common = np.average(raw[known], weights=1 / np.maximum(error[known], 1e-12))
    between = max(float(np.mean((raw[known] - common) ** 2 - error[known])), 0.0)
    certain = np.divide(between, between + error, out=np.zeros_like(error), where=known)
    return np.asarray(common + (raw - common) * certain)


def levelled(fit: VarianceFit, mean: NDArray[Any], image: Rows) -> VarianceFit:
    """The fit, brought to the average again: a line that is clipped at its floor lies above itself."""
    level = np.ones_like(fit.average)
    weights = np.bincount(image, minlength=len(mean)) / len(image)
    for voxels in blocks(len(fit.average), len(mean)):
        clipped = fit.of(mean[:, voxels], voxels)
        level[voxels] = (weights @ clipped) / np.maximum(fit.average[voxels], 1e-12)
    level = np.maximum(level, 1e-12)
    base, slope, floor = (part / level for part in fit.line)
    return replace(fit, line=(base, slope, floor))
