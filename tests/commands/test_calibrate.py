"""``synbrain calibrate``: the noise changes, the mean does not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from synbrain import TrainOptions, train
from synbrain.cli import main
from synbrain.data.dataset import Dataset, load_dataset
from synbrain.data.space import VoxelSpace
from synbrain.errors import SynBrainError, SynBrainWarning
from synbrain.linear.path import LinearPath
from synbrain.model.parts import SubjectPart
from synbrain.model.synbrain import SynBrain
from synbrain.simulate.example import toy_dataset
from synbrain.training.calibrate import calibrate


def test_the_noise_is_refitted_and_the_mean_kept(run: Path, dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "calibrated"
    assert main(["calibrate", str(run), str(dataset), "--out", str(out)]) == 0
    old, new = SynBrain.from_pretrained(run), SynBrain.from_pretrained(out)
    picture = np.zeros((1, 8, 8, 3), dtype=np.uint8)
    np.testing.assert_array_equal(new.predict(picture), old.predict(picture))
    assert old.subject().noise is None
    sd = np.sqrt(new.subject().noise.noise_variance)
    np.testing.assert_allclose(sd, np.arange(1, len(sd) + 1), rtol=0.25)
    assert new.sample(picture, 5).std(axis=0).min() > 0
    assert "told apart by | repeats" in (out / "README.md").read_text()


def test_an_existing_run_and_other_voxels_are_refused(
    run: Path, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["calibrate", str(run), str(dataset), "--out", str(run)]) == 2
    assert "--overwrite" in capsys.readouterr().err
    model = SynBrain.from_pretrained(run)
    part = model.subject()
    fewer = SubjectPart(
        "s", VoxelSpace(n_voxels=3), part.unit, part.response_mean[:3], part.response_sd[:3],
        linear=LinearPath(part.linear.projections, part.linear.mixing[:, :3], part.linear.intercept[:3],
                          part.linear.shapes, {}),
    )  # fmt: skip
    other = SynBrain(model.config, {"s": fewer}).save_pretrained(tmp_path / "other")
    assert main(["calibrate", str(other), str(dataset), "--out", str(tmp_path / "o2")]) == 2
    assert "6 units" in capsys.readouterr().err
    assert not (tmp_path / "o2").exists()


def test_errors_of_the_mean_are_kept_where_the_mean_has_seen_the_images(run: Path, dataset: Path) -> None:
    recordings = load_dataset(dataset)
    first = calibrate(SynBrain.from_pretrained(run), recordings)
    again = calibrate(first, recordings)
    elsewhere = calibrate(first, recordings, fitted_on_other_images=True)
    of = [model.subject().noise for model in (first, again, elsewhere)]
    assert [noise.record.error_kept for noise in of] == [False, True, False]
    assert of[1].error is of[0].error
    assert of[1].record.coverage_90 is None
    assert of[2].record.coverage_90 == pytest.approx(0.9, abs=0.05)
    # means that saw their images say nothing of trials; beside others few repeats are drawn together
    np.testing.assert_array_equal(of[1].trial.base, of[0].trial.base)
    np.testing.assert_allclose(of[1].noise_variance, of[2].noise_variance, rtol=0.1)


def trained_on(dataset: Dataset) -> SynBrain:
    return train([dataset], TrainOptions(encoder="pixels", networks=False))


def test_images_that_the_mean_has_seen_are_no_other_ones(tmp_path: Path) -> None:
    recordings = toy_dataset(tmp_path / "toy")
    model = trained_on(recordings)
    again = calibrate(model, recordings)
    assert again.subject().noise.record.error_kept
    assert again.report == model.report, "figures of the mean, which is the same"
    with pytest.raises(SynBrainError, match="the run was trained on 40 of 40 training images"):
        calibrate(model, recordings, fitted_on_other_images=True)


def test_other_images_are_known_without_a_word(tmp_path: Path) -> None:
    """The test images in the part of training images, and the other way round: none was seen."""
    recordings = toy_dataset(tmp_path / "toy")
    turned = recordings.trials["split"].map({"train": "test", "test": "train"})
    others = replace(recordings, trials=recordings.trials.assign(split=turned))
    refitted = calibrate(trained_on(recordings), others).subject().noise
    assert not refitted.record.error_kept
    assert refitted.record.coverage_90 is not None


def test_trials_of_images_shown_once_say_nothing_around_a_mean_that_saw_them(tmp_path: Path) -> None:
    """Residuals in sample are too small: trial noise of .79 where it was 1 (60 units, 200 images)."""
    recordings = toy_dataset(tmp_path / "toy")
    once = recordings.trials["split"].mask(recordings.trials["repeat"] > 0, "unused")
    single = replace(recordings, trials=recordings.trials.assign(split=once))
    with pytest.raises(SynBrainError, match="are repeated, and the mean was fitted on them"):
        calibrate(trained_on(recordings), single)


def test_without_an_older_noise_the_error_of_the_mean_is_said_to_be_unknown(tmp_path: Path) -> None:
    recordings = toy_dataset(tmp_path / "toy")
    model = trained_on(recordings)
    ((name, part),) = model.subjects.items()
    bare = SynBrain(model.config, {name: replace(part, noise=None)})
    with pytest.warns(SynBrainWarning, match="intervals are too narrow"):
        made = calibrate(bare, recordings)
    assert made.subject().noise.record.coverage_90 is None
