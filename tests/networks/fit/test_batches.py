"""Batches: one subject each, every sample once an epoch, the same for any number of processes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synbrain.errors import SynBrainError
from synbrain.networks.fit.batches import batch_rows, make_schedule, share_of


@settings(max_examples=30)
@given(n_items=st.integers(1, 40), batch_size=st.integers(1, 30), n_turns=st.integers(1, 12))
def test_every_batch_is_full_and_epochs_leave_nobody_out(n_items: int, batch_size: int, n_turns: int) -> None:
    batches = [batch_rows(n_items, batch_size, turn, seed=4) for turn in range(n_turns)]
    assert all(len(rows) == batch_size for rows in batches)
    counts = np.bincount(np.concatenate(batches), minlength=n_items)
    assert counts.max() - counts.min() <= 1


def test_batches_depend_on_seed_and_turn_alone() -> None:
    assert np.array_equal(batch_rows(30, 8, 5, seed=1), batch_rows(30, 8, 5, seed=1))
    assert not np.array_equal(batch_rows(30, 8, 5, seed=1), batch_rows(30, 8, 5, seed=2))


def test_processes_share_a_batch_without_overlap() -> None:
    rows = batch_rows(30, 8, 0, seed=1)
    parts = [share_of(rows, process, 4) for process in range(4)]
    assert np.array_equal(np.concatenate(parts), rows)
    with pytest.raises(SynBrainError, match="multiples of 3"):
        share_of(rows, 0, 3)


def test_subjects_are_drawn_by_weight_and_take_their_own_turns() -> None:
    schedule = make_schedule(4000, [3.0, 1.0, 0.0], seed=0)
    shares = np.bincount(schedule.subject, minlength=3) / 4000
    assert shares[0] == pytest.approx(0.75, abs=0.03)
    assert shares[2] == 0
    for which in (0, 1):
        turns = schedule.turn[schedule.subject == which]
        assert np.array_equal(turns, np.arange(len(turns)))
    with pytest.raises(SynBrainError, match="draw nobody"):
        make_schedule(10, [0.0, 0.0], seed=0)
