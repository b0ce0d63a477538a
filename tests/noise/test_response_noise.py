"""Trial noise: moments, density, seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import integrate, stats

from synbrain.noise.response_noise import ResponseNoise, unwarp, warp, warp_moments

V = 6


def make(**change: Any) -> ResponseNoise:
    rng = np.random.default_rng(0)
    loadings = rng.normal(0, 0.4, (V, 2)).astype(np.float32)
    ones = np.ones(V, dtype=np.float32)
    parts: dict[str, Any] = {
        "loadings": loadings,
        "unique": 1 - np.sum(loadings**2, axis=1),
        "base": 0.5 * ones,
        "slope": 0.8 * ones,
        "floor": 0.2 * ones,
        "inflation": 1.1 * ones,
        "skew": np.linspace(-0.3, 0.6, V).astype(np.float32),
        "tail": 0.85 * ones,
        "signal_variance": ones,
        "noise_variance": 2 * ones,
        "about": {},
        "source": "repeats",
    }
    return ResponseNoise(**(parts | change))


MEAN = np.stack([np.full(V, 3.0), np.linspace(-2, 4, V)]).astype(np.float32)


def test_samples_have_the_mean_and_variance_that_they_claim() -> None:
    noise = make()
    n = 40_000
    trials = noise.sample(MEAN, n, seed=1)
    variance = noise.variance(MEAN)
    np.testing.assert_allclose(trials.mean(0), MEAN, atol=5 * np.sqrt(variance.max() / n))
    np.testing.assert_allclose(trials.var(0), variance, rtol=0.06)
    assert variance[1, 0] == pytest.approx(1.1 * 0.2)  # the floor: 0.5 - 0.8 * 2 is negative
    assert variance[0, 0] == pytest.approx(1.1 * (0.5 + 0.8 * 3))
    skewness = stats.skew(trials[:, 0])
    np.testing.assert_allclose(skewness, warp_moments(noise.skew, noise.tail)[2], atol=0.12)


def test_voxels_vary_together_as_the_factors_say() -> None:
    noise = make(skew=np.zeros(V, np.float32), tail=np.ones(V, np.float32))
    trials = noise.sample(MEAN, 40_000, seed=2)
    np.testing.assert_allclose(np.corrcoef(trials[:, 0].T), noise.correlation(), atol=0.03)


def test_log_density_is_that_of_scipy_without_warp() -> None:
    noise = make(skew=np.zeros(V, np.float32), tail=np.ones(V, np.float32))
    responses = noise.sample(MEAN, 3, seed=0).reshape(6, V)
    mean = np.tile(MEAN, (3, 1))
    for found, m, y in zip(noise.log_prob(mean, responses), mean, responses, strict=True):
        sd = np.sqrt(noise.variance(m))
        expected = stats.multivariate_normal(m, noise.correlation() * np.outer(sd, sd)).logpdf(y)
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-3)


def test_warped_density_integrates_to_one() -> None:
    one = np.ones(1, dtype=np.float32)
    noise = ResponseNoise(
        np.zeros((1, 0), np.float32), one, one, 0 * one, one, one, 0.5 * one, 0.8 * one, one, one, {}
    )

    def density(y: float) -> float:
        return float(np.exp(noise.log_prob(0 * one[None], np.array([[y]], dtype=np.float32))[0]))

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
    whole = noise.sample(MEAN, 5, seed=9)
    np.testing.assert_array_equal(noise.sample(MEAN[1:], 5, seed=9, first_image=1)[:, 0], whole[:, 1])
    np.testing.assert_array_equal(noise.sample(MEAN, 2, seed=9), whole[:2])
    assert not np.array_equal(noise.sample(MEAN, 5, seed=10), whole)


def test_a_saved_noise_is_the_same(tmp_path: Path) -> None:
    noise = make()
    noise.save(tmp_path)
    loaded = ResponseNoise.load(tmp_path)
    np.testing.assert_array_equal(loaded.sample(MEAN, 2, seed=3), noise.sample(MEAN, 2, seed=3))
    assert loaded.about == noise.about


def test_noise_ceiling_counts_repeats() -> None:
    np.testing.assert_allclose(make().noise_ceiling(1), 1 / 3, rtol=1e-6)
    np.testing.assert_allclose(make().noise_ceiling(4), 1 / 1.5, rtol=1e-6)
