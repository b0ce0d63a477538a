"""Runs that do not belong beside a dataset, and categories of other images, are told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fixtures.colours import linear_run, make_dataset
from synbrain import Dataset, SynBrain
from synbrain.analysis.consistency_report import _shuffled, consistency
from synbrain.analysis.options import ConsistencyOptions
from synbrain.data.space import Atlas, VoxelSpace
from synbrain.errors import SynBrainError, SynBrainWarning


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    made = make_dataset(tmp_path_factory.mktemp("consistency"), "first", 30, 1)
    halves = Atlas(np.repeat([1, 2], 15).astype(np.int32), {1: "front", 2: "back"}, "made up")
    return replace(made, space=VoxelSpace(n_voxels=30, atlases={"halves": halves}))


def changed(run: SynBrain, **to: object) -> SynBrain:
    (part,) = run.subjects.values()
    part = replace(part, **to)
    return SynBrain(run.config, {part.name: part})


def test_shuffled_images_are_paired_with_others() -> None:
    """A permutation left some in their place: of few images the control was no control."""
    samples = np.arange(24.0).reshape(6, 4, 1)
    shuffled = _shuffled(samples, np.random.default_rng(0))
    assert (shuffled != samples).all()
    np.testing.assert_array_equal(np.sort(shuffled, axis=1), samples)


def test_a_run_of_another_unit_or_person(dataset: Dataset) -> None:
    run = linear_run(dataset)
    assert set(consistency(run, dataset).profiles) == {"front", "back"}
    with pytest.raises(SynBrainError, match=r"run predicts 'z-score', .* holds 'as recorded'"):
        consistency(changed(run, unit="z-score"), dataset)
    with pytest.warns(SynBrainWarning, match="the run is of someone, .* of first: if these are two people"):
        consistency(changed(run, name="someone"), dataset)


def test_categories_of_other_images(dataset: Dataset, tmp_path: Path) -> None:
    table = tmp_path / "categories.csv"
    table.write_text("name,category\nelsewhere.png,face\n")
    with pytest.raises(SynBrainError, match=r"categories\.csv names no test image of"):
        consistency(linear_run(dataset), dataset, ConsistencyOptions(categories=table))


def test_two_other_subjects_of_one_name(dataset: Dataset) -> None:
    other = replace(dataset, info=dataset.info.model_copy(update={"name": "second"}))
    run = linear_run(dataset)
    assert consistency(run, dataset, others=[other]).others == ["second"]
    with pytest.raises(SynBrainError, match=r"datasets of one name: second, second.* --name"):
        consistency(run, dataset, others=[other, other])
