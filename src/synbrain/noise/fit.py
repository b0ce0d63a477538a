"""Fit both uncertainties of a response, each from what shows it alone.

1. What a trial adds to the true mean: residuals within images.
2. What is not known of the mean: squared errors of the repeat means around a cross-fitted mean, less the
trial
   noise that is left in a repeat mean, ``E (ybar - m)^2 = var_error + var_trial / repeats``.
3. The shape of their sum: residuals of single trials around the cross-fitted mean, over the sum's sd.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import kurtosis, skew

from synbrain.arrays import Float32, Float64
from synbrain.describe import counted
from synbrain.errors import SynBrainError
from synbrain.features.tokens import Pairs, some_of
from synbrain.metrics.device import Device
from synbrain.metrics.voxel import blocks
from synbrain.noise.config import NoiseConfig
from synbrain.noise.factors import fit_factors, without
from synbrain.noise.image_distance import ImageDistance
from synbrain.noise.margins import drawn_skewness, skew_parameter, unwarp, warp, warp_moments
from synbrain.noise.mean_error import (
    Distances,
    Errors,
    Growth,
    distances_of,
    error_sizes,
    fit_growth,
)
from synbrain.noise.measure import Measure
from synbrain.noise.parts import MeanError, NoiseRecord, Source, TrialNoise
from synbrain.noise.residuals import Residuals, moment_factors
from synbrain.noise.response_noise import ResponseNoise
from synbrain.noise.variance import VarianceFit, drawn_together, levelled, variance_function

TAILS = (0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0, 1.05, 1.1, 1.15, 1.2, 1.25)
LEVELS = (0.5, 0.9)
MOST_VALUES = 2**26  # residuals from which factors are fitted
MARGIN_TRIALS = 6000  # from which the shape of the sum is fitted


@dataclass(frozen=True)
class NoisePrior:
    """What is known before a subject's own data are looked at.

    Attributes:
        trial_fraction: of the residual variance of a single trial around a cross-fitted mean, what is trial
            noise; used where no image was repeated. None: what grows with distance is error of the mean.
        growth: of the mean's variance with distance, to which a subject's own is drawn.
        distance: of the images that ``mean`` was fitted on, where these are not the images at hand.
    """

    trial_fraction: float | None = None
    growth: float | None = None
    distance: ImageDistance | None = None


UNKNOWN = NoisePrior()


def fit_response_noise(
    pairs: Pairs,
    mean: NDArray[np.float32],
    config: NoiseConfig,
    *,
    prior: NoisePrior = UNKNOWN,
    cross_fitted: bool = True,
    seed: int = 0,
    device: Device = "cpu",
) -> ResponseNoise:
    """Fit trial noise, what is not known of the mean, and the shape of their sum.

    Without repeats residuals hold both. They are then parted by the prior's fraction. Without a prior, the
    part that grows in proportion to an image's distance from the training images is taken as error of the
    mean (it is what kernel ridge says of it), and all else as trial noise; ``record.source`` says so. Voxels
    that never vary take no part, and any unit gives the same noise (:mod:`synbrain.noise.measure`).

    Args:
        pairs: trials of training images.
        mean: (n_images, n_voxels) float32, cross-fitted: none may have been fitted on its own image.
        config: see there.
        prior: from base subjects, or from the model whose noise is refitted.
        cross_fitted: False where ``mean`` may have seen its images after all. Then residuals around it tell
            nothing of trials, and what is fitted of the error of the mean is too small.
        seed: of the halves on which the number of factors is chosen.
        device: where patterns of the residuals are computed.

    Raises:
        SynBrainError: where means and trials do not fit each other, are not finite, or there are fewer than 4
            trials.
    """
    _check(pairs, mean)
    measure = Measure.of(pairs)
    if measure.is_plain:
        return _fitted(pairs, mean, config, prior, cross_fitted, seed, device)
    fitted = _fitted(*measure.fitted(pairs, mean), config, prior, cross_fitted, seed, device)
    return measure.of_all(fitted)


def _fitted(
    pairs: Pairs,
    mean: Float32,
    config: NoiseConfig,
    prior: NoisePrior,
    cross_fitted: bool,
    seed: int,
    device: Device,
) -> ResponseNoise:
    """As :func:`fit_response_noise`, of voxels that all vary by some ordinary number."""
    residuals = Residuals(pairs, mean)
    distances = distances_of(pairs.tokens, prior.distance, seed=seed) if config.by_distance else None
    parted = _parted(residuals, _trial_variance(residuals, config, cross_fitted), distances, prior)
    variance, errors, growth = parted.variance, parted.errors, parted.growth
    trial, repeat_means, scores = _trial_noise(residuals, variance, config, seed, device)
    error = _mean_error(residuals, trial, parted, repeat_means, config, seed, device)
    shape = _shape_of_sum(residuals, trial, error, growth.values, config, seed)
    record = NoiseRecord(
        source=parted.source,
        n_images=pairs.n_images,
        n_trials=pairs.n_trials,
        trial_factors=trial.loadings.shape[1],
        error_factors=error.loadings.shape[1],
        held_out_log_density_by_factors=scores,
        error_over_trial_variance=float(np.median(errors.variance / np.maximum(variance.average, 1e-12))),
        growth_with_distance=error.slope,
        coverage_50=shape.coverage[0],
        coverage_90=shape.coverage[1],
    )
    return ResponseNoise(
        trial=trial,
        error=error,
        skew=f32(shape.skew),
        tail=f32(shape.tail),
        signal_variance=f32(variance.signal),
        noise_variance=f32(variance.average),
        record=record,
    )


def _check(pairs: Pairs, mean: NDArray[np.float32]) -> None:
    if mean.shape != (pairs.n_images, pairs.n_voxels):
        raise SynBrainError(
            f"means of shape {mean.shape} for {counted(pairs.n_images, 'image')} x "
            f"{counted(pairs.n_voxels, 'voxel')}",
            "give one cross-fitted mean per training image",
        )
    if pairs.n_trials < 4:
        raise SynBrainError(f"{counted(pairs.n_trials, 'trial')} to fit noise on", "give more trials")
    if not np.isfinite(mean).all():
        raise SynBrainError("means that are not finite", "fit the linear path again")


@dataclass(frozen=True)
class _Parted:
    """Trial variance, errors of the mean and their growth with distance, and what parted them."""

    variance: VarianceFit
    errors: Errors
    growth: Growth
    source: Source


def _parted(
    residuals: Residuals, variance: VarianceFit, distances: Distances | None, prior: NoisePrior
) -> _Parted:
    if residuals.repeated:
        errors = error_sizes(residuals, variance)
        return _Parted(variance, errors, fit_growth(errors, distances, prior.growth), "repeats")
    if prior.trial_fraction is not None:
        variance = variance.scaled(prior.trial_fraction)
        errors = error_sizes(residuals, variance)
        return _Parted(variance, errors, fit_growth(errors, distances, prior.growth), "base subjects")
    # kernel ridge: errors of the mean grow in proportion to v (slope 1), so what grows is their part
    grown = fit_growth(error_sizes(residuals, variance.scaled(0)), distances, None)
    variance = variance.scaled(1 - min(grown.slope, 0.95))
    return _Parted(variance, error_sizes(residuals, variance), grown.at(1.0), "residuals")


def f32(values: Float64) -> Float32:
    return np.asarray(values, dtype=np.float32)


def _trial_variance(residuals: Residuals, config: NoiseConfig, cross_fitted: bool) -> VarianceFit:
    """Variance of trials as a function of the mean; without repeats, of all that residuals hold."""
    repeats, repeated = residuals.repeats, residuals.repeated
    image = residuals.image[residuals.usable] if repeated else residuals.image
    around = np.empty(residuals.pairs.n_voxels)

    def parts() -> Iterator[tuple[slice, Float64, Float64, Float64]]:
        for block in residuals.blocks():
            around[block.voxels] = np.mean(block.around**2, axis=0)
            yield block.voxels, block.within if repeated else block.around, block.mean, block.repeat_means

    fitted = variance_function(parts(), image, repeats, repeated, config.mean_dependent)
    fitted = levelled(fitted, residuals.mean, image)
    if not (repeated and cross_fitted):
        return fitted
    freedom = len(image) - int(np.sum(repeats > 1))
    return drawn_together(fitted, around, freedom, repeats)


def _trial_noise(
    residuals: Residuals, variance: VarianceFit, config: NoiseConfig, seed: int, device: Device
) -> tuple[TrialNoise, Float32, dict[str, float]]:
    """Trial noise; repeat means (n_images, n_voxels), which later steps need; scores by number of factors."""
    n_voxels = residuals.pairs.n_voxels
    repeat_means = np.empty(residuals.mean.shape, dtype=np.float32)
    skewness, heavy = np.zeros(n_voxels), np.zeros(n_voxels)
    for block in residuals.blocks():
        v = block.voxels
        repeat_means[:, v] = block.repeat_means
        if residuals.repeated and config.shaped:
            sd = np.sqrt(variance.of(block.mean, v))
            standard = block.within / np.maximum(sd[residuals.image[residuals.usable]], 1e-12)
            skewness[v], heavy[v] = skew(standard, axis=0), kurtosis(standard, axis=0)
    shaped = residuals.repeated and config.shaped
    bent, tails = np.zeros(n_voxels), np.ones(n_voxels)
    if shaped:
        third, fourth = moment_factors(residuals.repeats[residuals.image])
        # two repeats have symmetric residuals, whatever the trials: then nothing is known of the skewness
        drawn = drawn_skewness(np.nan_to_num(skewness), len(residuals.usable))
        wanted = drawn / third if third > 0.1 else 0 * drawn
        tails[:] = _tail_of(float(np.median(np.nan_to_num(heavy))) / fourth, float(np.median(wanted)))
        bent = skew_parameter(wanted, tails[0])
    rows = residuals.usable if residuals.repeated else np.arange(len(residuals.image))
    rows = some_of(rows, max(100, min(config.max_trials, MOST_VALUES // n_voxels)), (seed, 2))
    image = residuals.image[rows]
    if residuals.repeated:
        of_trials = residuals.within(rows, repeat_means)
    else:
        of_trials = residuals.pairs.trial_responses(rows) - residuals.mean[image]
    # without repeats the residuals hold all of the variance, of which trials are a fraction
    fraction = 1.0 if residuals.repeated else variance.fraction
    z = np.empty(of_trials.shape)
    for part in blocks(len(z), n_voxels):
        total = variance.of(residuals.mean[image[part]]) / fraction
        sd = np.sqrt(np.maximum(total, 1e-24)).astype(np.float32)
        standard = np.asarray(of_trials[part] / sd, dtype=np.float64)
        z[part] = unwarp(standard, bent, tails)[0] if shaped else standard
    del of_trials
    loadings, unique, scores = fit_factors(z, image, config.factors, seed, device)
    base, slope, floor = variance.line
    parts = (loadings, unique, base, slope, floor, bent, tails)
    return TrialNoise(*(f32(part) for part in parts)), repeat_means, scores


def _tail_of(excess_kurtosis: float, skewness: float) -> float:
    """The tail whose warp has that excess kurtosis at that skewness."""
    given = [
        warp_moments(skew_parameter(np.array([skewness]), tail), np.array([tail]))[3][0] for tail in TAILS
    ]
    return float(np.interp(excess_kurtosis, given, TAILS))


def _mean_error(
    residuals: Residuals,
    trial: TrialNoise,
    parted: _Parted,
    repeat_means: Float32,
    config: NoiseConfig,
    seed: int,
    device: Device,
) -> MeanError:
    """Size and patterns of the errors of the mean: those of repeat means, less those of trials."""
    errors, growth = parted.errors, parted.growth
    sd = np.sqrt(errors.variance)
    distance = None if growth.distances is None else growth.distances.distance
    if not np.any(sd > 0):
        return MeanError.none(len(sd))
    if not residuals.repeated:
        # residuals are the sum of both, and their patterns were fitted already
        return MeanError(f32(sd), trial.loadings, trial.unique, growth.slope, distance)
    n_voxels = repeat_means.shape[1]
    rows = some_of(np.flatnonzero(residuals.shown), max(100, MOST_VALUES // n_voxels), (seed, 5))
    z, fraction = np.empty((len(rows), n_voxels)), np.zeros(n_voxels)
    for part in blocks(len(z), n_voxels):
        some = rows[part]
        mean = residuals.mean[some]
        of_error = growth.values[some, None] * errors.variance
        total = np.maximum(trial.variance(mean) / residuals.repeats[some, None] + of_error, 1e-24)
        z[part] = (repeat_means[some] - mean) / np.sqrt(total)
        fraction += np.sum(of_error / total, axis=0) / len(rows)
    loadings, _, _ = fit_factors(z, rows, config.factors, seed, device)
    left, unique = without(loadings, fraction, trial.loadings.astype(np.float64), 1 - fraction)
    return MeanError(f32(sd), f32(left), f32(unique), growth.slope, distance)


@dataclass(frozen=True)
class _Shape:
    """Skew and tail (n_voxels,) of the sum's margin, and coverage at LEVELS."""

    skew: Float64
    tail: Float64
    coverage: tuple[float, float]


