"""Patterns as responses of their own: found without noise, judged without their own images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from synbrain.features.tokens import Pairs, TokenSet
from synbrain.linear import patterns as patterns_module
from synbrain.linear import voxels as voxels_module
from synbrain.linear.config import LinearPathConfig
from synbrain.linear.fit import fit_linear_path
from synbrain.linear.meter import Meter
from synbrain.linear.patterns import explained_patterns, falling_gains
from synbrain.metrics.voxel import voxel_r

PLAIN = LinearPathConfig(windows=0, blur=0, n_folds=5)


def low_rank(n_images: int, n_voxels: int, *, rank: int = 3, noise: float = 6.0, seed: int = 0):
    """Many noisy voxels that mix a few features of the tokens; three repeats with shared noise."""
    rng = np.random.default_rng([seed, n_images])
    brain = np.random.default_rng(seed)
    tokens = rng.normal(size=(n_images, 4, 10)).astype(np.float16)
    features = tokens.reshape(n_images, -1).astype(float) @ brain.normal(size=(40, rank)) / np.sqrt(40)
    truth = features @ brain.normal(size=(rank, n_voxels))
    shared = brain.normal(size=(1, n_voxels))
    image_of_trial = np.repeat(np.arange(n_images), 3)
    n = len(image_of_trial)
    errors = noise * (rng.normal(size=(n, n_voxels)) + rng.normal(size=(n, 1)) * shared)
    held = TokenSet("e", "d", {"grid": tokens}, np.arange(n_images))
    responses = (truth[image_of_trial] + errors).astype(np.float32)
    return Pairs(held, responses, np.arange(n), image_of_trial), truth


def patterns_of(predictions: np.ndarray, y: np.ndarray, weights: np.ndarray, rank: int) -> np.ndarray:
    laid = (torch.from_numpy(a.T.astype(np.float32).copy()) for a in (predictions, y))
    share = torch.from_numpy((weights / weights.sum()).astype(np.float32))
    return explained_patterns(*laid, share, rank, Meter()).numpy()


def test_components_pay_where_voxels_mix_a_few_features() -> None:
    pairs, _ = low_rank(150, 80)
    fresh, truth = low_rank(300, 80)
    with_them = fit_linear_path(pairs, PLAIN)
    without = fit_linear_path(pairs, PLAIN.model_copy(update={"components": 0}))
    apart = fit_linear_path(pairs, PLAIN.model_copy(update={"share": False}))
    reached = [np.mean(voxel_r(f.path.predict(fresh.tokens), truth)) for f in (with_them, without, apart)]
    assert reached[0] > reached[1] > reached[2] + 0.05
    assert with_them.path.about["weight_of_components"] > 0.4


def test_what_is_expected_is_what_new_images_give() -> None:
    """The cross-validated score is no better than that of images which no fit has seen."""
    pairs, _ = low_rank(120, 60, noise=3.0, seed=2)
    fresh, _ = low_rank(800, 60, noise=3.0, seed=2)
    fit = fit_linear_path(pairs, PLAIN)
    new = np.mean(voxel_r(fit.path.predict(fresh.tokens), fresh.repeat_means()))
    assert fit.path.about["cross_validated_r"] < new + 0.03


@pytest.mark.parametrize("few", [False, True])
def test_components_of_noise_are_dropped(few: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if few:  # patterns of two folds alone
        monkeypatch.setattr(voxels_module, "OUTER_BYTES", 1)
    pairs, _ = low_rank(90, 120)
    noise = np.random.default_rng(3).normal(size=pairs.responses.shape).astype(np.float32)
    config = PLAIN.model_copy(update={"alphas": (0.1,)})  # a penalty that fits noise
    fit = fit_linear_path(Pairs(pairs.tokens, noise, pairs.trials, pairs.image_of_trial), config)
    fresh, _ = low_rank(200, 120)
    plain = fit_linear_path(
        Pairs(pairs.tokens, noise, pairs.trials, pairs.image_of_trial),
        config.model_copy(update={"share": False}),
    )
    assert fit.path.predict(fresh.tokens).std() < 0.3 * plain.path.predict(fresh.tokens).std()
    if not few:
        assert np.mean(voxel_r(fit.out_of_fold, noise[::3])) < 0.05


def test_more_columns_than_voxels_are_not_stored() -> None:
    pairs, _ = low_rank(60, 12)
    fit = fit_linear_path(pairs, PLAIN.model_copy(update={"dtype": "float32"}))
    assert fit.path.mixing.shape == (12, 12)
    wide, _ = low_rank(60, 90)
    few = PLAIN.model_copy(update={"rank": 7, "rest": 3, "components": 5, "dtype": "float32"})
    assert fit_linear_path(wide, few).path.mixing.shape[0] <= 15


def of_their_own(n_images: int, n_voxels: int, seed: int = 0) -> Pairs:
    """Voxels that each answer for themselves; their noise is shared, and they differ in its strength."""
    pairs, _ = low_rank(n_images, n_voxels, seed=seed)
    flat = pairs.tokens.read("grid").reshape(pairs.n_images, -1)
    brain, rng = np.random.default_rng(5), np.random.default_rng([seed, 6])
    own = flat @ brain.normal(size=(flat.shape[1], n_voxels)) / np.sqrt(flat.shape[1])
    noise = rng.normal(size=(pairs.n_trials, n_voxels)) + rng.normal(size=(pairs.n_trials, 1))
    responses = 7 + 3 * own[pairs.image_of_trial] + noise * np.linspace(0.2, 2, n_voxels)
    return replace(pairs, responses=responses.astype(np.float32))


@pytest.mark.parametrize(("n_images", "n_voxels"), [(40, 70), (40, 300), (150, 300)])
def test_what_a_voxel_has_of_its_own_is_kept(n_images: int, n_voxels: int) -> None:
    """Few patterns lose most of it; the directions beyond them keep nearly all."""
    pairs, fresh = of_their_own(n_images, n_voxels), of_their_own(300, n_voxels, seed=3)
    few = PLAIN.model_copy(update={"rank": 10})
    fits = {
        "kept": fit_linear_path(pairs, few),
        "lost": fit_linear_path(pairs, few.model_copy(update={"rest": 0})),
        "alone": fit_linear_path(pairs, few.model_copy(update={"share": False})),
    }
    new = {
        how: np.mean(voxel_r(fit.path.predict(fresh.tokens), fresh.repeat_means()))
        for how, fit in fits.items()
    }
    unseen = {how: fit.path.about["cross_validated_r"] for how, fit in fits.items()}
    for reached in (new, unseen):
        assert reached["lost"] + 0.05 < reached["kept"] > reached["alone"] - 0.05


def test_directions_beyond_the_patterns_are_as_few_as_predictions_need() -> None:
    """Tokens have 40 dimensions, so predictions do, whatever the number of voxels."""
    few = PLAIN.model_copy(update={"rank": 4, "components": 0, "dtype": "float32"})
    assert 30 < len(fit_linear_path(of_their_own(120, 200), few).path.mixing) <= 4 + 40
    capped = few.model_copy(update={"rest": 9})
    assert len(fit_linear_path(of_their_own(120, 200), capped).path.mixing) == 4 + 9


@pytest.mark.parametrize("n_constant", [1, 30])
def test_voxels_that_never_vary_change_nothing_for_the_others(n_constant: int) -> None:
    """Their patterns have no power and their errors are of rounding: neither may decide for other voxels."""
    pairs, fresh = of_their_own(100, 200), of_their_own(200, 200, seed=3)
    still = pairs.responses.copy()
    still[:, :n_constant] = 3.0
    few = PLAIN.model_copy(update={"rank": 30})
    reached = []
    for responses in (pairs.responses, still):
        fit = fit_linear_path(replace(pairs, responses=responses), few)
        r = voxel_r(fit.path.predict(fresh.tokens), fresh.repeat_means())
        reached.append(float(np.mean(r[n_constant:])))
    assert abs(reached[1] - reached[0]) < 0.01, reached


def test_a_pattern_without_power_has_the_gain_of_the_next_one() -> None:
    gains = falling_gains(np.array([3.0, 0.0, 1.0, 0.0]), np.array([3.0, 0.0, 2.0, 0.0]))
    np.testing.assert_allclose(gains, [1, 0.5, 0.5, 0])


def test_patterns_are_those_of_the_signal_not_of_the_noise() -> None:
    rng = np.random.default_rng(4)
    n, n_voxels = 2000, 30
    signal, loud = np.linalg.qr(rng.normal(size=(n_voxels, 2)))[0].T
    score = rng.normal(size=(n, 1))
    y = score * signal + 5 * rng.normal(size=(n, 1)) * loud + 0.1 * rng.normal(size=(n, n_voxels))
    predictions = score * signal + 2 * rng.normal(size=(n, n_voxels)) / np.sqrt(n_voxels)
    first = patterns_of(predictions, y, np.ones(n), 3)[:, 0]
    assert abs(first @ signal) > 0.98


def test_patterns_of_many_voxels_are_those_of_few(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    shape = (50, 40)
    mixing = rng.normal(size=(40, 40)) * np.linspace(3, 0.1, 40)
    y = rng.normal(size=shape) @ mixing
    predictions, weights = y + rng.normal(size=shape), rng.uniform(0.5, 2, 50)
    dense = patterns_of(predictions, y, weights, 4)
    monkeypatch.setattr(patterns_module, "DENSE_VOXELS", 0)
    streamed = patterns_of(predictions, y, weights, 4)
    np.testing.assert_allclose(np.abs(np.sum(dense * streamed, axis=0)), 1, rtol=1e-5)


def test_gains_fall_and_end_with_the_first_pattern_that_tells_nothing() -> None:
    gains = falling_gains(np.array([4.0, 1.0, 3.0, -1.0, 1.0]), np.array([2.0, 2.0, 4.0, 1.0, 0.0]))
    assert gains[0] == 1.5  # 2 would be the slope
    assert (np.diff(gains) <= 0).all()
    np.testing.assert_array_equal(gains[3:], 0)
