from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from synbrain.data.dataset import Dataset
from synbrain.errors import SynBrainError
from synbrain.features.tokens import Pairs, TokenFile, TokenSet, pairs_of


def numbered(n: int) -> TokenSet:
    return TokenSet("e", "d", {"a": np.arange(n, dtype=np.float16).reshape(n, 1, 1)}, np.arange(n))


@pytest.mark.parametrize(("split", "images"), [("train", [0, 1, 2, 3, 4]), ("test", [5, 6])])
def test_each_trial_meets_the_tokens_of_its_image(dataset: Dataset, split: str, images: list[int]) -> None:
    pairs = pairs_of(dataset, numbered(7), split)  # type: ignore[arg-type]
    assert pairs.tokens.read("a")[:, 0, 0].tolist() == images
    assert pairs.n_trials == 2 * len(images)
    assert pairs.n_voxels == 3
    shown = pairs.tokens.read("a")[pairs.image_of_trial, 0, 0]
    np.testing.assert_array_equal(shown, dataset.trials["image"].to_numpy()[pairs.trials])
    np.testing.assert_array_equal(pairs.trial_responses(), dataset.responses[pairs.trials])


def test_tokens_of_another_number_of_images_are_refused(dataset: Dataset) -> None:
    with pytest.raises(SynBrainError, match=r"6 token rows for 7 images.*synbrain features"):
        pairs_of(dataset, numbered(6), "train")


def test_an_empty_split_is_refused(dataset: Dataset) -> None:
    no_test = replace(dataset, trials=dataset.trials.assign(split="train"))
    with pytest.raises(SynBrainError, match="no test images"):
        pairs_of(no_test, numbered(7), "test")


def test_a_digest_sees_every_trial() -> None:
    """Of 700 trials 500 were looked at, so that a training went on with other responses."""
    rng = np.random.default_rng(0)
    responses = rng.standard_normal((700, 2)).astype(np.float32)
    trials = np.arange(700)
    pairs = Pairs(numbered(7), responses, trials, trials % 7)
    for trial in (0, 3, 411, 699):
        mended = responses.copy()
        mended[trial] += 1
        assert replace(pairs, responses=mended).digest != pairs.digest
    assert replace(pairs, responses=responses.copy()).digest == pairs.digest


def test_a_digest_sees_tokens_of_other_pictures() -> None:
    """Pictures that were replaced and encoded again: encoder and rows are the same, the tokens are not."""
    responses, trials = np.ones((7, 2), dtype=np.float32), np.arange(7)
    before, after = (
        replace(numbered(7), files={"a": TokenFile(Path("tokens"), "a", sha256=of)}) for of in ("1", "2")
    )
    first = Pairs(before, responses, trials, trials)
    assert first.digest != replace(first, tokens=after).digest
    assert before.content != after.content
