"""Kernels of many images are made once and kept beside their tokens, and none of others is ever read."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from synbrain.data.dataset import load_dataset
from synbrain.features.store import open_tokens
from synbrain.features.tokens import TokenSet, pairs_of
from synbrain.linear import plain
from synbrain.linear.config import LinearPathConfig
from synbrain.linear.fit import fit_linear_path
from synbrain.simulate.example import toy_dataset


@pytest.fixture
def tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TokenSet:
    """Of a dataset whose images count as many."""
    monkeypatch.setattr(plain, "MANY_IMAGES", 1)
    shutil.copytree(toy_dataset().path, tmp_path / "d", ignore=shutil.ignore_patterns("kernels"))
    return open_tokens(load_dataset(tmp_path / "d"), "pixels")


def kept(folder: Path) -> list[Path]:
    return sorted(folder.glob("tokens/pixels/kernels/*"))


def nothing_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise AssertionError("a kernel was made again")

    monkeypatch.setattr(plain, "add_gram", fails)


def test_a_kernel_is_made_once(tokens: TokenSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = tokens.read("grid4").reshape(len(tokens), -1)
    x -= x.mean(axis=0)
    first = plain.token_kernel(tokens, "grid4")
    assert np.allclose(first[1].numpy(), x @ x.T, atol=1e-3)
    assert len(kept(tmp_path / "d")) == 1
    with monkeypatch.context() as inside:
        nothing_is_made(inside)
        means, kernel = plain.token_kernel(tokens, "grid4")
    assert np.array_equal(means, first[0])
    assert torch.equal(kernel, first[1])


def test_other_images_have_a_kernel_of_their_own(tokens: TokenSet, tmp_path: Path) -> None:
    plain.token_kernel(tokens, "grid4")
    some = tokens.take(np.arange(7, len(tokens)))
    _, kernel = plain.token_kernel(some, "grid4")
    assert len(kernel) == len(some)
    assert len(kept(tmp_path / "d")) == 1  # in place of the first
    shuffled = tokens.take(np.arange(len(tokens))[::-1].copy())
    assert torch.equal(plain.token_kernel(shuffled, "grid4")[1].argmax(dim=1), torch.arange(len(tokens)))


def test_tokens_that_are_made_again_have_another_kernel(tokens: TokenSet, tmp_path: Path) -> None:
    before = plain.token_kernel(tokens, "grid4")[1]
    folder = tmp_path / "d" / "tokens" / "pixels"
    stored = np.load(folder / "grid4.npy")
    dataset = load_dataset(tmp_path / "d")
    facts = (folder / "tokens.json").read_text()
    sha = open_tokens(dataset, "pixels").files["grid4"].sha256
    np.save(folder / "grid4.npy", 2 * stored)
    (folder / "tokens.json").write_text(facts.replace(sha, "0" * 64))  # as writing them anew does
    after = plain.token_kernel(open_tokens(dataset, "pixels"), "grid4")[1]
    assert torch.allclose(after, 4 * before, rtol=1e-3)


def test_a_broken_file_is_made_again(tokens: TokenSet, tmp_path: Path) -> None:
    first = plain.token_kernel(tokens, "grid4")[1]
    file = kept(tmp_path / "d")[0]
    file.write_bytes(file.read_bytes()[:100])
    assert torch.equal(plain.token_kernel(tokens, "grid4")[1], first)


def test_where_nothing_can_be_written_nothing_is_kept(tokens: TokenSet, tmp_path: Path) -> None:
    (tmp_path / "d" / "tokens" / "pixels" / "kernels").write_text("in the way")
    assert len(plain.token_kernel(tokens, "grid4")[1]) == len(tokens)


def test_the_linear_path_and_ridge_share_it(
    tokens: TokenSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fit is the same function as without, and what comes after it makes no kernel."""
    pairs = pairs_of(load_dataset(tmp_path / "d"), tokens, "train")
    path = fit_linear_path(pairs, LinearPathConfig()).path
    assert len(kept(tmp_path / "d")) == 1
    with monkeypatch.context() as inside:
        nothing_is_made(inside)
        plain.token_kernel(pairs.tokens, "grid4")
    monkeypatch.setattr(plain, "MANY_IMAGES", 10**6)
    alone = fit_linear_path(pairs, LinearPathConfig()).path
    shown = tokens.take(np.arange(20))
    assert np.allclose(path.predict(shown), alone.predict(shown), atol=1e-3)
