"""Fitting both uncertainties: known parameters come back, calibration holds on other images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from synbrain.errors import SynBrainError
from synbrain.features.tokens import Pairs, TokenSet
from synbrain.metrics.distribution import covariance_r, noise_products, within_image_squares
from synbrain.noise.config import NoiseConfig
from synbrain.noise.factors import fit_factors, without
from synbrain.noise.fit import NoisePrior, fit_response_noise
from synbrain.noise.margins import drawn_skewness, skew_parameter, warp_moments
from synbrain.noise.prior import prior_of
from synbrain.noise.residuals import moment_factors
from synbrain.noise.response_noise import ResponseNoise

V, DIM = 20, 12


def make_pairs(
    n_images: int = 150,
    repeats: int = 6,
    *,
    counts: bool = False,
    misfit: float = 0.5,
    growing: bool = False,
    seed: int = 0,
) -> tuple[Pairs, np.ndarray]:
    """Trials with two shared factors, or counts under a gain, and means that miss the truth.

    Where errors are ``growing``, their variance is in proportion to the squared norm of an image's tokens,
    whose size varies from image to image.
    """
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
    size = rng.gamma(2, 0.5, n_images)  # mean 1
    stored = rng.normal(size=(n_images, 1, DIM)) * np.sqrt(size)[:, None, None]
    tokens = TokenSet("e", "d", {"s": stored.astype(np.float32)}, np.arange(n_images))
    pairs = Pairs(tokens, responses.astype(np.float32), np.arange(len(image)), image)
    scale = np.linalg.norm(stored[:, 0], axis=1) / np.sqrt(DIM) if growing else np.ones(n_images)
    mean = truth + misfit * scale[:, None] * rng.normal(size=truth.shape)
    return pairs, mean.astype(np.float32)


def inside(noise: ResponseNoise, pairs: Pairs, mean: np.ndarray, level: float) -> np.ndarray:
    """(n_images,) share of an image's trials in their predictive intervals."""
    low, high = noise.predictive(mean, pairs.tokens).interval(level)
    image, y = pairs.image_of_trial, pairs.trial_responses()
    hit = ((y >= low[image]) & (y <= high[image])).mean(axis=1)
    return np.bincount(image, hit) / np.bincount(image)


def ratio(noise: ResponseNoise, pairs: Pairs, mean: np.ndarray) -> float:
    squares, freedom = within_image_squares(pairs.trial_responses(), pairs.image_of_trial)
    return float(np.median(noise.trial.variance(mean).mean(axis=0) / (squares / freedom)))


@pytest.mark.parametrize(("counts", "misfit"), [(False, 0.0), (False, 0.5), (False, 2.0), (True, 0.5)])
def test_trials_and_intervals_are_both_right_on_other_images(counts: bool, misfit: float) -> None:
    pairs, mean = make_pairs(counts=counts, misfit=misfit)
    noise = fit_response_noise(pairs, mean, NoiseConfig())
    fresh, fresh_mean = make_pairs(counts=counts, misfit=misfit, seed=1)
    assert ratio(noise, fresh, fresh_mean) == pytest.approx(1, abs=0.06)
    assert inside(noise, fresh, fresh_mean, 0.9).mean() == pytest.approx(0.9, abs=0.015)
    assert inside(noise, fresh, fresh_mean, 0.5).mean() == pytest.approx(0.5, abs=0.02)
    assert noise.record.source == "repeats"
    if not counts:
        np.testing.assert_allclose(np.mean(noise.error.sd**2), misfit**2, rtol=0.1, atol=0.01)


