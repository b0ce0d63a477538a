"""prepare nsd cut short, on a full disk, by two workers and onto what stands there already."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from synbrain.data.dataset import Dataset, load_dataset
from synbrain.data.scaling import scale_session as scaling_of_session
from synbrain.errors import SynBrainError
from synbrain.prepare import betas as reader
from synbrain.prepare import sessions
from synbrain.prepare.nsd.options import NsdOptions
from synbrain.prepare.nsd.prepare import prepare_nsd

Folder = Callable[[Path, int], Path]
REAL = reader.read_masked


class Counting:
    """``read_masked`` that notes the files read and is interrupted at one of them."""

    def __init__(self, stop_at: str | None = None) -> None:
        self.read: list[str] = []
        self.stop_at = stop_at

    def __call__(self, about: reader.BetaFile, index: np.ndarray) -> Any:
        if self.stop_at is not None and self.stop_at in about.path.name:
            raise KeyboardInterrupt
        self.read.append(about.path.name)
        return REAL(about, index)


def same(a: Dataset, b: Dataset) -> bool:
    return all(
        (a.path / name).read_bytes() == (b.path / name).read_bytes()
        for name in ("responses.npy", "trials.parquet", "images.parquet", "checksums.json")
    )


@pytest.mark.parametrize("scaling", ["percent", "session-zscore"])
def test_interrupted_run_goes_on_at_the_session(
    scaling: Any, nsd_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "new" / "out"
    monkeypatch.setattr(reader, "read_masked", Counting(stop_at="session03"))
    with pytest.raises(KeyboardInterrupt):
        prepare_nsd(nsd_tree, out, subject=1, options=NsdOptions(scaling=scaling))
    assert not out.exists()
    second = Counting()
    monkeypatch.setattr(reader, "read_masked", second)
    made = prepare_nsd(nsd_tree, out, subject=1, options=NsdOptions(scaling=scaling))
    assert second.read == ["betas_session03.nii.gz"]
    assert sorted(path.name for path in out.parent.iterdir()) == ["out"]
    assert not (out / "done").exists()
    assert same(
        made,
        prepare_nsd(nsd_tree, tmp_path / "new" / "at_once", subject=1, options=NsdOptions(scaling=scaling)),
    )


def test_changed_session_or_options_are_not_taken_from_the_interrupted_run(
    own_nsd_tree: Path, nsd_betas: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil_betas: Any
) -> None:
    def interrupt() -> None:
        monkeypatch.setattr(reader, "read_masked", Counting(stop_at="session03"))
        with pytest.raises(KeyboardInterrupt):
            prepare_nsd(own_nsd_tree, tmp_path / "out", subject=1)

    interrupt()
    again = Counting()
    monkeypatch.setattr(reader, "read_masked", again)
    spoil_betas(nsd_betas(own_nsd_tree, 1) / "betas_session02.nii.gz", lambda volume: volume[::-1])
    prepare_nsd(own_nsd_tree, tmp_path / "out", subject=1)
    assert again.read == ["betas_session02.nii.gz", "betas_session03.nii.gz"]
    (tmp_path / "out").rename(tmp_path / "first")
    interrupt()
    again = Counting()
    monkeypatch.setattr(reader, "read_masked", again)
    made = prepare_nsd(own_nsd_tree, tmp_path / "out", subject=1, options=NsdOptions(scaling="reference"))
    assert len(again.read) == 3
    assert made.info.unit == "percent signal change x 0.15"


def test_full_disk_is_told_and_finished_sessions_are_kept(
    nsd_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space")

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        with pytest.raises(SynBrainError, match="disk is full"):
            prepare_nsd(nsd_tree, tmp_path / "out", subject=1)
    assert list(tmp_path.iterdir()) == []
    real, calls = scaling_of_session, []

    def fills_later(*given: Any) -> Any:
        calls.append(given)
        if len(calls) == 3:
            full()
        return real(*given)

    monkeypatch.setattr(sessions, "scale_session", fills_later)
    with pytest.raises(SynBrainError, match="disk is full"):
        prepare_nsd(nsd_tree, tmp_path / "out", subject=1)
    assert not (tmp_path / "out").exists()
    prepare_nsd(nsd_tree, tmp_path / "out", subject=1)
    assert len(calls) == 4  # the third session again, and nothing else


def test_two_workers_give_the_same(nsd_tree: Path, tmp_path: Path) -> None:
    one = prepare_nsd(nsd_tree, tmp_path / "one", subject=1, workers=1)
    assert same(one, prepare_nsd(nsd_tree, tmp_path / "two", subject=1, workers=2))


def test_output_that_exists_is_kept(nsd_tree: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepare_nsd(nsd_tree, out, subject=1)
    with pytest.raises(SynBrainError, match="exists already"):
        prepare_nsd(nsd_tree, out, subject=2)
    assert load_dataset(out).info.subject == "subj01"
    assert prepare_nsd(nsd_tree, out, subject=2, overwrite=True).info.subject == "subj02"
