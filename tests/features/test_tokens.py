from __future__ import annotations

from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synbrain.errors import SynBrainError
from synbrain.features import tokens as module
from synbrain.features.scale import Scale
from synbrain.features.tokens import Pairs, TokenSet


def token_set(n: int, rows: np.ndarray | None = None) -> TokenSet:
    """Token values tell the stored row."""
    stored = np.repeat(np.arange(n, dtype=np.float16), 6).reshape(n, 2, 3)
    other = np.repeat(np.arange(n, dtype=np.float16) + 100, 5).reshape(n, 1, 5)
    return TokenSet("e", "d", {"a": stored, "b": other}, np.arange(n) if rows is None else rows)


@st.composite
def pairs(draw: st.DrawFn) -> Pairs:
    """Ragged repeats; each response says its image in column 0 and its stored row in column 1."""
    n_images = draw(st.integers(2, 8))
    shown = draw(st.lists(st.integers(0, n_images - 1), min_size=0, max_size=20))
    image_of_trial = np.array(list(range(n_images)) + shown)[
        draw(st.permutations(range(n_images + len(shown))))
    ]
    n_stored = len(image_of_trial) + 3
    trials = np.array(draw(st.permutations(range(n_stored)))[: len(image_of_trial)])
    responses = np.full((n_stored, 2), -1.0, dtype=np.float32)
    responses[trials, 0] = image_of_trial
    responses[:, 1] = np.arange(n_stored)
    return Pairs(token_set(n_images), responses, trials, image_of_trial)


def test_take_only_and_read() -> None:
    tokens = token_set(5).take(np.array([4, 0, 2])).take(np.array([2, 0]))
    assert len(tokens) == 2
    assert tokens.shapes == {"a": (2, 3), "b": (1, 5)}
    assert tokens.read("a")[:, 0, 0].tolist() == [2, 4]
    assert tokens.read("b", np.array([1]))[:, 0, 0].tolist() == [104]
    assert tokens.read("a").dtype == np.float32
    assert list(tokens.only("b").layers) == ["b"]
    with pytest.raises(SynBrainError, match=r"\['a', 'b'\], not \['c'\]"):
        tokens.only("a", "c")


@pytest.mark.parametrize("at_once", [2**23, 3])
@given(given_pairs=pairs())
def test_repeat_means_equal_a_plain_loop(at_once: int, given_pairs: Pairs) -> None:
    p = given_pairs
    expected = [
        np.mean(
            [p.responses[t] for t, i in zip(p.trials, p.image_of_trial, strict=True) if i == image], axis=0
        )
        for image in range(p.n_images)
    ]
    with mock.patch("synbrain.features.tokens.SUMMED_VALUES", at_once):
        np.testing.assert_allclose(p.repeat_means(), expected, rtol=1e-6)
    assert p.repeats().sum() == p.n_trials


@given(pairs(), st.data())
def test_take_keeps_every_trial_with_its_image(p: Pairs, data: st.DataObject) -> None:
    images = np.array(data.draw(st.permutations(range(p.n_images))))[: data.draw(st.integers(1, p.n_images))]
    taken = p.take(images)
    assert taken.n_images == len(images)
    shown = taken.tokens.read("a")[taken.image_of_trial, 0, 0]
    np.testing.assert_array_equal(shown, taken.trial_responses()[:, 0])
    assert taken.n_trials == p.repeats()[images].sum()
    half = np.arange(0, taken.n_trials, 2)
    np.testing.assert_array_equal(taken.trial_responses(half), taken.trial_responses()[half])


def test_some_trials_are_whole_images_and_repeated_ones_first() -> None:
    image = np.concatenate([np.zeros(500, dtype=np.int64), np.repeat(np.arange(1, 31), 3), np.arange(31, 90)])
    tokens = TokenSet("e", "d", {"s": np.zeros((90, 1, 1), dtype=np.float32)}, np.arange(90))
    some = Pairs(tokens, np.zeros((len(image), 1), dtype=np.float32), np.arange(len(image)), image)
    for most in (30, 90, 120):
        counts = np.bincount(image[some.some_trials(most, (0,))], minlength=90)
        assert counts.sum() == most
        assert set(counts[1:31]) <= {0, 3}
        assert counts[1:31].sum() == min(most, 90), "an image of 500 trials leaves room for the others"
    assert len(some.some_trials(1000, (0,))) == len(image)


