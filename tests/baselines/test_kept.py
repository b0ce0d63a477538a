"""Ridge's predictions are kept for the same data, and for no other."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from synbrain.baselines.kept import ridge_predictions
from synbrain.baselines.ridge import Ridge
from synbrain.data.dataset import load_dataset
from synbrain.features.store import open_tokens
from synbrain.features.tokens import Pairs, split_pairs
from synbrain.linear import plain
from synbrain.simulate.example import toy_dataset


@pytest.fixture
def pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Pairs, Pairs]:
    """Training and test images of a dataset whose images count as many."""
    monkeypatch.setattr(plain, "MANY_IMAGES", 1)
    shutil.copytree(toy_dataset().path, tmp_path / "d", ignore=shutil.ignore_patterns("kernels"))
    dataset = load_dataset(tmp_path / "d")
    return split_pairs(dataset, open_tokens(dataset, "pixels"))


def test_the_second_call_fits_nothing(pairs: tuple[Pairs, Pairs], monkeypatch: pytest.MonkeyPatch) -> None:
    train, test = pairs
    first = ridge_predictions(train, test.tokens)
    assert np.array_equal(first, Ridge().fit(train).predict(test.tokens))
    monkeypatch.delattr(Ridge, "fit")
    assert np.array_equal(ridge_predictions(train, test.tokens), first)


def test_other_responses_images_and_seeds_are_fitted(pairs: tuple[Pairs, Pairs]) -> None:
    train, test = pairs
    ridge_predictions(train, test.tokens)
    fewer = train.take(np.arange(train.n_images // 2))
    doubled = replace(train, responses=2 * np.asarray(train.responses))
    alike = replace(train, tokens=replace(train.tokens, settled=np.arange(train.n_images) // 8))
    others = [(alike, test.tokens, 0), (doubled, test.tokens, 0), (fewer, test.tokens, 0)]
    others.append((train, train.tokens, 1))
    for other, tokens, seed in others:
        expected = Ridge().fit(other, seed=seed).predict(tokens)
        assert np.array_equal(ridge_predictions(other, tokens, seed=seed), expected)


def test_a_broken_file_is_made_again(pairs: tuple[Pairs, Pairs], tmp_path: Path) -> None:
    train, test = pairs
    first = ridge_predictions(train, test.tokens)
    (file,) = (tmp_path / "d").glob("tokens/pixels/kernels/ridge-*.npy")
    file.write_bytes(file.read_bytes()[:50])
    assert np.array_equal(ridge_predictions(train, test.tokens), first)
