"""Copies of a picture go into one fold, and cross-validation tells the error that new pictures have."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import KFold

from synbrain.baselines.ridge import Ridge, folds
from synbrain.features.look_alikes import families, folds_of, held_out, most_folds
from synbrain.features.tokens import Pairs, TokenSet
from synbrain.linear.by_encoder import fit_each_encoder
from synbrain.linear.config import LinearPathConfig
from synbrain.linear.fit import fit_linear_path
from synbrain.noise.mean_error import distances_of

CONFIG = LinearPathConfig(windows=0, blur=0, components=0)


def photographs(n: int, seed: int = 0, copies: int = 0, change: float = 0.2) -> dict[str, np.ndarray]:
    """Tokens of ``n`` images, of which the last ``copies`` are the first ones, somewhat changed."""
    rng = np.random.default_rng(seed)
    layers = {}
    for layer, (n_tokens, dim) in {"early": (16, 12), "late": (4, 40)}.items():
        tokens = rng.standard_normal((n, n_tokens, dim))
        tokens[n - copies :] = tokens[:copies] + change * rng.standard_normal((copies, n_tokens, dim))
        layers[layer] = tokens.astype(np.float16)
    return layers


def recording(copies: int, n: int = 240, noise: float = 1.0) -> tuple[Pairs, np.ndarray]:
    """Pairs of images and responses of which half is not in the tokens but goes with the picture."""
    rng = np.random.default_rng(3)
    layers = photographs(n, copies=copies)
    flat = layers["late"].reshape(n, -1).astype(float)
    signal = flat @ rng.standard_normal((flat.shape[1], 10)) / np.sqrt(flat.shape[1])
    own = rng.standard_normal((n, 10))
    own[n - copies :] = own[:copies]
    y = (signal + noise * own).astype(np.float32)
    tokens = TokenSet("photographs", "", dict(layers), np.arange(n))
    return Pairs(tokens, y, np.arange(n), np.arange(n)), signal


def test_copies_are_found_and_nothing_else() -> None:
    found = families(photographs(200, copies=60), np.arange(200))
    assert len(np.unique(found)) == 140
    assert (found[140:] == found[:60]).all()


def test_order_and_stored_rows_do_not_matter() -> None:
    layers, rows = photographs(120, copies=20), np.random.default_rng(1).permutation(120)
    found, shuffled = families(layers, np.arange(120)), families(layers, rows)
    same = found[rows][:, None] == found[rows][None]
    assert ((shuffled[:, None] == shuffled[None]) == same).all()


def test_pictures_that_differ_in_little_are_told_apart_further_on() -> None:
    """A session of one object in small steps: at .8 all are one family, which cannot be left out."""
    rng = np.random.default_rng(0)
    shapes = np.repeat(rng.standard_normal((4, 4, 40)), 50, axis=0)
    tokens = shapes + 0.3 * rng.standard_normal((200, 4, 40))
    tokens[199] = tokens[0]
    found = families({"late": tokens.astype(np.float32)}, np.arange(200))
    assert found[199] == found[0]
    assert np.bincount(found).max() == 2


def test_a_set_of_gratings_hides_no_copied_photograph() -> None:
    """One family is too large at any cosine, so its images are parted; the copies of the others are not."""
    rng = np.random.default_rng(0)
    tokens = rng.standard_normal((200, 16, 40))
    tokens[160:] = tokens[160] + 0.02 * rng.standard_normal((40, 16, 40))
    tokens[100:150] = tokens[:50] + 0.3 * rng.standard_normal((50, 16, 40))
    found = families({"late": tokens.astype(np.float32)}, np.arange(200))
    assert (found[100:150] == found[:50]).all()
    assert len(np.unique(found)) == 150
    assert np.bincount(found).max() == 2


@pytest.mark.parametrize("n", [3, 12])
def test_few_images_are_families_of_their_own(n: int) -> None:
    same = np.ones((n, 4, 8), dtype=np.float32)
    assert len(np.unique(families({"late": same}, np.arange(n)))) == n


def test_no_layers_no_families() -> None:
    assert families({}, np.arange(30)).tolist() == list(range(30))


@given(st.lists(st.integers(0, 30), min_size=12, max_size=60), st.integers(2, 8), st.integers(0, 5))
def test_folds_and_splits_never_part_a_family(numbers: list[int], n_folds: int, seed: int) -> None:
    family = np.array(numbers)
    n_folds = min(n_folds, len(np.unique(family)))
    fold = folds_of(family, n_folds, seed)
    assert set(fold.tolist()) == set(range(n_folds))
    for number in np.unique(family):
        assert len(set(fold[family == number].tolist())) == 1
    held = held_out(family, 3, seed)
    assert len(held) >= 3
    rest = np.setdiff1d(np.arange(len(family)), held)
    assert not set(family[held].tolist()) & set(family[rest].tolist())


def test_holding_nearly_all_out_leaves_a_family() -> None:
    pairs, _ = recording(copies=120)
    rest, held = pairs.hold_out(0.999, 0)
    assert (rest.n_images, held.n_images) == (2, 238)


def test_folds_for_single_images_grow_no_larger_than_a_family() -> None:
    """All folds are laid out at the size of the largest: 59 of 6 places would be 354 for 64 images."""
    pairs, _ = recording(copies=0, n=64)
    late = pairs.tokens.layers["late"].copy()
    late[:6] = late[0]
    early = pairs.tokens.layers["early"].copy()
    early[:6] = early[0]
    alike = replace(pairs, tokens=replace(pairs.tokens, layers={"early": early, "late": late}))
    one_by_one = CONFIG.model_copy(update={"n_folds": 64})
    assert np.bincount(fit_linear_path(alike, one_by_one).folds).tolist() == [7, 7, 7, 7, 6, 6, 6, 6, 6, 6]
    assert np.bincount(fit_linear_path(pairs, one_by_one).folds).max() == 1
    assert most_folds(np.zeros(5, dtype=np.int64)) == 1
    assert most_folds(np.array([0, 0, 0, 1])) == 2


def test_without_look_alikes_folds_are_those_of_single_images() -> None:
    order = np.random.default_rng(4).permutation(23)
    expected = np.empty(23, dtype=int)
    expected[order] = np.arange(23) % 5
    assert folds_of(np.arange(23), 5, 4).tolist() == expected.tolist()
    assert held_out(np.arange(23), 6, 4).tolist() == sorted(order[:6].tolist())
    splits = zip(
        folds(np.arange(23), 5, 4).split(order),
        KFold(5, shuffle=True, random_state=4).split(order),
        strict=True,
    )
    assert all((ours[1] == theirs[1]).all() for ours, theirs in splits)


@pytest.mark.parametrize("model", ["linear path", "ridge"])
def test_copies_do_not_flatter_cross_validation(model: str) -> None:
    """Responses whose half the tokens cannot tell: what is told of error is what new images have."""
    pairs, _ = recording(copies=100)
    new, _ = recording(copies=0, n=480)
    unseen = new.take(np.arange(240, 480))
    unseen_y = unseen.repeat_means()

    def told(of: Pairs) -> tuple[float, float]:
        if model == "ridge":
            ridge = Ridge().fit(of)
            out, predicted = ridge.cross_fitted(of), ridge.predict(unseen.tokens)
        else:
            fit = fit_linear_path(of, CONFIG)
            out, predicted = fit.out_of_fold, fit.path.predict(unseen.tokens)
        mean = [np.square(a - b).mean() for a, b in ((out, of.repeat_means()), (predicted, unseen_y))]
        return float(mean[0]), float(mean[1])

    parted = replace(pairs, tokens=replace(pairs.tokens, settled=np.arange(pairs.n_images)))
    flattered, _ = told(parted)
    honest, true = told(pairs)
    assert flattered < 0.75 * honest
    assert honest > 0.85 * true


def test_the_run_says_how_many_images_share_a_fold_with_one_like_them() -> None:
    said = "images_that_look_like_another_and_share_its_fold"
    assert fit_linear_path(recording(copies=20, n=60)[0], CONFIG).path.about[said] == 40
    assert said not in fit_linear_path(recording(copies=0, n=60)[0], CONFIG).path.about


def test_validation_images_have_no_copy_among_the_others() -> None:
    pairs, _ = recording(copies=100)
    rest, held = pairs.hold_out(0.2, 0)
    families_of_rest = set(pairs.tokens.families[rest.tokens.rows].tolist())
    assert not families_of_rest & set(pairs.tokens.families[held.tokens.rows].tolist())
    assert 48 <= held.n_images <= 49
    assert rest.n_images + held.n_images == 240


def test_all_layers_settle_the_families_of_each_encoder() -> None:
    pairs, _ = recording(copies=100)
    names = [f"{of}:{layer}" for of, layer in (("a", "early"), ("b", "late"))]
    layers = dict(zip(names, pairs.tokens.layers.values(), strict=True))
    layers[names[1]] = np.random.default_rng(0).permutation(layers[names[1]])  # copies in one encoder alone
    joint = replace(pairs, tokens=replace(pairs.tokens, layers=layers))
    seen = []

    def fit(of: Pairs, config: LinearPathConfig, number: int):
        seen.append(of.tokens.families)
        return fit_linear_path(of, config)

    fit_each_encoder(joint, CONFIG, fit)
    assert (seen[0] == seen[1]).all()
    assert (seen[0] == joint.tokens.families).all()


def test_a_copy_is_as_far_from_the_others_as_its_picture() -> None:
    """Distance of left-out images: a copy in the fit would make an image look known."""
    pairs, _ = recording(copies=100)
    parted = replace(pairs.tokens, settled=np.arange(pairs.n_images))
    copies = np.r_[0:100, 140:240]
    near, far = (distances_of(tokens, None, seed=0) for tokens in (parted, pairs.tokens))
    assert near is not None
    assert far is not None
    assert near.values[copies].mean() < 0.9 * near.values[100:140].mean()
    assert far.values[copies].mean() > 0.97 * far.values[100:140].mean()