@given(pairs(), st.floats(0.01, 0.99), st.integers(0, 5))
def test_hold_out_never_shares_an_image_nor_loses_a_trial(p: Pairs, fraction: float, seed: int) -> None:
    rest, held = p.hold_out(fraction, seed)
    assert not set(rest.tokens.rows) & set(held.tokens.rows)
    assert sorted([*rest.tokens.rows, *held.tokens.rows]) == list(range(p.n_images))
    assert sorted([*rest.trials, *held.trials]) == sorted(p.trials)
    assert held.n_images >= 1
    assert rest.n_images >= 1
    for both in (rest.together_with(held), held.together_with(rest)):
        assert both.tokens.image_rows.tolist() == p.tokens.image_rows.tolist()
        assert both.tokens.rows.tolist() == list(range(p.n_images))
        assert both.trials.tolist() == sorted(p.trials)
        shown = both.tokens.read("a")[both.image_of_trial, 0, 0]
        np.testing.assert_array_equal(shown, both.trial_responses()[:, 0])
    again = p.hold_out(fraction, seed)[1]
    np.testing.assert_array_equal(again.tokens.rows, held.tokens.rows)


def test_images_of_a_shared_store_come_back_together() -> None:
    """Its rows are not those of the dataset, and families may have been told by other layers."""
    stored = replace(token_set(6), images=np.arange(6)[::-1].copy(), settled=np.array([0, 0, 1, 2, 3, 4]))
    rows = np.arange(6)
    p = Pairs(stored, np.arange(12, dtype=np.float32).reshape(6, 2), rows, rows)
    rest, held = p.take(rows[1::2]), p.take(rows[::2])
    for both in (rest.together_with(held), held.together_with(rest)):
        assert both.tokens.rows.tolist() == stored.rows.tolist()
        assert both.tokens.image_rows.tolist() == [5, 4, 3, 2, 1, 0]
        assert both.tokens.families.tolist() == [0, 0, 1, 2, 3, 4]
        np.testing.assert_array_equal(both.trial_responses(), p.responses)
    bare = replace(rest, tokens=replace(rest.tokens, images=None))
    assert bare.together_with(held).tokens.images is None


def test_one_image_cannot_be_split() -> None:
    p = Pairs(token_set(1), np.zeros((1, 2), np.float32), np.array([0]), np.array([0]))
    with pytest.raises(SynBrainError, match="at least two"):
        p.hold_out(0.5, 0)


def trials_of(responses: np.ndarray) -> Pairs:
    n = len(responses)
    return Pairs(token_set(n), responses.astype(np.float32), np.arange(n), np.arange(n))


def test_a_scale_is_mean_and_sd_of_trials_whatever_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    responses = 1e4 + np.random.default_rng(0).standard_normal((50, 6))  # far from 0: squares would cancel
    trials = trials_of(responses).trial_responses().astype(np.float64)
    for size in (7, 50):
        parts = [slice(start, min(start + size, 50)) for start in range(0, 50, size)]
        monkeypatch.setattr(module, "blocks", lambda *_, parts=parts: iter(parts))
        scale = Scale.of_trials(trials_of(responses))
        np.testing.assert_allclose(scale.mean, trials.mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(scale.sd, trials.std(axis=0), rtol=1e-6)


def test_a_constant_voxel_is_told_from_one_that_hardly_varies() -> None:
    rng = np.random.default_rng(0)
    responses = rng.standard_normal((40, 4))
    responses[:, 1] = np.float32(0.1) * (1 + 1e-7 * rng.integers(-1, 2, 40))  # a constant up to rounding
    responses[:, 2] = 1e-9 * responses[:, 2]  # volts of an electrode: small is not constant
    scale = Scale.of_trials(trials_of(responses))
    assert (scale.sd > 0).tolist() == [True, False, True, True]
    assert scale.unit[1] == 1
    z = scale.scaled(responses)
    np.testing.assert_allclose(z[:, [0, 2, 3]].std(axis=0), 1, rtol=1e-4)
    assert not z[:, 1].any()
    np.testing.assert_allclose(scale.restored(z), responses, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(Scale.raw(4).scaled(responses), responses.astype(np.float32))
