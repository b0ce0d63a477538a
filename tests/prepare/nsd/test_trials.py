"""NSD's test sets and splits, on designs made by hand and on a simulated ragged subject."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from synbrain.cli import main
from synbrain.data.dataset import load_dataset
from synbrain.errors import SynBrainError
from synbrain.prepare.nsd import layout as nsd_layout
from synbrain.prepare.nsd.options import NsdOptions
from synbrain.prepare.nsd.prepare import prepare_nsd
from synbrain.prepare.nsd.trials import Design, assign_split, read_design, select_test, shared_by_all


def hand_made() -> Design:
    """Two subjects, 4 shared (ids 10..13) and 2 own images each; 12 planned trials in sessions of 4."""
    ordering = np.array([0, 1, 2, 4, 0, 1, 3, 5, 2, 3, 4, 5])
    images = np.array([[10, 11, 12, 13, 20, 21], [10, 11, 12, 13, 30, 31]])
    return Design(ordering, images, np.array([10, 11, 12, 13]))


def test_named_test_sets_follow_every_subjects_sessions() -> None:
    design = hand_made()
    assert shared_by_all(design, None, [3, 3], 4).tolist() == [10, 11, 12, 13]
    assert shared_by_all(design, None, [3, 2], 4).tolist() == [10, 11]  # twice, as planned
    assert shared_by_all(design, 1, [3, 2], 4).tolist() == [10, 11, 12, 13]
    assert shared_by_all(design, 1, [1, 3], 4).tolist() == [10, 11, 12]
    assert select_test(design, "shared1000", [1, 1], 4)[0].tolist() == [10, 11, 12, 13]
    assert select_test(design, "shared515", [3, 2], 4)[0].tolist() == [10, 11]
    with pytest.raises(SynBrainError, match="no image belongs to shared515"):
        select_test(design, "shared515", [1, 1], 4)


def seen_of(design: Design, n_trials: int) -> pd.DataFrame:
    ids = design.ids(1, n_trials)
    return pd.DataFrame({"nsd_id": ids, "shared1000": np.isin(ids, design.shared)})


PLANNED = {10: 2, 11: 2, 12: 2, 13: 2}


def split_of(n_trials: int, test: list[int], **options: Any) -> list[str | None]:
    seen = seen_of(hand_made(), n_trials)
    planned = {i: PLANNED[i] for i in test}
    given = {"repeats": "all", "other_shared": "leave-out", "who": "subj01", **options}
    split, _ = assign_split(seen, np.array(test), planned, **given)
    return [None if pd.isna(value) else value for value in split]


def test_shared_images_outside_the_test_set_are_left_out_unless_asked() -> None:
    assert split_of(8, [10, 11])[:4] == ["test", "test", None, "train"]
    assert split_of(8, [10, 11], other_shared="train")[:4] == ["test", "test", "train", "train"]


def test_incomplete_test_images_are_refused_used_or_left_out_but_never_trained_on() -> None:
    with pytest.raises(SynBrainError) as caught:
        split_of(8, [10, 11, 12, 13])
    assert str(caught.value).startswith(
        "2 of 4 test images have fewer than 2 repeats for subj01: pass repeats='available'"
    )
    available = split_of(8, [10, 11, 12, 13], repeats="available")
    assert available == ["test", "test", "test", "train", "test", "test", "test", "train"]
    for other in ("leave-out", "train"):
        complete = split_of(8, [10, 11, 12, 13], repeats="complete", other_shared=other)
        assert complete == ["test", "test", None, "train", "test", "test", None, "train"]


def test_images_that_were_never_shown_are_no_test_images() -> None:
    seen = seen_of(hand_made(), 4)
    split, notes = assign_split(seen, np.array([10, 13]), {10: 2, 13: 2}, "available", "train", "subj01")
    assert split.tolist() == ["test", "train", "train", "train"]
    assert "2 of 2 test images have fewer than 2 repeats for subj01; 1 are used" in notes[0]


def test_split_without_training_trials_is_told() -> None:
    seen = seen_of(hand_made(), 3)
    with pytest.raises(SynBrainError, match="no train trial"):
        assign_split(seen, np.array([10, 11, 12]), PLANNED, "available", "leave-out", "subj01")


def test_ragged_subject(nsd_tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Subject 3 has two of three sessions."""
    command = ["prepare", "nsd", str(nsd_tree), str(tmp_path / "out"), "--subject", "3"]
    assert main(command) == 2
    told = capsys.readouterr().err
    assert "of 10 test images have fewer than 3 repeats for subj03: pass repeats='available'" in told
    assert main([*command, "--repeats", "available"]) == 0
    assert "test images have fewer than 3 repeats" in capsys.readouterr().out
    made = load_dataset(tmp_path / "out")
    assert made.n_trials == 80
    repeats = made.trials.groupby("image").size()
    assert set(repeats) == {1, 2, 3}
    last = made.trials.groupby("image")["repeat"].max()
    assert (last.to_numpy() + 1).tolist() == repeats.tolist()
    complete = prepare_nsd(nsd_tree, tmp_path / "complete", subject=3, options=NsdOptions(repeats="complete"))
    test = complete.trials[complete.trials["split"] == "test"]
    assert set(test.groupby("image").size()) == {3}


