"""Patterns as responses of their own: found without noise, judged without their own images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from synbrain.features.tokens import Pairs, TokenSet
from synbrain.linear import fit as fit_module
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


def test_more_columns_than_voxels_are_not_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs, _ = low_rank(60, 12)
    fit = fit_linear_path(pairs, PLAIN.model_copy(update={"dtype": "float32"}))
    assert fit.path.mixing.shape == (12, 12)
    wide, _ = low_rank(60, 90)
    few = PLAIN.model_copy(update={"rank": 7, "components": 5, "dtype": "float32"})
    monkeypatch.setattr(fit_module, "MOST_ALONE", 89)
    assert fit_linear_path(wide, few).path.mixing.shape[0] <= 12


def test_sharing_that_cross_validates_worse_is_left_out() -> None:
    """Fewer images than voxels that each answer for themselves: patterns lose what is a voxel's own.

    Noise is shared and voxels differ in it, so that they are fitted in other units than they are measured in.
    """
    rng = np.random.default_rng(5)
    pairs, _ = low_rank(40, 70)
    flat = pairs.tokens.read(next(iter(pairs.tokens.layers))).reshape(pairs.n_images, -1)
    own = flat @ rng.normal(size=(flat.shape[1], 70)) / np.sqrt(flat.shape[1])
    noise = rng.normal(size=(pairs.n_trials, 70)) + rng.normal(size=(pairs.n_trials, 1))
    responses = 7 + 3 * own[pairs.image_of_trial] + noise * np.linspace(0.2, 2, 70)
    of_their_own = replace(pairs, responses=responses.astype(np.float32))
    fit = fit_linear_path(of_their_own, PLAIN)
    alone = fit_linear_path(of_their_own, PLAIN.model_copy(update={"share": False}))
    assert "patterns" not in fit.path.about
    spread = alone.out_of_fold.std()
    assert np.abs(fit.out_of_fold - alone.out_of_fold).std() < 0.2 * spread  # but for the units
    predicted, expected = (f.path.predict(pairs.tokens) for f in (fit, alone))
    assert np.abs(predicted - expected).std() < 0.2 * expected.std()
    shared, _ = low_rank(120, 70)
    assert "patterns" in fit_linear_path(shared, PLAIN).path.about


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