@pytest.mark.parametrize("repeats", [1, 5])
def test_intervals_cover_at_every_distance_where_errors_grow_with_it(repeats: int) -> None:
    pairs, mean = make_pairs(600, repeats, misfit=2.0, growing=True)
    noise = fit_response_noise(pairs, mean, NoiseConfig())
    flat = fit_response_noise(pairs, mean, NoiseConfig(by_distance=False))
    fresh, fresh_mean = make_pairs(600, 5, misfit=2.0, growing=True, seed=1)
    assert noise.error.distance is not None
    fifth = np.argsort(np.argsort(noise.error.distance.of(fresh.tokens))) * 5 // 600
    by_fifth = {
        name: np.array([inside(one, fresh, fresh_mean, 0.9)[fifth == k].mean() for k in range(5)])
        for name, one in {"grown": noise, "flat": flat}.items()
    }
    np.testing.assert_allclose(by_fifth["grown"], 0.9, atol=0.035)
    assert by_fifth["flat"][0] > 0.94  # without the distance, near images get too wide intervals
    assert by_fifth["flat"][4] < 0.82
    if repeats > 1:
        assert noise.record.growth_with_distance == pytest.approx(1, abs=0.2)
        assert ratio(noise, fresh, fresh_mean) == pytest.approx(1, abs=0.06)


def test_errors_that_do_not_grow_get_no_growth() -> None:
    pairs, mean = make_pairs(600, misfit=2.0)
    assert fit_response_noise(pairs, mean, NoiseConfig()).record.growth_with_distance < 0.15


def test_the_covariance_of_trials_is_recovered_and_errors_keep_out_of_it() -> None:
    pairs, mean = make_pairs(misfit=0.0)
    pattern = np.random.default_rng(5).normal(0, 1, (V, 1))  # of the errors of the mean
    wrong = np.random.default_rng(6).normal(size=(len(mean), 1)) @ pattern.T
    noise = fit_response_noise(pairs, (mean + wrong).astype(np.float32), NoiseConfig())
    loadings = np.random.default_rng(99).normal(0, 0.6, (V, 2))
    assert noise.trial.loadings.shape[1] == 2
    sd = np.sqrt(noise.noise_variance)
    covariance = noise.trial.correlation() * np.outer(sd, sd)
    assert covariance_r(covariance, loadings @ loadings.T) > 0.95
    products, freedom = noise_products(pairs.trial_responses(), pairs.image_of_trial)
    assert covariance_r(covariance, products / freedom) > 0.9
    error = noise.error
    of_errors = (error.loadings @ error.loadings.T) * np.outer(error.sd, error.sd)
    assert covariance_r(of_errors, pattern @ pattern.T) > 0.95
    np.testing.assert_allclose(noise.signal_variance, 1, rtol=0.6)
    np.testing.assert_allclose(noise.noise_variance, 1 + np.sum(loadings**2, 1), rtol=0.25)


def test_without_repeats_the_sum_is_right_and_the_source_is_told() -> None:
    pairs, mean = make_pairs(n_images=400, repeats=1, misfit=1.0)
    noise = fit_response_noise(pairs, mean, NoiseConfig())
    assert noise.record.source == "residuals"
    residual = pairs.trial_responses() - mean
    total = noise.predictive(mean, pairs.tokens).sd ** 2
    np.testing.assert_allclose(total.mean(axis=0), (residual**2).mean(axis=0), rtol=0.05)


def test_base_subjects_part_what_single_trials_cannot() -> None:
    base = [fit_response_noise(*make_pairs(misfit=1.5, seed=s), NoiseConfig()) for s in (1, 2)]
    prior = prior_of(base)
    assert prior.trial_fraction == pytest.approx(1.72 / (1.72 + 1.5**2), abs=0.08)
    single, mean = make_pairs(400, 1, misfit=1.5, seed=3)
    noise = fit_response_noise(single, mean, NoiseConfig(), prior=prior)
    assert noise.record.source == "base subjects"
    repeated, repeated_mean = make_pairs(misfit=1.5, seed=4)
    assert ratio(noise, repeated, repeated_mean) == pytest.approx(1, abs=0.12)
    assert inside(noise, repeated, repeated_mean, 0.9).mean() == pytest.approx(0.9, abs=0.02)
    assert prior_of([noise]) == NoisePrior()  # what was parted by a prior is no evidence for the next


