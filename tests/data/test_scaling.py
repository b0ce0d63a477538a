"""One session scaled and back, checked on arrays; prepared trees are checked in test_nsd_prepare."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from synbrain.data.scaling import find_gaps, invert, scale_session
from synbrain.data.units import UNITS
from synbrain.errors import SynBrainError
from synbrain.prepare.nsd.options import NsdOptions
from synbrain.prepare.nsd.prepare import prepare_nsd
from synbrain.prepare.table import prepare_table

FITTING = np.array([True, True, False, True, False, True])


@settings(max_examples=60)
@given(
    raw=arrays.arrays(np.int16, (6, 4)),
    kind=st.sampled_from(sorted(UNITS)),
)
def test_int16_comes_back_exactly(raw: np.ndarray, kind: Any) -> None:
    scaled = scale_session(raw, kind, FITTING)
    assert np.isfinite(scaled.values).all()
    percent = scaled.values / 0.15 if kind == "reference" else scaled.values * scaled.sd + scaled.mean
    assert np.array_equal(np.round(percent.astype(np.float64) * 300), raw)


def test_zscore_ignores_trials_that_are_not_for_fitting() -> None:
    raw = np.random.default_rng(0).normal(0, 500, (6, 3)).astype(np.int16)
    first = scale_session(raw, "session-zscore", FITTING)
    raw[~FITTING] = 9999
    second = scale_session(raw, "session-zscore", FITTING)
    assert np.array_equal(first.values[FITTING], second.values[FITTING])
    assert np.allclose(first.values[FITTING].mean(axis=0), 0, atol=1e-5)
    assert np.allclose(first.values[FITTING].std(axis=0), 1, atol=1e-5)


def test_constant_and_missing_voxels_are_told_apart() -> None:
    raw = np.random.default_rng(0).normal(0, 500, (6, 4)).astype(np.int16)
    raw[:, 1] = 0
    raw[FITTING, 2] = 7  # varies over the other trials only
    scaled = scale_session(raw, "session-zscore", FITTING)
    assert scaled.missing.tolist() == [1]
    assert scaled.constant.tolist() == [2]
    assert (scaled.values[:, 1] == 0).all()
    assert (scaled.values[FITTING, 2] == 0).all()
    assert np.isfinite(scaled.values).all()


@pytest.mark.parametrize("kind", ["i2", "f4"])
def test_a_trial_of_zeros_holds_no_data_whatever_the_type(kind: str) -> None:
    """Censored trials of float volumes were taken for responses of 0."""
    raw = np.random.default_rng(0).normal(0, 500, (6, 40)).astype(kind)
    raw[:, :10] = 0  # outside of the brain
    raw[2] = 0
    gaps = find_gaps(raw)
    assert gaps.trials.tolist() == [False, False, True, False, False, False]
    assert gaps.voxels.tolist() == [True] * 10 + [False] * 30
    assert not gaps.partial.any()
    assert not find_gaps(raw[:, :20]).trials.any(), "ten voxels may be 0 by chance"


def test_zscore_needs_training_trials() -> None:
    with pytest.raises(SynBrainError, match="1 training trial "):
        scale_session(np.ones((3, 2), np.int16), "session-zscore", np.array([True, False, False]))


def test_invert_refuses_what_it_cannot_undo(nsd_tree: Path, tmp_path: Path) -> None:
    made = prepare_nsd(nsd_tree, tmp_path / "z", subject=1, options=NsdOptions(scaling="session-zscore"))
    with pytest.raises(SynBrainError, match=r"not among \[0, 1, 2\]"):
        invert(made, made.responses[:2], np.array([0, 3]))
    recordings = Path(__file__).parents[2] / "../shared/data/miyawaki_v1"
    if not recordings.exists():
        pytest.skip("the recordings of shared/data are not beside this checkout")
    table = prepare_table(recordings, tmp_path / "table")
    with pytest.raises(SynBrainError, match="no scaling to undo"):
        invert(table, table.responses, np.zeros(80, int))
