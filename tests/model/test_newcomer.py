"""What people hand over who have read one example: told with the mend, or taken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import synbrain
from synbrain import EvaluateOptions, SynBrain, TrainOptions, adapt, evaluate, train
from synbrain.data.dataset import Dataset
from synbrain.errors import SynBrainError
from synbrain.simulate.example import toy_dataset

OPTIONS = TrainOptions(encoder="pixels", networks=False)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return toy_dataset(tmp_path_factory.mktemp("toy") / "data")


@pytest.mark.parametrize("wrong", ["path", "list of paths", "nothing"])
def test_what_is_no_dataset_is_told(wrong: str, dataset: Dataset) -> None:
    given: Any = {"path": dataset.path, "list of paths": [str(dataset.path)], "nothing": []}[wrong]
    with pytest.raises(SynBrainError, match=r"load_dataset\(FOLDER\)|give at least one"):
        train(given, OPTIONS)


def test_one_dataset_and_paths_as_text_are_taken(dataset: Dataset, tmp_path: Path) -> None:
    model = train(dataset, OPTIONS, out=str(tmp_path / "run"))  # type: ignore[arg-type]
    assert SynBrain.from_pretrained(str(tmp_path / "run")).subjects.keys() == model.subjects.keys()
    options = EvaluateOptions(rows=["mean_map"], n_bootstrap=10)
    for swapped in ((str(tmp_path / "run"), dataset), (dataset, model)):
        with pytest.raises(SynBrainError, match=r"is no model: give what SynBrain\.from_pretrained"):
            evaluate(*swapped, options)  # type: ignore[arg-type]
    with pytest.raises(SynBrainError, match="is no dataset"):
        adapt(model, str(dataset.path))  # type: ignore[arg-type]


def test_a_split_that_is_none_has_no_images(dataset: Dataset) -> None:
    for rows in (dataset.image_rows, dataset.trial_rows):
        with pytest.raises(SynBrainError, match="there is no split 'Test': choose train or test"):
            rows("Test")  # type: ignore[arg-type]


def test_scores_that_are_none_are_not_none(dataset: Dataset) -> None:
    """``None`` means that a metric does not apply, not that its name was misspelled."""
    scores = evaluate(train(dataset, OPTIONS), dataset, EvaluateOptions(rows=["mean_map"], n_bootstrap=10))
    with pytest.raises(SynBrainError, match="no 'voxelr': choose among mse, "):
        scores.value("synbrain", "voxelr")
    with pytest.raises(SynBrainError, match="no 'ridge': choose among synbrain, mean_map"):
        scores.value("ridge", "voxel_r")


def test_habits_of_other_packages_are_told(dataset: Dataset, tmp_path: Path) -> None:
    model = train(dataset, OPTIONS)
    path = str(tmp_path / "seen.png")
    dataset.load_image(0).save(path)
    with pytest.raises(SynBrainError, match=r'give its column: table\["image"\]'):
        model.predict(pd.DataFrame({"image": [path]}))  # type: ignore[arg-type]
    for seed in (None, np.random.default_rng(0), 0.5):
        with pytest.raises(SynBrainError, match="give whole numbers"):
            model.sample([path], 2, seed=seed)  # type: ignore[arg-type]
    assert model.sample([path], np.int64(2), seed=np.int64(1)).shape[0] == 2  # type: ignore[arg-type]
    model.save_pretrained(tmp_path / "run")
    with pytest.raises(SynBrainError, match="overwrite=True"):
        model.save_pretrained(tmp_path / "run")


def test_public_names_are_completed() -> None:
    assert set(synbrain.__all__) <= set(dir(synbrain))
