"""Fitting the trial noise: known parameters come back, calibration holds on other images."""

from __future__ import annotations

import numpy as np
import pytest

from synbrain.errors import SynBrainError
from synbrain.features.tokens import Pairs, TokenSet
from synbrain.metrics.distribution import covariance_r, covered, noise_products, within_image_squares
from synbrain.noise.config import NoiseConfig
from synbrain.noise.fit import (
    drawn_skewness,
    fit_factors,
    fit_response_noise,
    skew_parameter,
    variance_function,
)

V = 20


def make_pairs(
    n_images: int = 150, repeats: int = 6, *, counts: bool = False, misfit: float = 0.5, seed: int = 0
) -> tuple[Pairs, np.ndarray]:
    """Trials with two shared factors, or counts under a gain, and means that miss the truth."""
    rng = np.random.default_rng(seed)
    image = np.repeat(np.arange(n_images), repeats)
    same = np.random.default_rng(99)  # the brain, the same for every seed
    loadings = same.normal(0, 0.6, (V, 2))
    truth = rng.gamma(4, 0.8, (n_images, V)) if counts else rng.normal(2, 1, (n_images, V))
    if counts:
        gain = rng.gamma(30, 1 / 30, (len(image), 1))
        responses = rng.poisson(truth[image] * gain).astype(float)
    else:
        shared = rng.normal(size=(len(image), 2)) @ loadings.T
        responses = truth[image] + shared + rng.normal(size=(len(image), V))
    tokens = TokenSet("e", "d", {"s": np.zeros((n_images, 1, 1), np.float32)}, np.arange(n_images))
    pairs = Pairs(tokens, responses.astype(np.float32), np.arange(len(image)), image)
    mean = truth + misfit * rng.normal(size=truth.shape)
    return pairs, mean.astype(np.float32)


@pytest.mark.parametrize("counts", [False, True])
def test_calibration_holds_on_other_images(counts: bool) -> None:
    pairs, mean = make_pairs(counts=counts)
    noise = fit_response_noise(pairs, mean, NoiseConfig())
    fresh, fresh_mean = make_pairs(counts=counts, seed=1)
    samples = noise.sample(fresh_mean, 60, seed=0)
    trials, image = fresh.trial_responses(), fresh.image_of_trial
    squares, freedom = within_image_squares(trials, image)
    ratio = np.median(samples.var(axis=0, ddof=1).mean(axis=0) / (squares / freedom))
    assert 0.9 < ratio < 1.1
    assert 0.88 < covered(samples, trials, image, 0.9).mean() < 0.92
    assert 0.47 < covered(samples, trials, image, 0.5).mean() < 0.53
    assert noise.source == "repeats"


def test_the_noise_covariance_is_found() -> None:
    pairs, mean = make_pairs()
    noise = fit_response_noise(pairs, mean, NoiseConfig())
    assert noise.loadings.shape[1] == 2
    loadings = np.random.default_rng(99).normal(0, 0.6, (V, 2))
    sd = np.sqrt(noise.noise_variance)
    covariance = noise.correlation() * np.outer(sd, sd)
    assert covariance_r(covariance, loadings @ loadings.T) > 0.95
    products, freedom = noise_products(pairs.trial_responses(), pairs.image_of_trial)
    assert covariance_r(covariance, products / freedom) > 0.9
    np.testing.assert_allclose(noise.signal_variance, 1, rtol=0.6)
    np.testing.assert_allclose(noise.noise_variance, 1 + np.sum(loadings**2, 1), rtol=0.25)


def test_no_misfit_needs_no_inflation_and_full_misfit_is_bounded() -> None:
    pairs, mean = make_pairs(misfit=0.0)
    perfect = fit_response_noise(pairs, mean, NoiseConfig(shaped=False))
    assert np.median(perfect.inflation) < 1.03
    pairs, mean = make_pairs(misfit=1.5)
    balanced = fit_response_noise(pairs, mean, NoiseConfig(shaped=False))
    predictive = fit_response_noise(pairs, mean, NoiseConfig(shaped=False, inflation="predictive"))
    needed = 1 + 1.5**2 / balanced.noise_variance
    np.testing.assert_allclose(predictive.inflation, needed, rtol=0.3)
    assert 1 < np.median(balanced.inflation) < np.median(predictive.inflation)


def test_without_repeats_the_residual_variance_is_used_and_said() -> None:
    pairs, mean = make_pairs(n_images=400, repeats=1, misfit=1.0)
    noise = fit_response_noise(pairs, mean, NoiseConfig())
    assert noise.source == "residuals"
    residual = pairs.trial_responses() - mean
    np.testing.assert_allclose(noise.variance(mean).mean(axis=0), (residual**2).mean(axis=0), rtol=0.02)
    np.testing.assert_array_equal(noise.inflation, 1)


def test_variance_grows_with_the_mean_for_counts_only() -> None:
    for counts, expected in ((True, 1.0), (False, 0.0)):
        pairs, mean = make_pairs(400, counts=counts, misfit=0)
        residual = pairs.trial_responses() - mean[pairs.image_of_trial]
        squares = residual.astype(float) ** 2
        base, slope, floor = variance_function(squares, pairs.image_of_trial, mean, True)
        assert np.median(slope) == pytest.approx(expected, abs=0.35)
        variance = np.maximum(base + slope * mean, floor)[pairs.image_of_trial]
        np.testing.assert_allclose(variance.mean(axis=0), squares.mean(axis=0), rtol=0.03)


def test_independent_noise_gets_no_factor() -> None:
    z = np.random.default_rng(0).normal(size=(600, V))
    loadings, unique, scores = fit_factors(z, np.repeat(np.arange(150), 4), (0, 1, 2, 4), seed=0)
    assert loadings.shape == (V, 0)
    np.testing.assert_array_equal(unique, 1)
    assert max(scores, key=lambda k: scores[k]) == "0"


def test_skewness_is_matched_and_drawn_together() -> None:
    from synbrain.noise.response_noise import warp_moments

    wanted = np.array([-0.8, 0.0, 0.5, 1.0])
    given = warp_moments(skew_parameter(wanted, 0.9), np.full(4, 0.9))[2]
    np.testing.assert_allclose(given, wanted, atol=0.02)
    few = np.random.default_rng(0).gamma(4, size=(30, 200))
    drawn = drawn_skewness((few - few.mean(0)) / few.std(0))
    assert drawn.std() < 0.5


def test_voxels_that_never_vary_do_no_harm() -> None:
    pairs, mean = make_pairs()
    pairs.responses[:, 3] = 1.5
    mean[:, 3] = 1.5
    noise = fit_response_noise(pairs, mean, NoiseConfig())
    trials = noise.sample(mean[:5], 10, seed=0)
    assert np.isfinite(trials).all()
    np.testing.assert_allclose(trials[..., 3], 1.5, atol=1e-3)


def test_means_that_do_not_fit_are_refused() -> None:
    pairs, mean = make_pairs(20)
    with pytest.raises(SynBrainError, match="one cross-fitted mean per training image"):
        fit_response_noise(pairs, mean[:-1], NoiseConfig())
