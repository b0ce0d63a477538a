"""The linear path: exact cross-validation, windows that find receptive fields, a map that loads alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from synbrain.errors import SynBrainError
from synbrain.features.tokens import Pairs, TokenSet
from synbrain.linear import kernels as kernels_module
from synbrain.linear import voxels as voxels_module
from synbrain.linear.candidates import candidate_windows
from synbrain.linear.config import LinearPathConfig
from synbrain.linear.fit import fit_linear_path, image_weights
from synbrain.linear.kernels import Window, blur_matrix, blurred_grid, plain_grid, window_kernels
from synbrain.linear.meter import Meter
from synbrain.linear.path import LinearPath
from synbrain.linear.scratch import Scratch
from synbrain.metrics.voxel import voxel_r

SIDE, DIM = 5, 6


def make_pairs(
    n_images: int = 120, n_voxels: int = 8, *, noise: float = 1.0, seed: int = 0
) -> tuple[Pairs, np.ndarray]:
    """Voxels that look at one place of a 5 x 5 grid; returns pairs and true means."""
    rng = np.random.default_rng([seed, n_images])
    tokens = rng.normal(2, 1, (n_images, SIDE**2, DIM)).astype(np.float16)
    same = np.random.default_rng(seed)  # the brain does not depend on the number of images
    weights = np.zeros((SIDE**2, DIM, n_voxels))
    for voxel in range(n_voxels):
        weights[12 + voxel % 3, :, voxel] = same.normal(size=DIM)
    truth = np.tensordot(tokens.astype(float) - 2, weights, axes=2) + 3
    image_of_trial = np.repeat(np.arange(n_images), 2)
    responses = truth[image_of_trial] + noise * rng.normal(size=(2 * n_images, n_voxels))
    held = TokenSet("e", "d", {"grid": tokens}, np.arange(n_images))
    pairs = Pairs(held, responses.astype(np.float32), np.arange(2 * n_images), image_of_trial)
    return pairs, truth


def test_without_windows_it_is_ridge_on_the_tokens() -> None:
    pairs, _ = make_pairs()
    config = LinearPathConfig(windows=0, blur=0, alphas=(10.0,), dtype="float32", share=False)
    fit = fit_linear_path(pairs, config)
    x = pairs.tokens.read("grid").reshape(120, -1)
    scale = plain_grid(pairs.tokens, "grid").scale
    kernel = (x - x.mean(0)) @ (x - x.mean(0)).T * scale**2
    scale /= np.sqrt(np.trace(kernel) / 120)
    expected = Ridge(10.0).fit(x * scale, pairs.repeat_means())
    np.testing.assert_allclose(
        fit.path.predict(pairs.tokens), expected.predict(x * scale), rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize("sd", [1e-300, 1e-6])
def test_windows_between_the_positions_are_told_before_the_work(sd: float) -> None:
    with pytest.raises(SynBrainError, match=r"give --linear\.window-sd of at least 0\.036"):
        candidate_windows(100, LinearPathConfig(window_sd=sd))
    with pytest.raises(SynBrainError, match="between the positions of a grid of 4 x 4"):
        Window(0.5, 0.5, sd).weights(16)
    assert len(candidate_windows(100, LinearPathConfig(window_sd=sd, windows=0))) == 1
    assert len(candidate_windows(100, LinearPathConfig(window_sd=0.036))) == 26


def test_windows_beat_plain_ridge_where_voxels_look_at_one_place() -> None:
    pairs, _ = make_pairs(seed=1)
    fresh, truth = make_pairs(300, seed=1)
    plain = fit_linear_path(pairs, LinearPathConfig(windows=0, blur=0)).path
    seen = fit_linear_path(pairs, LinearPathConfig(windows=5, blur=0, window_sd=0.1)).path
    r_plain, r_seen = (np.mean(voxel_r(path.predict(fresh.tokens), truth)) for path in (plain, seen))
    assert r_seen > r_plain + 0.05


def test_plain_ridge_stays_a_candidate_where_windows_do_not_pay() -> None:
    rng = np.random.default_rng(0)
    pairs, _ = make_pairs(100)
    x = pairs.tokens.read("grid").reshape(100, -1) - 2
    scattered = x @ rng.normal(size=(x.shape[1], 8)) / 5 + rng.normal(size=(100, 8))
    everywhere = Pairs(pairs.tokens, scattered.astype(np.float32), np.arange(100), np.arange(100))
    fit = fit_linear_path(everywhere, LinearPathConfig())
    plain = fit_linear_path(everywhere, LinearPathConfig(windows=0, blur=0))
    assert fit.path.about["weight_of_plain_ridge"] > 0.3
    assert fit.path.about["cross_validated_r"] > plain.path.about["cross_validated_r"] - 0.02


def test_out_of_fold_predictions_do_not_see_their_image() -> None:
    pairs, _ = make_pairs(60, noise=5.0)
    config = LinearPathConfig(windows=0, blur=0, alphas=(3.0,), n_folds=6, share=False)  # nothing to choose
    fit = fit_linear_path(pairs, config, seed=3)
    changed = pairs.responses.copy()
    fold = fit.folds == 2
    changed[fold[pairs.image_of_trial]] += 50
    again = fit_linear_path(Pairs(pairs.tokens, changed, pairs.trials, pairs.image_of_trial), config, seed=3)
    np.testing.assert_allclose(again.out_of_fold[fold], fit.out_of_fold[fold], rtol=1e-3, atol=1e-3)
    assert not np.allclose(again.out_of_fold[~fold], fit.out_of_fold[~fold], rtol=0.1, atol=0.1)


def test_choosing_among_candidates_finds_nothing_in_noise() -> None:
    rng = np.random.default_rng(5)
    pairs, _ = make_pairs(100)
    noise = rng.normal(size=(100, 40)).astype(np.float32)
    fit = fit_linear_path(Pairs(pairs.tokens, noise, np.arange(100), np.arange(100)), LinearPathConfig())
    assert np.mean(voxel_r(fit.out_of_fold, noise)) < 0.03


@pytest.mark.parametrize("few", [False, True])
def test_sharing_among_many_voxels_finds_nothing_in_noise(few: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if few:  # patterns of two folds alone
        monkeypatch.setattr(voxels_module, "OUTER_BYTES", 1)
    pairs, _ = make_pairs(60)
    noise = np.random.default_rng(6).normal(size=(60, 400)).astype(np.float32)
    config = LinearPathConfig(windows=0, blur=0, alphas=(1.0,))  # a small penalty: noise is fitted
    fit = fit_linear_path(Pairs(pairs.tokens, noise, np.arange(60), np.arange(60)), config)
    plain = fit_linear_path(
        Pairs(pairs.tokens, noise, np.arange(60), np.arange(60)), config.model_copy(update={"share": False})
    )
    others, _ = make_pairs(200)
    assert fit.path.predict(others.tokens).std() < 0.5 * plain.path.predict(others.tokens).std()
    if not few:
        assert np.mean(voxel_r(fit.out_of_fold, noise)) < 0.05


def test_sharing_pays_where_voxels_have_patterns_in_common() -> None:
    rng = np.random.default_rng(7)
    pairs, truth = make_pairs(200, n_voxels=3)
    mixing = rng.normal(size=(3, 60))
    responses = (truth @ mixing + 12 * rng.normal(size=(200, 60))).astype(np.float32)
    train = Pairs(pairs.tokens, responses, np.arange(200), np.arange(200)).take(np.arange(100))
    test = pairs.tokens.take(np.arange(100, 200))
    config = LinearPathConfig(windows=0, blur=0)
    reached = [
        voxel_r(fit_linear_path(train, how).path.predict(test), truth[100:] @ mixing).mean()
        for how in (config, config.model_copy(update={"share": False}))
    ]
    assert reached[0] > reached[1] + 0.03


def test_two_folds_share_nothing() -> None:
    pairs, _ = make_pairs(20)
    config = LinearPathConfig(windows=0, blur=0, n_folds=2)
    fit = fit_linear_path(pairs, config)
    apart = fit_linear_path(pairs, config.model_copy(update={"share": False}))
    np.testing.assert_array_equal(fit.out_of_fold, apart.out_of_fold)


def test_half_precision_and_few_ranks_lose_little() -> None:
    pairs, _ = make_pairs(n_voxels=12)
    full = fit_linear_path(pairs, LinearPathConfig(windows=2, dtype="float32")).path.predict(pairs.tokens)
    half = fit_linear_path(pairs, LinearPathConfig(windows=2)).path
    assert half.projections["grid"].dtype == np.float16
    np.testing.assert_allclose(half.predict(pairs.tokens), full, atol=2e-3 * full.std())
    low = fit_linear_path(pairs, LinearPathConfig(windows=2, rank=10, rest=0, components=0)).path
    assert low.mixing.shape == (10, 12)
    assert np.mean(voxel_r(low.predict(pairs.tokens), full)) > 0.97


def test_a_saved_path_loads_alone(tmp_path: Path) -> None:
    pairs, _ = make_pairs(60)
    path = fit_linear_path(pairs, LinearPathConfig(windows=1)).path
    path.save(tmp_path)
    loaded = LinearPath.load(tmp_path)
    np.testing.assert_array_equal(loaded.predict(pairs.tokens), path.predict(pairs.tokens))
    assert loaded.about == path.about


def test_permuting_voxels_permutes_predictions() -> None:
    pairs, _ = make_pairs(60)
    order = np.random.default_rng(0).permutation(8)
    turned = Pairs(pairs.tokens, pairs.responses[:, order], pairs.trials, pairs.image_of_trial)
    config = LinearPathConfig(windows=2)
    a, b = fit_linear_path(pairs, config), fit_linear_path(turned, config)
    np.testing.assert_allclose(a.out_of_fold[:, order], b.out_of_fold, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("tile", [4, 1024])
def test_kernels_are_those_of_their_formula(tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels_module, "TILE", tile)
    monkeypatch.setattr(kernels_module, "CHUNK_BYTES", 9 * 3 * 4 * 7)  # seven positions at a time
    rng = np.random.default_rng(0)
    layers = {"a": rng.normal(size=(9, 49, 3)).astype(np.float16), "b": rng.normal(size=(9, 10, 2))}
    tokens = TokenSet("e", "d", layers, np.arange(9))
    with Scratch() as scratch:
        grids = [blurred_grid(tokens, layer, scratch, side=5, blur=0.1) for layer in layers]
        windows = [Window(), Window(0.3, 0.6, 0.2)]
        kernels, factors = window_kernels(grids, windows, torch.device("cpu"), Meter())
        alone, factor = window_kernels(grids, windows[1:], torch.device("cpu"), Meter())
    assert grids[0].n_positions == 25
    expected = np.zeros((9, 9))
    for grid in grids:
        x = grid.features[grid.rows].astype(float)
        x = (x - x.mean(axis=0)) * grid.scale
        expected += np.einsum("p,ipd,jpd->ij", windows[1].weights(grid.n_positions), x, x)
    np.testing.assert_allclose(kernels[1], expected * factors[1], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(alone[0], kernels[1], rtol=1e-4, atol=1e-4)
    assert factor[0] == pytest.approx(factors[1], rel=1e-4)
    assert np.trace(kernels[1]) / 9 == pytest.approx(1, rel=1e-3)


def test_blur_keeps_constants_and_windows_peak_at_their_centre() -> None:
    matrix = blur_matrix(196, 7, 0.08)
    assert matrix is not None
    assert matrix.shape == (49, 196)
    np.testing.assert_allclose(matrix.sum(1), 1, rtol=1e-5)
    assert blur_matrix(10, 7, 0.08) is None
    weights = Window(x=0.9, y=0.1, sd=0.1).weights(49).reshape(7, 7)
    assert np.unravel_index(weights.argmax(), (7, 7)) == (0, 6)  # rows run down, columns across
    assert weights.sum() == pytest.approx(1)


def test_images_with_more_repeats_weigh_more_but_not_without_bound() -> None:
    pairs, _ = make_pairs(60, noise=1.0)
    kept = np.arange(0, 120) >= 30  # the first 15 images lose both trials' partner
    kept[:30:2] = True
    ragged = Pairs(pairs.tokens, pairs.responses, pairs.trials[kept], pairs.image_of_trial[kept])
    weights = image_weights(ragged)
    assert weights.mean() == pytest.approx(1)
    assert 1 < weights[-1] / weights[0] < 2
    np.testing.assert_array_equal(image_weights(pairs), 1)


def test_constant_voxels_do_not_weigh_images() -> None:
    rng = np.random.default_rng(0)
    image = np.repeat(np.arange(60), np.repeat([1, 4], 30))
    live = 3 * rng.normal(size=(60, 8))[image] + rng.normal(size=(len(image), 8))
    tokens = TokenSet("e", "d", {"grid": np.zeros((60, 1, 1), dtype=np.float32)}, np.arange(60))
    alone, beside = (
        image_weights(Pairs(tokens, y.astype(np.float32), np.arange(len(image)), image))
        for y in (live, np.concatenate([live, np.ones((len(image), 20))], axis=1))
    )
    np.testing.assert_array_equal(alone, beside)


def test_weights_of_images_do_not_hang_on_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first trials were looked at: where those were of images shown once, repeats counted for nothing."""
    monkeypatch.setattr("synbrain.linear.fit.WEIGHED_TRIALS", 80)
    rng = np.random.default_rng(0)
    tokens = TokenSet("e", "d", {"grid": np.zeros((160, 1, 1), dtype=np.float32)}, np.arange(160))
    for repeats in (np.repeat([1, 4], [100, 60]), np.repeat([4, 1], [60, 100])):
        image = np.repeat(np.arange(160), repeats)
        responses = 3 * rng.normal(size=(160, 50))[image] + rng.normal(size=(len(image), 50))
        weights = image_weights(Pairs(tokens, responses.astype(np.float32), np.arange(len(image)), image))
        ratio = weights[repeats == 4][0] / weights[repeats == 1][0]
        assert ratio == pytest.approx((4.5 + 1) / (4.5 + 1 / 4), rel=0.05)