def test_variance_grows_with_the_mean_for_counts_only() -> None:
    for counts, expected in ((True, 1.0), (False, 0.0)):
        pairs, mean = make_pairs(400, counts=counts, misfit=0)
        noise = fit_response_noise(pairs, mean, NoiseConfig(shaped=False, by_distance=False))
        assert np.median(noise.trial.slope) == pytest.approx(expected, abs=0.35)
        assert ratio(noise, pairs, mean) == pytest.approx(1, abs=0.01)
        level = fit_response_noise(pairs, mean, NoiseConfig(mean_dependent=False))
        np.testing.assert_array_equal(level.trial.slope, 0)


def test_moments_of_residuals_within_images_are_brought_back_to_those_of_trials() -> None:
    rng = np.random.default_rng(0)
    for repeats in (3, 8):
        trials = rng.gamma(4, size=(200_000, repeats))  # skewness 1, excess kurtosis 1.5
        residual = trials - trials.mean(axis=1, keepdims=True)
        third, fourth = moment_factors(np.full(10, repeats))
        standard = residual / residual.std()
        assert np.mean(standard**3) / third == pytest.approx(1, rel=0.05)
        assert (np.mean(standard**4) - 3) / fourth == pytest.approx(1.5, rel=0.1)
    assert moment_factors(np.full(10, 2))[0] == pytest.approx(0)  # two repeats: always symmetric


def test_skewed_trials_are_as_skewed_where_repeats_differ() -> None:
    """Images of many repeats counted twice: once by their trials and once more by their repeats."""
    rng = np.random.default_rng(1)
    repeats = np.repeat([2, 5], [600, 240])
    image = np.repeat(np.arange(840), repeats)
    trials = (rng.gamma(2, size=(len(image), V)) - 2) / np.sqrt(2)  # skewness sqrt(2)
    tokens = TokenSet("e", "d", {"s": rng.normal(size=(840, 1, 4)).astype(np.float32)}, np.arange(840))
    pairs = Pairs(tokens, trials.astype(np.float32), np.arange(len(image)), image)
    noise = fit_response_noise(pairs, np.zeros((840, V), dtype=np.float32), NoiseConfig())
    drawn = noise.sample(np.zeros((1, V), dtype=np.float32), 20_000, 1)[:, 0]
    third = np.mean((drawn - drawn.mean(0)) ** 3, axis=0) / drawn.std(axis=0) ** 3
    assert third.mean() == pytest.approx(np.sqrt(2), abs=0.1)


@pytest.mark.parametrize("misfit", [0.0, 0.5])
def test_few_repeats_among_many_images_leave_the_sum_of_both_parts_as_it_is(misfit: float) -> None:
    """Eight pairs of trials tell a voxel's variance within a half: the sum of both was a fifth too large."""
    rng = np.random.default_rng(2)
    image = np.concatenate([np.arange(400), np.arange(8)])
    truth = rng.normal(size=(400, 40))
    responses = truth[image] + rng.normal(size=(len(image), 40))
    tokens = TokenSet("e", "d", {"s": rng.normal(size=(400, 1, 4)).astype(np.float32)}, np.arange(400))
    pairs = Pairs(tokens, responses.astype(np.float32), np.arange(len(image)), image)
    mean = (truth + misfit * rng.normal(size=truth.shape)).astype(np.float32)
    noise = fit_response_noise(pairs, mean, NoiseConfig())
    total = np.mean(noise.predictive(mean, tokens).sd ** 2)
    assert noise.record.source == "repeats"
    assert total == pytest.approx(1 + misfit**2, rel=0.06)


def test_voxels_keep_their_own_variance_where_all_images_were_repeated() -> None:
    """What lies around the mean holds most of the variance within: a share is known better."""
    rng = np.random.default_rng(3)
    own = np.repeat([0.4, 0.9], 200)  # of a variance of 1 around the mean, the rest is error of the mean
    image = np.repeat(np.arange(12), 4)
    truth = rng.normal(size=(12, 400))
    responses = truth[image] + np.sqrt(own) * rng.normal(size=(48, 400))
    tokens = TokenSet("e", "d", {"s": rng.normal(size=(12, 1, 4)).astype(np.float32)}, np.arange(12))
    pairs = Pairs(tokens, responses.astype(np.float32), np.arange(48), image)
    mean = (truth + np.sqrt(1 - own) * rng.normal(size=truth.shape)).astype(np.float32)
    fitted = fit_response_noise(pairs, mean, NoiseConfig(mean_dependent=False)).noise_variance
    assert fitted[:200].mean() == pytest.approx(0.4, abs=0.04)
    assert fitted[200:].mean() == pytest.approx(0.9, abs=0.04)


