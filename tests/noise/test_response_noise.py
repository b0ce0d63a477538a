"""Trials and predictive draws: moments, density, seeds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import integrate, stats

from synbrain.errors import SynBrainError
from synbrain.features.tokens import TokenSet
from synbrain.noise.image_distance import ImageDistance
from synbrain.noise.margins import unwarp, warp, warp_moments
from synbrain.noise.parts import MeanError, NoiseRecord, TrialNoise
from synbrain.noise.predictive import Predictive
from synbrain.noise.response_noise import ResponseNoise

V = 6
ONES = np.ones(V, dtype=np.float32)
PLAIN = {"skew": 0 * ONES, "tail": ONES}


def loadings(seed: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    made = np.random.default_rng(seed).normal(0, 0.4, (V, k)).astype(np.float32)
    return made, 1 - np.sum(made**2, axis=1)


def make(trial: dict[str, Any] | None = None, **change: Any) -> ResponseNoise:
    shape = {"skew": np.linspace(-0.3, 0.6, V).astype(np.float32), "tail": 0.85 * ONES}
    line = {"base": 0.5 * ONES, "slope": 0.8 * ONES, "floor": 0.2 * ONES}
    axes = np.eye(2, dtype=np.float32)
    distance = ImageDistance(
        ("s",), 0 * axes[0], axes[0] + axes[1], axes, 0.5 * (axes[0] + axes[1]), unit=2.0
    )
    parts: dict[str, Any] = {
        "trial": TrialNoise(*loadings(0, 2), **(line | shape | (trial or {}))),
        "error": MeanError(np.linspace(0.3, 1, V).astype(np.float32), *loadings(1, 1), 0.5, distance),
        **shape,
        "signal_variance": ONES,
        "noise_variance": 2 * ONES,
        "record": NoiseRecord(source="repeats", n_images=3, n_trials=9),
    }
    return ResponseNoise(**(parts | change))


MEAN = np.stack([np.full(V, 3.0), np.linspace(-2, 4, V)]).astype(np.float32)
# v = (1 - .5) |f|^2 / 2 = 1 and 4; the variance of the mean's error then is 1 and 1 + .5 * 3 times that of sd
TOKENS = TokenSet("e", "d", {"s": np.array([[[2.0, 0]], [[0, 4.0]]], np.float32)}, np.arange(2))


def test_trials_have_the_mean_and_variance_that_they_claim() -> None:
    noise, n = make(), 40_000
    trials = noise.sample(MEAN, n, seed=1)
    variance = noise.trial.variance(MEAN)
    np.testing.assert_allclose(trials.mean(0), MEAN, atol=5 * np.sqrt(variance.max() / n))
    np.testing.assert_allclose(trials.var(0), variance, rtol=0.06)
    assert variance[1, 0] == pytest.approx(0.2)  # the floor: 0.5 - 0.8 * 2 is negative
    assert variance[0, 0] == pytest.approx(0.5 + 0.8 * 3)
    skewness = stats.skew(trials[:, 0])
    np.testing.assert_allclose(skewness, warp_moments(noise.trial.skew, noise.trial.tail)[2], atol=0.12)


def test_predictive_draws_hold_both_parts_and_grow_with_the_distance() -> None:
    noise = make()
    np.testing.assert_allclose(noise.error.growth(TOKENS), [1, 2.5])
    predictive = noise.predictive(MEAN, TOKENS)
    draws = predictive.sample(40_000, seed=1)
    wanted = noise.trial.variance(MEAN) + np.array([[1], [2.5]]) * noise.error.sd**2
    np.testing.assert_allclose(predictive.sd**2, wanted, rtol=1e-5)
    np.testing.assert_allclose(draws.mean(0), MEAN, atol=0.05)
    np.testing.assert_allclose(draws.var(0), wanted, rtol=0.06)
    low, high = predictive.interval(0.8)
    inside = ((draws > low) & (draws < high)).mean(axis=0)
    np.testing.assert_allclose(inside, 0.8, atol=0.01)
    with pytest.raises(SynBrainError, match="between 0 and 1"):
        predictive.interval(90)


def test_the_covariance_of_predictive_draws_is_the_sum_of_both() -> None:
    noise = make(PLAIN, **PLAIN)
    draws = noise.predictive(MEAN, TOKENS).sample(40_000, seed=2)
    for image, growth in enumerate((1, 2.5)):
        sd = np.sqrt(noise.trial.variance(MEAN[image]))
        of_trial = noise.trial.correlation() * np.outer(sd, sd)
        error = noise.error
        of_error = error.loadings @ error.loadings.T + np.diag(error.unique)
        wanted = of_trial + growth * of_error * np.outer(error.sd, error.sd)
        np.testing.assert_allclose(np.cov(draws[:, image].T), wanted, atol=0.12)
    trials = noise.sample(MEAN, 40_000, seed=2)
    np.testing.assert_allclose(np.corrcoef(trials[:, 0].T), noise.trial.correlation(), atol=0.03)


def test_log_density_is_that_of_scipy_without_warp() -> None:
    noise = make(PLAIN, **PLAIN)
    predictive = noise.predictive(MEAN, TOKENS)
    for responses in noise.sample(MEAN, 3, seed=0):
        for image, density in enumerate(predictive.log_prob(responses)):
            sd, error_sd = np.sqrt(noise.trial.variance(MEAN[image])), noise.error.sd
            covariance = noise.trial.correlation() * np.outer(sd, sd)
            of_error = noise.error.loadings @ noise.error.loadings.T + np.diag(noise.error.unique)
            covariance = covariance + (1, 2.5)[image] * of_error * np.outer(error_sd, error_sd)
            expected = stats.multivariate_normal(MEAN[image], covariance).logpdf(responses[image])
            assert density == pytest.approx(expected, rel=1e-4, abs=1e-3)


def test_warped_density_integrates_to_one() -> None:
    one, none = np.ones(1, dtype=np.float32), np.zeros((1, 0), np.float32)
    trial = TrialNoise(none, one, 0.6 * one, 0 * one, 0.1 * one, 0 * one, one)
    error = MeanError(np.sqrt(0.4, dtype=np.float32) * one, none, one)
    predictive = Predictive(trial, error, 0.5 * one, 0.8 * one, 0 * one[None], np.ones(1))

    def density(y: float) -> float:
        return float(np.exp(predictive.log_prob(np.array([[y]], dtype=np.float32))[0]))

    total, _ = integrate.quad(density, -30, 30, limit=200)
    spread, _ = integrate.quad(lambda y: y**2 * density(y), -30, 30, limit=200)
    assert total == pytest.approx(1, abs=1e-3)
    assert spread == pytest.approx(1, abs=5e-3)


def test_warp_and_unwarp_are_inverse() -> None:
    z = np.random.default_rng(0).normal(size=(50, V))
    skew, tail = np.linspace(-1, 1, V), np.linspace(0.7, 1.2, V)
    back, log_slope = unwarp(warp(z, skew, tail), skew, tail)
    np.testing.assert_allclose(back, z, rtol=1e-6, atol=1e-6)
    step = 1e-5
    r = warp(z, skew, tail)
    slope = (unwarp(r + step, skew, tail)[0] - unwarp(r - step, skew, tail)[0]) / (2 * step)
    np.testing.assert_allclose(np.log(slope), log_slope, atol=1e-4)
    np.testing.assert_array_equal(warp(z, np.zeros(V), np.ones(V)), z)


def test_an_image_draws_the_same_in_any_batch_and_number() -> None:
    noise = make()
    both = noise.predictive(MEAN, TOKENS)
    second = noise.predictive(MEAN[1:], TOKENS.take(np.array([1])))

    def draws(kind: str, images: slice, n: int, seed: int) -> np.ndarray:
        first = images.start or 0
        if kind == "trials":
            return noise.sample(MEAN[images], n, seed, first)
        return (second if first else both).sample(n, seed, first)

    for kind in ("trials", "predictive"):
        whole = draws(kind, slice(None), 5, 9)
        np.testing.assert_array_equal(draws(kind, slice(1, None), 5, 9)[:, 0], whole[:, 1])
        np.testing.assert_array_equal(draws(kind, slice(None), 2, 9), whole[:2])
        assert not np.array_equal(draws(kind, slice(None), 5, 10), whole)


@pytest.mark.parametrize("far", [True, False])
def test_a_saved_noise_is_the_same(tmp_path: Path, far: bool) -> None:
    noise = make()
    if not far:
        noise = replace(noise, error=replace(noise.error, distance=None))
    noise.save(tmp_path)
    loaded = ResponseNoise.load(tmp_path)
    np.testing.assert_array_equal(loaded.sample(MEAN, 2, seed=3), noise.sample(MEAN, 2, seed=3))
    draws = [one.predictive(MEAN, TOKENS).sample(2, seed=3) for one in (loaded, noise)]
    np.testing.assert_array_equal(*draws)
    assert loaded.record == noise.record


def test_noise_ceiling_counts_repeats() -> None:
    np.testing.assert_allclose(make().noise_ceiling(1), 1 / 3, rtol=1e-6)
    np.testing.assert_allclose(make().noise_ceiling(4), 1 / 1.5, rtol=1e-6)
