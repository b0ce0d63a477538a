from __future__ import annotations

import numpy as np
import pytest

from synbrain.baselines.controls import MeanMap
from synbrain.baselines.gaussian import Isotropic, LowRankGaussian, RidgeGaussian, fit_low_rank


def residuals(
    n: int = 2000, n_voxels: int = 12, rank: int = 2, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Draws and their covariance."""
    rng = np.random.default_rng(seed)
    loadings = rng.normal(size=(n_voxels, rank))
    truth = loadings @ loadings.T + np.diag(rng.uniform(0.5, 1.5, n_voxels))
    return rng.multivariate_normal(np.zeros(n_voxels), truth, size=n).astype(np.float32), truth


def covariance(fitted: LowRankGaussian) -> np.ndarray:
    inner = fitted.loadings @ fitted.loadings.T + np.diag(fitted.unique)
    return fitted.sd[:, None] * inner * fitted.sd


def fit(data: np.ndarray) -> LowRankGaussian:
    return fit_low_rank(data, np.arange(len(data)))


def test_the_covariance_of_residuals_is_told_by_a_few_factors() -> None:
    data, truth = residuals()
    fitted = fit(data)
    assert fitted.loadings.shape[1] >= 2
    np.testing.assert_allclose(
        np.diag(covariance(fitted)), np.mean(data.astype(float) ** 2, axis=0), rtol=1e-6
    )
    independent = np.diag(np.diag(truth))
    assert np.linalg.norm(covariance(fitted) - truth) < 0.2 * np.linalg.norm(independent - truth)


def test_independent_residuals_choose_rank_zero() -> None:
    data = np.random.default_rng(1).normal(size=(400, 20)).astype(np.float32)
    assert fit(data).loadings.shape[1] == 0


def test_draws_have_the_covariance() -> None:
    data, _ = residuals()
    fitted = fit(data)
    drawn = fitted.draw((40, 500), seed=0).reshape(-1, 12)
    np.testing.assert_allclose(np.cov(drawn.T), covariance(fitted), atol=0.15)


def test_ridge_gaussian_adds_trial_noise_and_its_own_error(make_pairs) -> None:
    train, test, _ = make_pairs(n_images=150, noise=0.5)
    model = RidgeGaussian().fit(train)
    samples = model.sample(test.tokens, 400)
    np.testing.assert_allclose(samples.mean(axis=0), model.predict(test.tokens), atol=0.3)
    loadings = np.random.default_rng(98).normal(size=(10, 1))
    noise = 0.25 * (loadings @ loadings.T + np.eye(10))  # the fixture's
    found = np.cov((samples - samples.mean(axis=0)).reshape(-1, 10).T)
    assert np.all(np.diag(found) > 0.85 * np.diag(noise))
    assert np.all(np.diag(found) < 2 * np.diag(noise))
    upper = np.triu_indices(10, 1)
    assert np.corrcoef(found[upper], noise[upper])[0, 1] > 0.9


def test_isotropic_noise_is_sized_on_held_out_training_images(make_pairs) -> None:
    train, test, _ = make_pairs(n_images=100)
    sizes = []
    for scale in (1.0, 3.0):
        train.responses[:] = scale * np.random.default_rng(0).normal(size=train.responses.shape)
        model = Isotropic(MeanMap()).fit(train)
        sizes.append(model.chosen)
        assert model.sample(test.tokens, 200).std(axis=0).mean() == pytest.approx(model.chosen, rel=0.05)
    assert sizes[0] == pytest.approx(1, rel=0.35)
    assert sizes[1] == pytest.approx(3 * sizes[0], rel=0.01)
    assert Isotropic(MeanMap(), size=0.5).fit(train).chosen == 0.5