def test_voxels_without_signal_get_none_from_noise_that_was_drawn_together() -> None:
    rng = np.random.default_rng(4)
    image = np.concatenate([np.arange(400), np.arange(10)])
    responses = rng.normal(size=(len(image), 100))
    tokens = TokenSet("e", "d", {"s": rng.normal(size=(400, 1, 4)).astype(np.float32)}, np.arange(400))
    pairs = Pairs(tokens, responses.astype(np.float32), np.arange(len(image)), image)
    noise = fit_response_noise(pairs, np.zeros((400, 100), dtype=np.float32), NoiseConfig())
    assert noise.signal_variance.mean() < 0.12
    of_means = pairs.repeat_means().var(axis=0, ddof=1)
    left = np.maximum(of_means - noise.noise_variance * np.mean(1 / pairs.repeats()), 0)
    np.testing.assert_allclose(noise.signal_variance, left, atol=1e-4)


def test_means_that_saw_their_images_say_nothing_of_trials() -> None:
    """Half of the voxels were fitted closely, half loosely: of both, trials vary as their repeats do."""
    rng = np.random.default_rng(5)
    image = np.repeat(np.arange(20), 2)
    responses = rng.normal(size=(20, 100))[image] + rng.normal(size=(40, 100))
    tokens = TokenSet("e", "d", {"s": rng.normal(size=(20, 1, 4)).astype(np.float32)}, np.arange(20))
    pairs = Pairs(tokens, responses.astype(np.float32), np.arange(40), image)
    mean = (pairs.repeat_means() * np.repeat([0.95, 0.3], 50)).astype(np.float32)
    fitted = fit_response_noise(pairs, mean, NoiseConfig(mean_dependent=False), cross_fitted=False)
    of_repeats = 2 * (responses - pairs.repeat_means()[image]).var(axis=0)
    np.testing.assert_allclose(fitted.noise_variance, of_repeats, rtol=1e-3)


def test_independent_noise_gets_no_factor() -> None:
    z = np.random.default_rng(0).normal(size=(600, V))
    loadings, unique, scores = fit_factors(z, np.repeat(np.arange(150), 4), (0, 1, 2, 4), seed=0)
    assert loadings.shape == (V, 0)
    np.testing.assert_array_equal(unique, 1)
    assert max(scores, key=lambda k: scores[k]) == "0"


