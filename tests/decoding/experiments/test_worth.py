"""What synthetic hours are worth in real ones."""

from __future__ import annotations

import numpy as np
import pytest

from synbrain.decoding.experiments.worth import worth_in_real_hours


def test_the_smallest_amount_of_one_score_counts() -> None:
    def constant(value: float) -> np.ndarray:
        return np.full(6, value)

    real = {1.0: constant(0.4), 2.0: constant(0.4), 4.0: constant(0.3), 6.0: constant(0.5)}
    worth = worth_in_real_hours(constant(0.2), real, {1.0: constant(0.4), 2.0: constant(0.45)})
    assert worth["1"]["hours"] == pytest.approx(1)
    assert worth["2"]["hours"] == pytest.approx(5)  # halfway from 4 to 6 h: the fall at 4 h is levelled
    assert worth_in_real_hours(constant(0.2), real, {1.0: constant(0.1)})["1"] == {
        "hours": 0.0,
        "interval": [0.0, 0.0],
    }
    assert worth_in_real_hours(constant(0.2), {}, {1.0: constant(0.1)}) == {}


def test_intervals_pair_the_images() -> None:
    """What images share cancels: their spread is large, the difference between decoders hardly varies."""
    rng = np.random.default_rng(0)
    easy = rng.normal(size=300)
    noise = rng.normal(scale=0.05, size=(2, 300))
    real, synthetic = {4.0: easy + 1 + noise[0]}, {8.0: easy + 0.5 + noise[1]}
    low, high = worth_in_real_hours(easy, real, synthetic)["8"]["interval"]
    assert 1.9 < low < 2 < high < 2.1
    unsure = worth_in_real_hours(easy, real, {8.0: easy + 1 + noise[1]})["8"]
    assert unsure["interval"][0] > 3.9
    assert unsure["interval"][1] is None  # in some draws it is beyond the last real hour