def _shape_of_sum(
    residuals: Residuals,
    trial: TrialNoise,
    error: MeanError,
    growth: Float64,
    config: NoiseConfig,
    seed: int,
) -> _Shape:
    """Margins under which intervals of single trials cover what they say, for images left out.

    The skewness of a voxel is measured; the tail is one for all voxels, the one of least
    ``max |coverage - level|`` over 50 % and 90 % intervals. Variances are not touched.
    """
    rows = some_of(np.arange(len(residuals.image)), MARGIN_TRIALS, (seed, 6))
    image = residuals.image[rows]
    n_voxels = residuals.pairs.n_voxels

    def standard(voxels: slice) -> Float64:
        responses = residuals.pairs.responses[:, voxels][residuals.pairs.trials[rows]]
        mean = residuals.mean[:, voxels]
        line = np.maximum(trial.base[voxels] + trial.slope[voxels] * mean, trial.floor[voxels])
        variance = line + growth[:, None] * error.sd[voxels] ** 2
        return np.asarray((responses - mean[image]) / np.sqrt(np.maximum(variance, 1e-24))[image])

    width = max(1, 2**23 // max(len(rows), 1))
    parts = [slice(s, min(s + width, n_voxels)) for s in range(0, n_voxels, width)]
    skewness = np.concatenate([np.nan_to_num(skew(standard(part), axis=0)) for part in parts])
    wanted = drawn_skewness(skewness, len(rows))
    tails = TAILS if config.shaped else (1.0,)
    bent = [skew_parameter(wanted, tail) if config.shaped else np.zeros(n_voxels) for tail in tails]
    inside = np.zeros((len(tails), len(LEVELS)))
    for part in parts:
        off = standard(part)
        for t, tail in enumerate(tails):
            for k, level in enumerate(LEVELS):
                inside[t, k] += _inside(off, bent[t][part], tail, level)
    inside /= len(rows) * n_voxels
    misses = np.max(np.abs(inside - np.array(LEVELS)), axis=1)
    best = int(np.argmin(misses))
    return _Shape(
        bent[best], np.full(n_voxels, tails[best]), (float(inside[best, 0]), float(inside[best, 1]))
    )


def _inside(standard: Float64, skew: Float64, tail: float, level: float) -> int:
    """Number of residuals inside the central interval of ``level``."""
    ends = np.repeat(ndtri([[(1 - level) / 2], [(1 + level) / 2]]), standard.shape[1], axis=1)
    low, high = warp(ends, skew, np.full(len(skew), tail))
    return int(np.count_nonzero((standard >= low) & (standard <= high)))