def test_principal_axes_of_many_voxels_agree_with_maximum_likelihood(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    true = rng.normal(0, 0.5, (60, 2))
    z = rng.normal(size=(3000, 2)) @ true.T + rng.normal(size=(3000, 60))
    image = np.arange(3000)
    fitted = []
    for most in (2000, 10):
        monkeypatch.setattr("synbrain.noise.factors.MANY_VOXELS", most)
        loadings, _, _ = fit_factors(z, image, (0, 2), seed=0)
        fitted.append(loadings @ loadings.T)
    np.testing.assert_allclose(fitted[0], fitted[1], atol=0.03)


def test_taking_a_known_part_out_of_a_sum_leaves_the_other() -> None:
    rng = np.random.default_rng(0)
    wanted, other = (rng.normal(0, 0.4, (V, 2)) for _ in range(2))
    share = rng.uniform(0.3, 0.7, V)
    both = np.concatenate([np.sqrt(share)[:, None] * wanted, np.sqrt(1 - share)[:, None] * other], axis=1)
    left, unique = without(both, share, other, 1 - share)
    np.testing.assert_allclose(left @ left.T, wanted @ wanted.T, atol=1e-8)
    np.testing.assert_allclose(unique, 1 - np.sum(wanted**2, axis=1), atol=1e-8)


def test_skewness_is_matched_and_drawn_together() -> None:
    wanted = np.array([-0.8, 0.0, 0.5, 1.0])
    given = warp_moments(skew_parameter(wanted, 0.9), np.full(4, 0.9))[2]
    np.testing.assert_allclose(given, wanted, atol=0.02)
    few = np.random.default_rng(0).normal(0.6, np.sqrt(6 / 30), 200)  # no voxel differs from the others
    assert drawn_skewness(few, 30).std() < 0.2


@pytest.mark.parametrize("repeats", [1, 6])
def test_voxels_that_never_vary_do_no_harm(repeats: int) -> None:
    pairs, mean = make_pairs(repeats=repeats)
    pairs.responses[:, 3] = 1.5
    mean[:, 3] = 1.5
    noise = fit_response_noise(pairs, mean, NoiseConfig())
    for draws in (noise.sample(mean[:5], 10, 0), noise.predictive(mean, pairs.tokens).sample(3, 0)):
        assert np.isfinite(draws).all()
        np.testing.assert_allclose(draws[..., 3], 1.5, atol=1e-3)


@pytest.mark.parametrize("n_images", [4, 10])
def test_few_images_are_enough(n_images: int) -> None:
    pairs, mean = make_pairs(n_images, 3)
    noise = fit_response_noise(pairs, mean, NoiseConfig())
    assert np.isfinite(noise.predictive(mean, pairs.tokens).interval(0.9)).all()


@pytest.mark.parametrize(("n_images", "off"), [(6, 0.1), (10, 0.05), (20, 0.05)])
def test_errors_of_the_mean_keep_their_size_with_few_images(n_images: int, off: float) -> None:
    """Voxels with small errors by chance have small standard errors too, and may not weigh more for it."""
    sizes, covered = [], []
    for seed in range(8):
        pairs, mean = make_pairs(n_images, 4, misfit=2.0, seed=seed)
        noise = fit_response_noise(pairs, mean, NoiseConfig())
        fresh, fresh_mean = make_pairs(100, 4, misfit=2.0, seed=seed + 100)
        sizes.append(float(np.mean(noise.error.sd**2)) / 2.0**2)
        covered.append(inside(noise, fresh, fresh_mean, 0.9).mean())
    assert np.mean(sizes) == pytest.approx(1, abs=off)
    assert np.mean(covered) == pytest.approx(0.9, abs=0.035)


def test_means_that_do_not_fit_are_refused() -> None:
    pairs, mean = make_pairs(20)
    with pytest.raises(SynBrainError, match="one cross-fitted mean per training image"):
        fit_response_noise(pairs, mean[:-1], NoiseConfig())
    mean[0, 0] = np.nan
    with pytest.raises(SynBrainError, match="not finite"):
        fit_response_noise(pairs, mean, NoiseConfig())


def with_a_still_voxel(pairs: Pairs, mean: np.ndarray, value: float, off: float) -> tuple[Pairs, np.ndarray]:
    """One more voxel, the third, that is ``value`` in every trial and predicted up to ``off``."""
    responses = np.insert(np.asarray(pairs.responses), 2, value, axis=1)
    noisy = value + off * np.random.default_rng(3).normal(size=len(mean))
    return replace(pairs, responses=responses), np.insert(mean, 2, noisy, axis=1)


@pytest.mark.parametrize("repeats", [1, 5])
@pytest.mark.parametrize(("value", "off"), [(0.0, 0.0), (3.0, 0.0), (3.0, 1e-7), (300.0, 1e-4)])
def test_a_voxel_that_never_varies_changes_nothing_for_the_others(
    value: float, off: float, repeats: int
) -> None:
    """Its errors, over a variance of zero, hid that those of the others grow with distance."""
    pairs, mean = make_pairs(300, repeats, misfit=2.0, growing=True)
    alone = fit_response_noise(pairs, mean, NoiseConfig())
    beside = fit_response_noise(*with_a_still_voxel(pairs, mean, value, off), NoiseConfig())
    assert alone.record.growth_with_distance > 0.5
    assert beside.record == alone.record
    others = np.arange(V + 1) != 2
    for part in ("base", "slope", "floor", "loadings", "unique"):
        np.testing.assert_array_equal(getattr(beside.trial, part)[others], getattr(alone.trial, part))
    np.testing.assert_array_equal(beside.error.sd[others], alone.error.sd)
    means = np.insert(mean, 2, value, axis=1)
    trials = beside.sample(means, 5, seed=0)
    assert np.isfinite(trials).all()
    assert trials[:, :, 2].std() < max(1e-4, 2e-6 * value)  # what float32 leaves of the constant
    assert np.isfinite(beside.predictive(means, pairs.tokens).interval(0.9)).all()


@pytest.mark.parametrize("value", [0.0, 1000.3, -7e5])
def test_a_constant_whose_prediction_is_rounded_is_no_surprise(value: float) -> None:
    """A path adds up many products: its constant is off by a few units in the last place of float32."""
    pairs, mean = make_pairs(150, 4)
    alone = fit_response_noise(pairs, mean, NoiseConfig())
    responses = np.insert(np.asarray(pairs.responses), 2, value, axis=1)
    means = np.insert(mean, 2, value, axis=1)
    noise = fit_response_noise(replace(pairs, responses=responses), means, NoiseConfig())
    shown = pairs.image_of_trial[:20]
    rounded = means[shown].copy()
    rounded[:, 2] *= np.float32(1 + 3e-7)
    tokens = pairs.tokens.take(shown)
    predictive = noise.predictive(rounded, tokens)
    y = responses[pairs.trials[:20]]
    low, high = predictive.interval(0.9)
    assert ((low <= y) & (y <= high))[:, 2].all()
    others = alone.predictive(mean[shown], tokens).log_prob(np.delete(y, 2, axis=1))
    assert np.abs(predictive.log_prob(y) - others).max() < 20  # a density of one number, however narrow


@pytest.mark.parametrize("power", [-40, -23, 30])
def test_noise_is_the_same_in_any_unit(power: int) -> None:
    """Volts, teslas: variances of 1e-12 and less are no rounding there."""
    pairs, mean = make_pairs(150, 4, misfit=1.0)
    scale = np.float32(2.0**power)
    scaled = replace(pairs, responses=np.asarray(pairs.responses) * scale)
    one = fit_response_noise(pairs, mean, NoiseConfig())
    other = fit_response_noise(scaled, mean * scale, NoiseConfig())
    np.testing.assert_allclose(
        other.trial.variance(mean * scale), one.trial.variance(mean) * scale**2, rtol=1e-4
    )
    np.testing.assert_allclose(other.error.sd, one.error.sd * scale, rtol=1e-3)
    np.testing.assert_allclose(other.noise_ceiling(), one.noise_ceiling(), rtol=1e-4)
    draws = one.sample(mean, 3, seed=1) * scale
    np.testing.assert_allclose(other.sample(mean * scale, 3, seed=1), draws, rtol=1e-3, atol=1e-3 * scale)


@pytest.mark.parametrize("power", [-50, -30, -24, 40])
def test_a_voxel_in_another_unit_changes_nothing_for_the_others(power: int) -> None:
    """At the edge of a mask responses are a billionth of those inside: such a voxel hid the growth, too."""
    pairs, mean = make_pairs(300, 5, misfit=2.0, growing=True)
    scale = np.where(np.arange(V) == 2, 2.0**power, 1).astype(np.float32)
    one = fit_response_noise(pairs, mean, NoiseConfig())
    scaled = replace(pairs, responses=np.asarray(pairs.responses) * scale)
    other = fit_response_noise(scaled, mean * scale, NoiseConfig())
    assert other.record == one.record
    np.testing.assert_array_equal(other.trial.variance(mean * scale), one.trial.variance(mean) * scale**2)
    np.testing.assert_array_equal(other.error.sd, one.error.sd * scale)


def test_voxels_that_all_never_vary_have_noise_all_the_same() -> None:
    pairs, mean = make_pairs(30, 2)
    still = replace(pairs, responses=np.full_like(np.asarray(pairs.responses), 2))
    noise = fit_response_noise(still, np.full_like(mean, 2), NoiseConfig())
    assert np.isfinite(noise.sample(mean, 2, seed=0)).all()
