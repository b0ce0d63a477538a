"""Marks of images: each file is read once, and again where it changed."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from synbrain.data import marks
from synbrain.data.marks import image_marks
from synbrain.simulate.example import toy_dataset


def test_pictures_are_read_once_until_they_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = toy_dataset(tmp_path / "toy")
    every = np.arange(dataset.n_images)
    read: list[Path] = []
    digest = marks.digest
    monkeypatch.setattr(marks, "digest", lambda path: read.append(path) or digest(path))
    first = image_marks(dataset, every)
    assert len(read) == dataset.n_images
    assert image_marks(dataset, every) == first
    assert len(read) == dataset.n_images
    changed = dataset.stimulus_path() / str(dataset.images["name"].iloc[3])
    before = changed.stat()
    Image.new("RGB", (8, 8), (1, 2, 3)).save(changed)
    os.utime(changed, ns=(before.st_atime_ns, before.st_mtime_ns + 1000))
    again = image_marks(dataset, every)
    assert read[dataset.n_images :] == [changed]
    assert [row for row in every if again[row] != first[row]] == [3]
