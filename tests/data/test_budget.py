"""Budgets: sessions as scanned, images with all repeats, and draws for learning curves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from synbrain.data.budget import Budget, By, budget_trials, parse_budget
from synbrain.data.dataset import Dataset, DatasetInfo, Stimuli
from synbrain.data.space import VoxelSpace
from synbrain.errors import SynBrainError
from synbrain.prepare.nsd.prepare import prepare_nsd


def dataset_of(image: list[int], session: list[int], test: set[int], **fields: Any) -> Dataset:
    """A dataset in memory with one voxel."""
    trials = pd.DataFrame({"image": image, "session": session})
    trials["repeat"] = trials.groupby("image").cumcount()
    trials["split"] = np.where(trials["image"].isin(test), "test", "train")
    n_images = max(image) + 1
    info = DatasetInfo(
        name="x", subject="x", unit="x", n_trials=len(image), n_voxels=1, n_images=n_images,
        stimuli=Stimuli(kind="folder", path="."), **fields,
    )  # fmt: skip
    images = pd.DataFrame({"name": [str(i) for i in range(n_images)]})
    return Dataset(Path("x"), info, trials, images, np.zeros((len(image), 1), np.float32), VoxelSpace(1))


def test_hours_count_trials_as_scanned_and_give_training_trials() -> None:
    image = list(range(1500)) * 2
    made = dataset_of(image, list(np.repeat([0, 1, 2, 3], 750)), test={0, 749, 751})
    assert budget_trials(made, parse_budget("1h")).tolist() == list(range(1, 749))
    assert budget_trials(made, parse_budget("2h")).tolist() == [
        row for row in range(1500) if row not in (0, 749, 751)
    ]


def test_hours_take_as_many_short_sessions_as_reach_them() -> None:
    made = dataset_of(list(range(1600)), list(np.repeat(range(8), 200)), test=set())
    assert len(budget_trials(made, parse_budget("1h"))) == 800
    with pytest.raises(SynBrainError, match="1600 trials in 8 sessions, too few for 3 hours"):
        budget_trials(made, parse_budget("3h"))


def test_trials_that_were_left_out_still_count_as_scanned() -> None:
    made = dataset_of(list(range(1400)), [0] * 700 + [1] * 700, test=set(), trials_per_session=750)
    assert len(budget_trials(made, parse_budget("1h"))) == 700


def test_sessions_are_the_first_ones(nsd_tree: Path, tmp_path: Path) -> None:
    made = prepare_nsd(nsd_tree, tmp_path / "out", subject=1)
    rows = budget_trials(made, parse_budget("2"))
    chosen = made.trials.iloc[rows]
    assert set(chosen["session"]) == {0, 1}
    assert set(chosen["split"]) == {"train"}
    assert len(rows) == ((made.trials["session"] < 2) & (made.trials["split"] == "train")).sum()


def test_images_come_with_all_repeats_in_the_order_first_shown(nsd_tree: Path, tmp_path: Path) -> None:
    made = prepare_nsd(nsd_tree, tmp_path / "out", subject=1)
    rows = budget_trials(made, Budget("images", 10))
    chosen = made.trials.iloc[rows]
    assert len(rows) == 30  # image-major: 10 images x 3
    assert (chosen["image"].value_counts() == 3).all()
    train = made.trials[made.trials["split"] == "train"]
    assert set(chosen["image"]) == set(train["image"].drop_duplicates()[:10])
    assert chosen["session"].nunique() == 3  # gathered from many sessions


def test_incomplete_images_are_passed_over_without_a_seed() -> None:
    made = dataset_of([0, 1, 2, 1, 2], [0] * 5, test=set())
    assert budget_trials(made, Budget("images", 2)).tolist() == [1, 2, 3, 4]
    with pytest.raises(SynBrainError, match="2 training images with 2 repeats"):
        budget_trials(made, Budget("images", 3))
    assert len(budget_trials(made, Budget("images", 3, seed=0))) == 5


def test_drawn_images_are_nested_and_follow_the_seed() -> None:
    made = dataset_of(list(range(200)) * 2, [0] * 200 + [1] * 200, test=set(range(50)))
    small, large = (budget_trials(made, Budget("images", n, seed=3)) for n in (25, 100))
    assert len(small) == 50
    assert set(small) < set(large)
    assert not set(large % 200) & set(range(50))
    assert set(small) != set(budget_trials(made, Budget("images", 25, seed=4)))


@pytest.mark.parametrize(
    ("text", "by", "budget"),
    [
        ("1h", "session", Budget("hours", 1)),
        ("3", "session", Budget("sessions", 3)),
        ("1h", "images", Budget("images", 250)),
        (100, "images", Budget("images", 100)),
        ("all", "images", Budget("all", 1)),
    ],
)
def test_budget_as_text(text: str | int, by: By, budget: Budget) -> None:
    assert parse_budget(text, by) == budget


def test_seed_goes_to_images() -> None:
    assert parse_budget("100", "images", seed=7) == Budget("images", 100, 7)
    with pytest.raises(SynBrainError, match="takes no seed"):
        Budget("sessions", 1, seed=7)


@pytest.mark.parametrize("text", ["", "h", "0h", "0", "-1", "1.5", "half", "1h 2h"])
def test_what_is_no_budget_is_told(text: str) -> None:
    with pytest.raises(SynBrainError):
        parse_budget(text)


def test_all_is_every_training_trial() -> None:
    made = dataset_of([0, 1, 2, 0], [0, 0, 1, 1], test={1})
    assert budget_trials(made, parse_budget("all")).tolist() == [0, 2, 3]


def test_budget_without_training_trials_is_told() -> None:
    made = dataset_of([0, 1], [0, 1], test={0})
    with pytest.raises(SynBrainError, match="no training trial"):
        budget_trials(made, Budget("sessions", 1))


def test_a_dataset_of_before_the_field_keeps_its_scanned_trials() -> None:
    made = dataset_of([0, 1], [0, 0], test=set(), provenance={"trials_per_session": 750})
    assert made.info.trials_per_session == 750
