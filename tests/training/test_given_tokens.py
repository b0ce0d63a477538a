"""Tokens that a user brings are told apart by the file that they came in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from synbrain import adapt, train
from synbrain.data.dataset import Dataset
from synbrain.decoding.targets import TokenTargets
from synbrain.errors import SynBrainWarning
from synbrain.features.options import FeatureOptions
from synbrain.features.store import make_tokens, open_tokens
from synbrain.model.synbrain import SynBrain
from synbrain.simulate.example import toy_dataset
from synbrain.training.options import AdaptOptions, TrainOptions

FAST: dict[str, Any] = {"networks": False, "linear": {"n_folds": 3, "windows": 0, "blur": 0.0}}
FEW = AdaptOptions(budget=20, by="images", **FAST)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Two networks' tokens of the pictures, of one shape; and their names."""
    names = toy_dataset().images["name"].astype(str)
    (tmp_path / "names.txt").write_text("\n".join(names) + "\n")
    for i in range(2):
        np.save(tmp_path / f"{i}.npy", np.random.default_rng(i).normal(size=(len(names), 4, 3)))
    return [tmp_path / "0.npy", tmp_path / "1.npy", tmp_path / "names.txt"]


def store(dataset: Dataset, file: Path, names: Path, layer: str = "final", overwrite: bool = False) -> None:
    options = FeatureOptions(encoder="mine", tokens=file, names=names, layers=[layer])
    make_tokens(dataset, options, overwrite=overwrite)


def test_tokens_of_another_file_than_a_models_are_noted(tmp_path: Path, files: list[Path]) -> None:
    a, b, names = files
    first, second = (toy_dataset(tmp_path / str(seed), seed) for seed in range(2))
    for dataset in (first, second):
        store(dataset, a, names)
    options = TrainOptions(encoder="mine", **FAST)
    train([first, second], options)  # one file: one encoder in both
    run = train([first], options).save_pretrained(tmp_path / "run")
    model = SynBrain.from_pretrained(run)
    targets = TokenTargets.fit([open_tokens(first, "mine")], "final", grid=2, components=2)
    store(first, b, names, layer="more")  # a layer that the run does not read changes nothing
    tokens = open_tokens(first, "mine")
    model.tokens(tokens)
    targets.of(tokens)
    assert adapt(model, second, FEW).config.given_tokens == model.config.given_tokens

    store(second, b, names, overwrite=True)
    other = open_tokens(second, "mine")
    assert (other.encoder, other.digest, other.shapes["final"]) == ("mine", tokens.digest, (4, 3))
    noted = r"tokens of mine \(layer final\) come from another file than those of "
    with pytest.warns(SynBrainWarning, match=noted + "the run"):
        model.tokens(other)
    with pytest.warns(SynBrainWarning, match=noted + "the run"):
        adapt(model, second, FEW)
    with pytest.warns(SynBrainWarning, match=noted):
        train([first, second], TrainOptions(encoder="mine", layers=["final"], **FAST))
    with pytest.warns(SynBrainWarning, match=noted + "the decoder"):
        targets.of(other)
