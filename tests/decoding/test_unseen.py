"""Decoders are chosen by images that the maker of their synthetic trials did not see."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fixtures.colours import linear_run, make_dataset
from synbrain import Dataset, SynBrain
from synbrain.data.marks import image_marks, packed, unpacked
from synbrain.decoding.augment import augment
from synbrain.decoding.experiments.arms import Arms, Cell
from synbrain.decoding.experiments.curve import augmentation_curve
from synbrain.decoding.options import AugmentOptions, CurveOptions, DecoderOptions
from synbrain.decoding.subjects import decoding_data
from synbrain.decoding.train import train_decoder
from synbrain.decoding.unseen import note_seen
from synbrain.errors import SynBrainError, SynBrainWarning
from synbrain.features import look_alikes

RIDGE = DecoderOptions(method="ridge", encoder="pixels", components=8)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_dataset(tmp_path_factory.mktemp("unseen"), "first", 30, 5)  # no two pictures look alike


def run_that_saw(dataset: Dataset, rows: np.ndarray) -> SynBrain:
    run = linear_run(dataset)
    saw = packed(image_marks(dataset, rows))
    return SynBrain(run.config.model_copy(update={"trained_images": saw}), run.subjects)


@pytest.mark.parametrize("seed", [0, 1])
def test_validation_images_are_those_that_the_run_did_not_see(dataset: Dataset, seed: int) -> None:
    train = dataset.image_rows("train")
    left = train[[3, 8, 20, 21, 40]]
    run = run_that_saw(dataset, np.setdiff1d(train, left))
    options = RIDGE.model_copy(update={"seed": seed})
    data = decoding_data([dataset], options, run_images=run.config.trained_images)
    assert data.validation_images == set(image_marks(dataset, left))  # 5 of 48 are a tenth
    assert data.seen == ()
    assert not data.validation_images & unpacked(run.config.trained_images)
    held = data.subjects[0].validation
    assert held.tokens.rows.tolist() == left.tolist()
    assert not np.isin(data.subjects[0].train.tokens.rows, left).any()


def test_versions_of_a_picture_that_the_run_saw_do_not_choose(tmp_path: Path) -> None:
    """Every picture comes twice, a little darker: the run saw one version of the first three."""
    twice = make_dataset(tmp_path, "twice", 12, 1, versions=2)
    train = twice.image_rows("train")
    left = train[[0, 2, 4, 10, 11, 20, 21, 30, 31]]
    run = run_that_saw(twice, np.setdiff1d(train, left))
    data = decoding_data([twice], RIDGE, run_images=run.config.trained_images)
    held = data.subjects[0].validation.tokens.rows
    assert set(held.tolist()) <= set(train[[10, 11, 20, 21, 30, 31]].tolist())
    assert not set((held // 2).tolist()) & set((data.subjects[0].train.tokens.rows // 2).tolist())
    few = RIDGE.model_copy(update={"budget": 16, "by": "images"})
    data = decoding_data([twice], few, run_images=run.config.trained_images)
    held = data.subjects[0].validation.tokens.rows
    kin = np.flatnonzero(np.isin(np.arange(twice.n_images) // 2, held // 2))
    assert data.validation_images == set(image_marks(twice, kin))


def test_without_synthetic_trials_only_images_of_the_budget_are_compared(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared = []
    families = look_alikes.families
    counted = lambda layers, rows: compared.append(len(rows)) or families(layers, rows)  # noqa: E731
    monkeypatch.setattr(look_alikes, "families", counted)
    few = RIDGE.model_copy(update={"budget": 16, "by": "images"})
    plain = decoding_data([dataset], few)
    assert set(compared) == {16}
    unsaid = decoding_data([dataset], few, run_images="")  # trials are to come from a run that does not say
    assert len(dataset.image_rows("train")) in compared
    assert plain.validation_images == unsaid.validation_images


def test_images_that_it_saw_are_named(dataset: Dataset) -> None:
    train = dataset.image_rows("train")
    run = run_that_saw(dataset, train[2:])  # two left out are fewer than half of five
    data = decoding_data([dataset], RIDGE, run_images=run.config.trained_images)
    assert data.n_validation_images == 5
    assert data.seen is not None
    assert len(data.seen) >= 3
    assert set(data.seen) <= set(dataset.images["name"])
    with pytest.warns(
        SynBrainWarning, match=rf"saw {len(data.seen)} of 5 validation.*{data.seen[0]}.*leave-out"
    ):
        note_seen(5, data.seen)
    with pytest.warns(SynBrainWarning, match="does not say"):
        note_seen(5, decoding_data([dataset], RIDGE).seen)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        note_seen(5, ())


def test_no_arm_shows_a_validation_image(dataset: Dataset) -> None:
    run = run_that_saw(dataset, dataset.image_rows("train")[5:])
    data = decoding_data([dataset], RIDGE, run_images=run.config.trained_images)
    trials, _ = Arms(run, dataset, dataset).trials(Cell("calibrated", 0.2, 0), data)
    assert trials.n_trials == 150  # the images are used again
    assert trials.n_images == 43
    assert not data.validation_images & set(image_marks(dataset, trials.tokens.rows))
    with pytest.raises(SynBrainError, match="every usable image"):
        Arms(run, dataset, dataset).trials(
            Cell("calibrated", 0.2, 0),
            replace(data, validation_images=frozenset(image_marks(dataset, np.arange(60)))),
        )


def test_a_synthetic_dataset_knows_what_its_run_saw(dataset: Dataset, tmp_path: Path) -> None:
    left = dataset.image_rows("train")[:5]
    run = run_that_saw(dataset, dataset.image_rows("train")[5:])
    made = augment(run, dataset, AugmentOptions(hours=0.2), out=tmp_path / "synthetic")
    assert made.n_images == 48  # it was made before anyone chose validation images
    data = decoding_data([dataset], RIDGE, made)
    assert data.validation_images == set(image_marks(dataset, left))
    synthetic = data.subjects[0].synthetic
    assert synthetic is not None
    assert synthetic.n_images == data.record["n_synthetic_images"] == 43
    assert not data.validation_images & set(image_marks(made, synthetic.tokens.rows))
    with warnings.catch_warnings():
        warnings.simplefilter("error", SynBrainWarning)
        decoder = train_decoder([dataset], RIDGE, augment=made, out=tmp_path / "decoder")
    assert "trained_images" not in (decoder.config.synthetic or {})


def test_the_curve_says_what_the_run_saw(dataset: Dataset, tmp_path: Path) -> None:
    options = CurveOptions.model_validate(
        RIDGE.model_dump()
        | {"budget": "all", "hours": [0, 0.2], "arms": ["calibrated"], "weights": [0, 0.5], "seeds": 1}
    )
    clean = run_that_saw(dataset, dataset.image_rows("train")[5:])
    about = augmentation_curve(clean, dataset, options, out=tmp_path / "clean")["about"]
    assert about["validation_images"] == 5
    assert about["validation_images_the_run_saw"] == []
    nosy = run_that_saw(dataset, dataset.image_rows("train"))
    with pytest.warns(SynBrainWarning, match="saw 5 of 5"):
        about = augmentation_curve(nosy, dataset, options, out=tmp_path / "nosy")["about"]
    assert len(about["validation_images_the_run_saw"]) == 5
