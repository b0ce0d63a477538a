"""No test image of any dataset is trained on."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from synbrain import TrainOptions, train
from synbrain.data.dataset import Dataset, SyntheticTrials, load_dataset
from synbrain.errors import SynBrainError, SynBrainWarning
from synbrain.prepare.table import prepare_table
from synbrain.simulate.example import toy_dataset
from synbrain.training.leakage import leave_out, training_images


def recorded(folder: Path, pictures: list[int], test: set[int]) -> Dataset:
    """One trial of each picture, named by its place, so that names say nothing about content."""
    (folder / "images").mkdir(parents=True)
    lines = ["image,repeat,split"]
    for place, picture in enumerate(pictures):
        pixels = np.random.default_rng(picture).integers(0, 255, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{place}.png")
        lines.append(f"{place}.png,0,{'test' if picture in test else 'train'}")
    (folder / "trials.csv").write_text("\n".join(lines) + "\n")
    rng = np.random.default_rng(0)
    np.save(folder / "responses.npy", rng.standard_normal((len(pictures), 4)).astype(np.float32))
    prepare_table(folder, folder / "dataset")
    return load_dataset(folder / "dataset")


def test_a_test_image_of_another_dataset_is_refused_or_dropped(tmp_path: Path) -> None:
    first = recorded(tmp_path / "a", [1, 2, 3, 4], test={4})
    second = recorded(tmp_path / "b", [5, 4, 6, 7], test={7})  # trains on the first one's test picture
    with pytest.raises(SynBrainError, match=r"1 training image of .*b.*--shared-test-images drop"):
        training_images([first, second])
    kept = training_images([first, second], "drop")
    assert [images.rows.tolist() for images in kept] == [[0, 1, 2], [0, 2]]


def test_equal_names_of_different_pictures_are_no_overlap(tmp_path: Path) -> None:
    first = recorded(tmp_path / "a", [1, 2, 3], test={3})
    second = recorded(tmp_path / "b", [4, 5, 6], test={4})
    assert [len(images.rows) for images in training_images([first, second])] == [2, 2]


def test_a_missing_stimulus_is_told(tmp_path: Path) -> None:
    first = recorded(tmp_path / "a", [1, 2, 3], test={3})
    second = recorded(tmp_path / "b", [4, 5, 6], test={4})
    (tmp_path / "b" / "images" / "1.png").unlink()
    with pytest.raises(SynBrainError, match=r"1 stimuli .* missing, 1\.png"):
        training_images([first, second])


def test_a_picture_under_two_names_of_one_dataset_is_refused(tmp_path: Path) -> None:
    once = recorded(tmp_path / "a", [1, 2, 3, 4], test={4})
    assert [len(images.rows) for images in training_images([once])] == [3]
    again = recorded(tmp_path / "b", [1, 2, 3, 4], test={4})
    (tmp_path / "b" / "images" / "0.png").write_bytes((tmp_path / "b" / "images" / "3.png").read_bytes())
    with pytest.raises(SynBrainError, match=r"1 training image of .*b.* is a test image of it"):
        training_images([again])


def each_its_own(rows: np.ndarray) -> np.ndarray:
    return np.arange(len(rows))


def test_versions_of_a_picture_are_left_out_together(tmp_path: Path) -> None:
    images = training_images([recorded(tmp_path / "a", list(range(1, 31)), test={30})])[0]
    kept = leave_out(images, 0.2, lambda rows: rows // 2)  # two versions of each picture
    left = np.setdiff1d(images.rows, kept.rows)
    assert 6 <= len(left) <= 7
    assert not set((left // 2).tolist()) & set((kept.rows // 2).tolist())
    with pytest.raises(SynBrainError, match="29 of 29 images left out"):
        leave_out(images, 0.1, np.zeros_like)


def test_images_left_out_are_the_same_for_every_run(tmp_path: Path) -> None:
    pictures = list(range(1, 31))
    first = recorded(tmp_path / "a", pictures, test={30})
    second = recorded(tmp_path / "b", pictures[::-1], test={30})  # other order, other names
    one, other = training_images([first, second])
    left = [set(images.marks) - set(leave_out(images, 0.1, each_its_own).marks) for images in (one, other)]
    assert left[0] == left[1]
    assert len(left[0]) == 3
    kept = leave_out(one, 0.1, each_its_own)
    assert len(kept.rows) == len(kept.marks) == 26
    assert set(one.rows) - set(kept.rows) == {one.rows[one.marks.index(mark)] for mark in left[0]}
    assert leave_out(one, 0.0, each_its_own) == one
    assert len(leave_out(one, 0.001, each_its_own).rows) == 28  # one at least
    with pytest.raises(SynBrainError, match="29 of 29 images left out"):
        leave_out(one, 0.99, each_its_own)


def test_synthetic_responses_are_not_trained_on_without_a_word(tmp_path: Path) -> None:
    recordings = toy_dataset(tmp_path / "toy")
    origin = SyntheticTrials(
        run="0" * 64,
        recipe="calibrated",
        subject="s",
        seed=0,
        kind="trial",
        hours=1,
        images_of="x",
        n_images=40,
    )
    made = replace(recordings, info=recordings.info.model_copy(update={"synthetic": origin}))
    options = TrainOptions(encoder="pixels", networks=False)
    with pytest.warns(SynBrainWarning, match="holds synthetic responses"):
        train([made], options)
    with warnings.catch_warnings():
        warnings.simplefilter("error", SynBrainWarning)
        train([recordings], options)
