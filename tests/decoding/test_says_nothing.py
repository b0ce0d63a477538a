"""What chooses between decoders: a decoder that says nothing is never the best."""

from __future__ import annotations

import numpy as np
import pytest

from synbrain.decoding.choice import chosen_share
from synbrain.decoding.validation import log_ranks

SEEN = np.random.default_rng(0).normal(size=(9, 5)).astype(np.float32)
IMAGE = np.array([0, 0, 3, 8])


def test_ranks_count_images_that_are_more_similar() -> None:
    decoded = SEEN[IMAGE] + np.random.default_rng(1).normal(size=(4, 5)).astype(np.float32)
    unit = (SEEN / np.linalg.norm(SEEN, axis=1, keepdims=True)).astype(np.float64)
    # by more than rounding, which differs between machines: an image is not more similar than itself
    expected = [np.sum(unit @ row > unit[i] @ row + 1e-9) for row, i in zip(decoded, IMAGE, strict=True)]
    np.testing.assert_allclose(np.expm1(log_ranks(decoded, SEEN, IMAGE)), expected, atol=1e-9)


@pytest.mark.parametrize(("value", "rank"), [(0.0, 4.0), (np.nan, 8.0)], ids=["zeros", "not a number"])
def test_nothing_is_no_perfect_answer(value: float, rank: float) -> None:
    """Without a difference no image is more similar than the right one: rank 0 was the best there is."""
    decoded = np.full((4, 5), value, dtype=np.float32)
    np.testing.assert_allclose(np.expm1(log_ranks(decoded, SEEN, IMAGE)), rank)
    good = SEEN[IMAGE] + 0.1
    assert log_ranks(decoded, SEEN, IMAGE).mean() > log_ranks(good, SEEN, IMAGE).mean()


@pytest.mark.parametrize("rule", ["mean", "one_se"])
def test_scores_that_are_not_numbers_choose_no_synthetic_trials(rule: str) -> None:
    nothing = [float("nan")] * 3
    assert chosen_share({0: [1.0, 1.0, 1.0], 0.5: nothing}, rule) == 0
    assert chosen_share({0: [1.0, 1.0, 1.0], 0.5: [0.5, 0.5, 0.5], 0.9: nothing}, rule) == 0.5
