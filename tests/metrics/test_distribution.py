from __future__ import annotations

import numpy as np
import pytest
import scoringrules
from hypothesis import given, settings
from hypothesis import strategies as st

from synbrain.metrics import distribution as d


@pytest.fixture
def drawn() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(n_samples, n_images, n_voxels) samples, trials and their images, with ragged repeats."""
    rng = np.random.default_rng(0)
    image = np.array([0, 2, 1, 1, 2, 2])
    return rng.normal(1, 2, (7, 3, 5)), rng.normal(1, 2, (6, 5)), image


def test_intervals_end_at_weibulls_quantiles(drawn: tuple[np.ndarray, ...]) -> None:
    samples, trials, image = drawn
    for level in (0.25, 0.5, 0.9):
        if len(samples) < d.min_samples(level):
            samples = np.random.default_rng(0).normal(size=(40, *samples.shape[1:]))
        ends = np.quantile(samples, [(1 - level) / 2, (1 + level) / 2], axis=0, method="weibull")
        expected = (trials >= ends[0][image]) & (trials <= ends[1][image])
        np.testing.assert_array_equal(d.covered(samples, trials, image, level), expected)


def test_crps_and_energy_against_scoringrules(drawn: tuple[np.ndarray, ...]) -> None:
    samples, trials, image = drawn
    per_trial = np.moveaxis(samples[:, image], 0, -1)
    expected = scoringrules.crps_ensemble(trials, per_trial, estimator="fair")
    np.testing.assert_allclose(d.crps(samples, trials, image), expected, rtol=1e-9)
    ensembles = np.moveaxis(samples[:, image], 0, 1)
    expected = scoringrules.es_ensemble(trials, ensembles, estimator="fair")
    np.testing.assert_allclose(d.energy_score(samples, trials, image), expected, rtol=1e-9)


def test_energy_score_of_one_voxel_is_crps(drawn: tuple[np.ndarray, ...]) -> None:
    samples, trials, image = drawn
    one = d.energy_score(samples[..., :1], trials[:, :1], image)
    np.testing.assert_allclose(one, d.crps(samples[..., :1], trials[:, :1], image)[:, 0], rtol=1e-9)


@pytest.mark.parametrize("n_samples", [1, 4])
def test_point_mass_scores_its_absolute_error(drawn: tuple[np.ndarray, ...], n_samples: int) -> None:
    samples, trials, image = drawn
    point = np.broadcast_to(samples[:1], (n_samples, 3, 5))
    error = trials - samples[0][image]
    np.testing.assert_allclose(d.crps(point, trials, image), np.abs(error), atol=1e-12)
    np.testing.assert_allclose(d.energy_score(point, trials, image), np.linalg.norm(error, axis=1))


def test_more_samples_tighten_crps_around_its_exact_value() -> None:
    rng = np.random.default_rng(1)
    trials = rng.normal(size=(1, 4))
    exact = scoringrules.crps_normal(trials[0], 0.0, 1.0)
    image = np.zeros(1, dtype=int)

    def spread(n: int) -> float:
        values = [d.crps(rng.normal(size=(n, 1, 4)), trials, image)[0] for _ in range(300)]
        np.testing.assert_allclose(np.mean(values, axis=0), exact, atol=5 * np.std(values) / np.sqrt(300))
        return float(np.mean((np.asarray(values) - exact) ** 2))

    assert spread(4) > 2 * spread(16) > 4 * spread(64)


def test_floor_of_both_scores_is_reached_by_the_true_distribution_alone() -> None:
    rng = np.random.default_rng(2)
    image = np.repeat(np.arange(200), 4)
    means = rng.normal(size=(200, 6))
    trials = means[image] + rng.normal(size=(800, 6))
    floor_crps, floor_energy = d.expected_scores(trials, image)
    assert floor_crps.mean() == pytest.approx(1 / np.sqrt(np.pi), abs=0.02)  # E|X - X'| / 2, unit normal
    true = means + rng.normal(size=(40, 200, 6))
    assert d.crps(true, trials, image).mean() == pytest.approx(floor_crps.mean(), rel=0.03)
    assert d.energy_score(true, trials, image).mean() == pytest.approx(floor_energy.mean(), rel=0.03)
    for other in (means + 2 * (true - means), means + 0.3 * (true - means), true + 1):
        assert d.crps(other, trials, image).mean() > 1.03 * floor_crps.mean()
        assert d.energy_score(other, trials, image).mean() > 1.03 * floor_energy.mean()


def test_expected_scores_by_hand_and_without_repeats() -> None:
    trials = np.array([[0.0, 0.0], [3.0, 4.0], [9.0, 9.0]])
    crps, energy = d.expected_scores(trials, np.array([5, 5, 8]))
    np.testing.assert_allclose(crps, [[1.5, 2.0]])
    np.testing.assert_allclose(energy, [2.5])
    crps, energy = d.expected_scores(trials, np.arange(3))
    assert crps.shape == (0, 2)
    assert len(energy) == 0


@pytest.mark.parametrize(("level", "fewest"), [(0.5, 3), (0.9, 19)])
def test_coverage_is_right_for_few_and_many_samples(level: float, fewest: int) -> None:
    rng = np.random.default_rng(3)
    assert d.min_samples(level) == fewest
    image = np.arange(400)
    for n in (fewest, 20, 57):
        samples, trials = rng.normal(size=(n, 400, 20)), rng.normal(size=(400, 20))
        assert d.covered(samples, trials, image, level).mean() == pytest.approx(level, abs=0.02)
    narrow = d.covered(0.5 * samples, trials, image, level).mean()
    assert narrow < level - 0.1
    with pytest.raises(ValueError, match="samples"):
        d.covered(samples[: fewest - 1], trials, image, level)


def test_point_mass_covers_nothing() -> None:
    samples = np.zeros((20, 3, 2))
    trials = np.ones((3, 2))
    assert not d.covered(samples, trials, np.arange(3), 0.9).any()


def test_variance_ratio_counts_dead_voxels_as_undefined() -> None:
    ratio = d.variance_ratio(np.array([1.0, 2.0, 3.0]), np.array([2.0, 2.0, 0.0]))
    np.testing.assert_allclose(ratio, [0.5, 1.0, np.nan])


def test_within_image_squares_against_pandas_free_sum() -> None:
    rng = np.random.default_rng(4)
    image, trials = np.array([3, 3, 1, 1, 1, 7]), rng.normal(size=(6, 2))
    squares, freedom = d.within_image_squares(trials, image)
    expected = sum(trials[image == i].var(axis=0) * np.sum(image == i) for i in (1, 3, 7))
    np.testing.assert_allclose(squares, expected)
    assert freedom == 3
    products, freedom = d.noise_products(trials, image)
    np.testing.assert_allclose(np.diag(products), squares)
    assert freedom == 3


def test_noise_covariance_is_found_through_image_means() -> None:
    rng = np.random.default_rng(5)
    loadings = rng.normal(size=(8, 2))
    truth = loadings @ loadings.T + np.eye(8)
    image = np.repeat(np.arange(300), 3)
    noise = rng.multivariate_normal(np.zeros(8), truth, size=900)
    trials = rng.normal(0, 5, (300, 8))[image] + noise
    products, freedom = d.noise_products(trials, image)
    assert d.covariance_r(products / freedom, truth) > 0.97
    half = d.covariance_split_half(trials, image)
    assert half is not None
    assert half > 0.9
    assert d.covariance_r(np.eye(8), truth) is None
    assert d.covariance_split_half(trials[::3], image[::3]) is None


@settings(max_examples=10)
@given(st.integers(0, 1000))
def test_permuting_voxels_permutes_voxel_scores(seed: int) -> None:
    rng = np.random.default_rng(seed)
    samples, trials, image = rng.normal(size=(20, 4, 6)), rng.normal(size=(9, 6)), rng.integers(0, 4, 9)
    order = rng.permutation(6)
    np.testing.assert_allclose(
        d.crps(samples[..., order], trials[:, order], image), d.crps(samples, trials, image)[:, order]
    )
    np.testing.assert_allclose(
        d.energy_score(samples[..., order], trials[:, order], image), d.energy_score(samples, trials, image)
    )
    inside = d.covered(samples, trials, image, 0.9)
    np.testing.assert_array_equal(
        d.covered(samples[..., order], trials[:, order], image, 0.9), inside[:, order]
    )


def test_a_view_of_one_sample_scores_as_its_copies() -> None:
    """A baseline without noise gives such a view: nothing is sorted or compared forty times."""
    rng = np.random.default_rng(0)
    one, trials = rng.normal(size=(3, 5)).astype(np.float32), rng.normal(size=(6, 5)).astype(np.float32)
    trials[0, 0] = one[0, 0]
    image = np.repeat(np.arange(3), 2)
    view = np.broadcast_to(one, (40, *one.shape))
    assert np.allclose(d.crps(view, trials, image), d.crps(view.copy(), trials, image), atol=1e-6)
    assert np.allclose(d.energy_score(view, trials, image), d.energy_score(view.copy(), trials, image))
    assert np.array_equal(d.covered(view, trials, image, 0.9), d.covered(view.copy(), trials, image, 0.9))
    assert d.covered(view, trials, image, 0.9)[0, 0]
