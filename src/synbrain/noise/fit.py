"""Fit trial-to-trial variability around a mean that has not seen the images."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import skew as sample_skewness
from sklearn.decomposition import FactorAnalysis
from sklearn.exceptions import ConvergenceWarning

from synbrain.arrays import Float64, Rows
from synbrain.errors import SynBrainError
from synbrain.features.tokens import Pairs, some_of
from synbrain.metrics.low_rank import log_density
from synbrain.noise.config import NoiseConfig
from synbrain.noise.response_noise import ResponseNoise, Source, unwarp, warp, warp_moments

LARGEST_SKEW = 2.0  # of the warp's parameter; skewness then is 1.2 to 1.8, by the tail
TAILS = (0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0)
ALLOWED = {0.9: 0.02, 0.5: 0.03}  # how far coverage may be off


def fit_response_noise(
    pairs: Pairs, mean: NDArray[np.float32], config: NoiseConfig, *, seed: int = 0
) -> ResponseNoise:
    """Fit variance, margins, shared factors and inflation.

    Variance, margins and factors come from residuals around the repeat mean of each image, scaled up for
    the degree of freedom that the mean takes; inflation from residuals around ``mean``. Where no image
    was repeated all of it comes from the latter, which ``source`` says.

    Args:
        pairs: trials of training images.
        mean: (n_images, n_voxels) float32, cross-fitted: none may have been fitted on its own image.
        config: see there.
        seed: of the split on which the number of factors is chosen.

    Raises:
        SynBrainError: where means and trials do not fit each other, or there are fewer than 4 trials.
    """
    if mean.shape != (pairs.n_images, pairs.n_voxels):
        raise SynBrainError(
            f"means of shape {mean.shape} for {pairs.n_images} images x {pairs.n_voxels} voxels",
            "give one cross-fitted mean per training image",
        )
    repeats = pairs.repeats()
    repeated = bool(np.sum(repeats[repeats > 1] - 1) >= 8)
    image, residual, about_mean = _residuals(pairs, mean, repeated, config.max_trials, seed)
    if len(image) < 4:
        raise SynBrainError(f"{len(image)} trials to fit noise on", "give more trials")
    base, slope, floor = variance_function(residual**2, image, mean, config.mean_dependent)
    ones = np.ones(pairs.n_voxels)
    plain = ResponseNoise(
        loadings=np.zeros((pairs.n_voxels, 0), dtype=np.float32),
        unique=_f32(ones),
        base=_f32(base),
        slope=_f32(slope),
        floor=_f32(floor),
        inflation=_f32(ones),
        skew=_f32(0 * ones),
        tail=_f32(ones),
        signal_variance=_f32(_signal_variance(pairs, repeated)),
        noise_variance=_f32(np.mean(residual**2, axis=0)),
        about={},
    )
    sd = np.sqrt(plain.variance(mean)).astype(np.float64)
    standard = residual / sd[image]
    off = about_mean / sd[image]
    needed = np.maximum(np.mean(off**2, axis=0), 1) if repeated else ones
    skew, tail, power = fit_margins(standard, off, needed, config)
    inflation = needed**power
    z, _ = unwarp(standard, skew, tail)
    loadings, unique, scores = fit_factors(z, image, config.factors, seed)
    noise = replace(
        plain,
        loadings=_f32(loadings),
        unique=_f32(unique),
        skew=_f32(skew),
        tail=_f32(tail),
        inflation=_f32(inflation),
    )
    about: dict[str, Any] = {
        "n_images": pairs.n_images,
        "n_trials": pairs.n_trials,
        "factors": int(loadings.shape[1]),
        "held_out_log_density_by_factors": scores,
        "variance_over_within_image_variance": float(np.median(inflation)),
        "coverage_90": coverage(off, inflation, skew, tail, 0.9),
        "coverage_50": coverage(off, inflation, skew, tail, 0.5),
    }
    source: Source = "repeats" if repeated else "residuals"
    return replace(noise, about=about, source=source, variance_needed=float(np.median(needed)))


def _f32(values: Float64) -> NDArray[np.float32]:
    return np.asarray(values, dtype=np.float32)


def _residuals(
    pairs: Pairs, mean: NDArray[np.float32], repeated: bool, most: int, seed: int
) -> tuple[Rows, Float64, Float64]:
    """Of up to ``most`` trials: image, residual within the image, residual around ``mean``.

    Within an image of n trials residuals are scaled by sqrt(n / (n - 1)), so that their mean square is the
    trial variance. Without repeats both residuals are the same.
    """
    repeats = pairs.repeats()
    usable = np.flatnonzero(repeats[pairs.image_of_trial] > 1) if repeated else np.arange(pairs.n_trials)
    usable = some_of(usable, most, (seed, 2))
    image = pairs.image_of_trial[usable]
    responses = pairs.trial_responses(usable).astype(np.float64)
    around = responses - mean[image]
    if not repeated:
        return image, around, around
    widen = np.sqrt(repeats[image] / (repeats[image] - 1))[:, None]
    return image, (responses - pairs.repeat_means()[image]) * widen, around


def _signal_variance(pairs: Pairs, repeated: bool) -> Float64:
    """(n_voxels,) variance of the true mean over images: that of repeat means less what noise adds to it."""
    means = pairs.repeat_means().astype(np.float64)
    if not repeated:
        return np.asarray(means.var(axis=0, ddof=1))
    repeats = np.maximum(pairs.repeats(), 1)
    squares = np.zeros(pairs.n_voxels)
    for start in range(0, pairs.n_trials, 2048):
        rows = np.arange(start, min(start + 2048, pairs.n_trials))
        squares += np.sum((pairs.trial_responses(rows) - means[pairs.image_of_trial[rows]]) ** 2, axis=0)
    noise = squares / max(int(np.sum(repeats - 1)), 1)
    return np.asarray(np.maximum(means.var(axis=0, ddof=1) - noise * np.mean(1 / repeats), 0))


def variance_function(
    squares: Float64, image: Rows, mean: NDArray[np.float32], mean_dependent: bool
) -> tuple[Float64, Float64, Float64]:
    """Per voxel ``variance = max(base + slope * mean, floor)``, right on average over the trials.

    Slopes are least squares of squared residuals on the mean, drawn to the slope that all voxels share (in
    units of their own variance and spread of means) as far as their standard errors say (empirical Bayes).

    Args:
        squares: (n_trials, n_voxels), squared residuals.
        image: (n_trials,) row of ``mean``.
        mean: (n_images, n_voxels).
        mean_dependent: False for slopes of 0.

    Returns:
        base, slope, floor, each (n_voxels,).
    """
    average = np.maximum(squares.mean(axis=0), 1e-12)
    floor = 0.1 * average
    if not mean_dependent or len(squares) < 20:
        return average, np.zeros_like(average), floor
    m = mean[image].astype(np.float64)
    centre, spread = m.mean(axis=0), np.maximum(m.std(axis=0), 1e-12)
    x, relative = (m - centre) / spread, squares / average
    raw = np.mean(x * relative, axis=0)
    error = np.mean((x * (relative - 1 - x * raw)) ** 2, axis=0) / len(x)
    known = error > 0  # a voxel that never varies, or whose mean does not, tells nothing about slopes
    if not known.any():
        return average, np.zeros_like(average), floor
    common = np.average(raw[known], weights=1 / np.maximum(error[known], 1e-12))
    between = max(float(np.mean((raw[known] - common) ** 2 - error[known])), 0.0)
    certain = np.divide(between, between + error, out=np.zeros_like(error), where=known)
    shrunk = common + (raw - common) * certain
    # a clipped line is above its line on average: bring the average back
    level = np.maximum(1 + shrunk * x, 0.1).mean(axis=0)
    slope = average * shrunk / spread / level
    return average / level - slope * centre, slope, floor / level


def fit_margins(
    standard: Float64, off: Float64, needed: Float64, config: NoiseConfig
) -> tuple[Float64, Float64, float]:
    """Shape of the margins, and how much of the mean's error goes into the variance.

    Around an imperfect mean a trial varies by more than trials of one image do (``needed``, as a factor on
    the variance). Samples cannot have both variances: "balanced" takes the power p of ``needed ** p`` and
    the flatness of the margins (one for all voxels) that make the worst of three misses smallest, each as a
    share of what is allowed: coverage of 90 % intervals (2 %), of 50 % intervals (3 %), and the log of the
    median variance ratio (log max_ratio, which it may not pass).

    The skewness is that of ``standard``: around the mean it would be that of the mean's errors too.

    Args:
        standard: (n_trials, n_voxels), residuals within images over their sd.
        off: (n_trials, n_voxels), (trial - cross-fitted mean) over the same sd.
        needed: (n_voxels,), at least 1.
        config: whether margins are shaped, and the kind of inflation.

    Returns:
        skew, tail (n_voxels,), and the power.
    """
    fixed = {"none": [0.0], "predictive": [1.0]}
    powers = fixed.get(config.inflation, list(np.linspace(0, 1, 21)))
    n_voxels = standard.shape[1]
    wanted = drawn_skewness(standard) if config.shaped else None
    best: tuple[float, Float64, Float64, float] | None = None
    for tail in TAILS if config.shaped else (1.0,):
        tails = np.full(n_voxels, tail)
        skew = np.zeros(n_voxels) if wanted is None else skew_parameter(wanted, tail)
        for power in powers:
            ratio = float(np.log(np.median(needed**power)) / np.log(config.max_ratio))
            balanced = config.inflation == "balanced"
            if balanced and best is not None and ratio >= min(best[0], 1.0):
                break  # the variance ratio keeps its bound, whatever coverage would want
            misses = [
                abs(coverage(off, needed**power, skew, tails, level) - level) / allowed
                for level, allowed in ALLOWED.items()
            ]
            miss = max(*misses, ratio if balanced else 0.0)
            if best is None or miss < best[0]:
                best = (miss, skew, tails, float(power))
    assert best is not None
    return best[1:]


def drawn_skewness(standard: Float64) -> Float64:
    """(n_voxels,) skewness of (n_trials, n_voxels), each drawn to the median by its standard error."""
    observed = np.nan_to_num(sample_skewness(standard, axis=0))
    common = float(np.median(observed))
    error = 6 / len(standard)
    between = max(float(np.mean((observed - common) ** 2)) - error, 0.0)
    return np.asarray(common + (observed - common) * between / (between + error))


def skew_parameter(skewness: Float64, tail: float) -> Float64:
    """(n_voxels,) the warp's skew parameter that gives that skewness at ``tail``."""
    table = np.linspace(-LARGEST_SKEW, LARGEST_SKEW, 241)
    given = warp_moments(table, np.full_like(table, tail))[2]
    return np.asarray(np.interp(skewness, given, table))