def test_too_few_images_and_bad_responses_are_told() -> None:
    pairs, _ = make_pairs(12)
    with pytest.raises(SynBrainError, match="at least 3"):
        fit_linear_path(pairs.take(np.arange(2)), LinearPathConfig())
    few = fit_linear_path(pairs.take(np.arange(6)), LinearPathConfig())
    assert np.isfinite(few.out_of_fold).all()
    pairs.responses[3, 2] = np.nan
    with pytest.raises(SynBrainError, match="1 voxel has responses that are not finite"):
        fit_linear_path(pairs, LinearPathConfig())


def test_images_that_all_have_the_same_tokens_are_told() -> None:
    pairs, _ = make_pairs(12)
    tokens = pairs.tokens.layers["grid"]
    for constant in (0, 3):
        same = replace(pairs.tokens, layers={"grid": np.full_like(tokens, constant)})
        with pytest.raises(SynBrainError, match="all images have the same tokens of e"):
            fit_linear_path(replace(pairs, tokens=same), LinearPathConfig())
    # one layer of several may say nothing
    both = replace(pairs.tokens, layers={"grid": tokens, "flat": np.full_like(tokens, 3)})
    path = fit_linear_path(replace(pairs, tokens=both), LinearPathConfig()).path
    assert np.isfinite(path.predict(both)).all()


def test_nothing_is_left_on_another_device() -> None:
    """What is made without saying where would be on "meta" here, and could not meet the rest."""
    pairs, _ = make_pairs(n_voxels=12)
    expected = fit_linear_path(pairs, LinearPathConfig(components=4))
    with torch.device("meta"):
        got = fit_linear_path(pairs, LinearPathConfig(components=4), device="cpu")
    np.testing.assert_array_equal(got.out_of_fold, expected.out_of_fold)
