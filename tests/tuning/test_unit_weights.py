"""Weights of units by their noise ceiling: signal counts, and a guess is not taken for knowledge."""

from __future__ import annotations

import numpy as np
import pytest

from synbrain.features.tokens import Pairs, TokenSet
from synbrain.tuning import subjects
from synbrain.tuning.subjects import _unit_weights


def half_without_signal(repeats: np.ndarray) -> Pairs:
    rng = np.random.default_rng(0)
    n = len(repeats)
    image = rng.permutation(np.repeat(np.arange(n), repeats))
    signal = rng.normal(size=(n, 40)) * np.repeat([1.0, 0.0], 20)
    responses = signal[image] + rng.normal(size=(len(image), 40))
    tokens = TokenSet("e", "d", {"s": np.zeros((n, 1, 1), dtype=np.float32)}, np.arange(n))
    return Pairs(tokens, responses.astype(np.float32), np.arange(len(image)), image)


def test_weights_are_shares_of_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Single trials drawn among many of an image were seldom its repeats: a guess, or not a number."""
    monkeypatch.setattr(subjects, "CEILING_TRIALS", 300)
    weights = _unit_weights(half_without_signal(np.full(400, 3)), True)
    assert weights.mean() == pytest.approx(1)
    assert weights[20:].mean() / weights[:20].mean() < 0.2
    ragged = _unit_weights(half_without_signal(np.repeat([1, 4], [400, 40])), True)
    assert np.isfinite(ragged).all()
    assert ragged[20:].mean() / ragged[:20].mean() < 0.35


@pytest.mark.parametrize("repeats", [np.ones(50, dtype=int), np.repeat([1, 2], [50, 3]), np.array([20])])
def test_units_weigh_alike_where_too_few_images_were_repeated(repeats: np.ndarray) -> None:
    np.testing.assert_array_equal(_unit_weights(half_without_signal(repeats), True), 1)
    np.testing.assert_array_equal(_unit_weights(half_without_signal(np.full(60, 3)), False), 1)