def test_shared515_of_the_tree(nsd_tree: Path, tmp_path: Path) -> None:
    """What all three subjects saw three times, hence what the ragged one did; the rest is left out."""
    design = read_design(nsd_tree)
    seen = design.ids(3, 80)
    expected = [i for i in design.shared if (seen == i).sum() == 3]
    made = prepare_nsd(nsd_tree, tmp_path / "out", subject=1, options=NsdOptions(test_set="shared515"))
    assert sorted(made.images.loc[made.images["split"] == "test", "nsd_id"]) == expected
    assert 0 < len(expected) < 10
    assert not made.images.loc[made.images["split"] == "train", "shared1000"].any()
    assert made.n_trials == 120 - 3 * (10 - len(expected))
    more = prepare_nsd(
        nsd_tree, tmp_path / "more", subject=1, options=NsdOptions(test_set="shared515", other_shared="train")
    )
    assert more.n_trials == 120
    whole = prepare_nsd(nsd_tree, tmp_path / "whole", subject=1)
    rows = whole.trials["nsd_id"].isin(made.images["nsd_id"]).to_numpy()
    assert np.array_equal(made.responses, np.asarray(whole.responses)[rows])
    assert (made.trials["repeat"].to_numpy() == whole.trials.loc[rows, "repeat"].to_numpy()).all()


def test_fewer_sessions(nsd_tree: Path, tmp_path: Path) -> None:
    made = prepare_nsd(
        nsd_tree, tmp_path / "out", subject=1, options=NsdOptions(sessions=1, repeats="available")
    )
    assert made.n_trials == 40
    assert made.info.provenance["n_sessions"] == 1


def test_counts_are_compared_with_the_published_ones_for_nsds_own_design() -> None:
    rng = np.random.default_rng(0)
    shared = np.sort(rng.choice(73_000, 1000, replace=False))
    rest = np.setdiff1d(np.arange(73_000), shared)
    own = rng.permutation(rest)[: 8 * 9000].reshape(8, 9000)
    design = Design(
        rng.permutation(np.repeat(np.arange(10_000), 3)), np.hstack([np.tile(shared, (8, 1)), own]), shared
    )
    assert design.is_nsd
    sessions = list(nsd_layout.SESSIONS)
    assert select_test(design, "shared1000", sessions, 750)[1] == []
    chosen, notes = select_test(design, "shared515", sessions, 750)
    assert len(chosen) == (np.bincount(design.ordering[: 30 * 750], minlength=10_000)[:1000] == 3).sum()
    assert notes == [f"shared515 has {len(chosen)} images here, 515 are published"]
    assert not hand_made().is_nsd