def fit_factors(
    z: Float64, image: Rows, choices: tuple[int, ...], seed: int
) -> tuple[Float64, Float64, dict[str, float]]:
    """Loadings and unique variances of correlated standard normals, by factor analysis.

    The number of factors is the one of highest log density on the images that a fit on the other half has
    not seen.

    Args:
        z: (n_trials, n_voxels), about standard normal.
        image: (n_trials,) image of each trial; halves are split by image.
        choices: numbers of factors; more than a third of trials or voxels are left out.
        seed: of the halves.

    Returns:
        loadings (n_voxels, k), unique (n_voxels,) with row sums of squares + unique = 1, and the held-out
        log density per trial and voxel by number of factors.
    """
    n_voxels = z.shape[1]
    images = np.unique(image)
    half = np.isin(image, np.random.default_rng([seed, 3]).permutation(images)[: len(images) // 2])
    possible = sorted({k for k in choices if k <= min(n_voxels, half.sum(), (~half).sum()) // 3} | {0})
    scores: dict[int, float] = {}
    for k in possible:
        both = []
        for fitted_on in (half, ~half):
            loadings, unique = _factors(z[fitted_on], k, seed)
            both.append(float(log_density(z[~fitted_on], loadings, unique).mean()) / n_voxels)
        scores[k] = float(np.mean(both))
        if scores[k] < max(scores.values()) - 0.01:
            break  # more factors only fit more noise
    best = max(scores, key=lambda k: scores[k])
    loadings, unique = _factors(z, best, seed)
    return loadings, unique, {str(k): round(value, 5) for k, value in scores.items()}


def _factors(z: Float64, k: int, seed: int) -> tuple[Float64, Float64]:
    n_voxels = z.shape[1]
    if k == 0:
        return np.zeros((n_voxels, 0)), np.ones(n_voxels)
    scale = np.maximum(np.sqrt(np.mean(z**2, axis=0)), 1e-12)
    with warnings.catch_warnings():  # 30 iterations are meant to be enough, converged or not
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted = FactorAnalysis(k, max_iter=30, tol=1e-3, random_state=seed).fit(z / scale)
    loadings = fitted.components_.T
    shared = np.sum(loadings**2, axis=1)
    shrink = np.minimum(1, np.sqrt(0.98 / np.maximum(shared, 1e-12)))
    loadings = loadings * shrink[:, None]
    return loadings, 1 - np.sum(loadings**2, axis=1)


def coverage(standard: Float64, inflation: Float64, skew: Float64, tail: Float64, level: float) -> float:
    """Share of residuals (n_trials, n_voxels) inside the central interval of ``level``."""
    ends = np.repeat(ndtri([[(1 - level) / 2], [(1 + level) / 2]]), standard.shape[1], axis=1)
    low, high = warp(ends, skew, tail) * np.sqrt(inflation)
    return float(np.mean((standard >= low) & (standard <= high)))
