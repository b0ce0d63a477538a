"""What can be wrong between datasets: one recording twice, and pictures that only people would know again.

A model of several datasets is not trained on a test image of any of them. Images are told apart by the bytes
of their files (:mod:`synbrain.data.marks`): a test image of one dataset that another one stores in another
size or encoding is not known as the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, permutations

import numpy as np

from synbrain.arrays import Float32
from synbrain.check import sessions as check_sessions
from synbrain.check.report import CheckReport, Line
from synbrain.data.dataset import Dataset
from synbrain.data.marks import image_marks
from synbrain.describe import counted
from synbrain.errors import SynBrainError
from synbrain.prepare.pictures import FINE_ALIKE, fine_fingerprint, fingerprint, lookalikes
from synbrain.progress import track

SHARED_VOXELS = 0.1  # share of equal voxel courses that makes two datasets one recording
MOST_IMAGES = 50_000  # that are decoded: a few minutes


def check_between(datasets: Sequence[Dataset], show_progress: bool = False) -> CheckReport:
    """Whether two datasets hold the same recording, or test images of one are training images of another.

    Args:
        datasets: two or more.
        show_progress: show a bar while pictures are read.
    """
    return CheckReport("between datasets", [*_recordings(datasets), *_pictures(datasets, show_progress)])


def _recordings(datasets: Sequence[Dataset]) -> list[Line]:
    prints = [check_sessions.voxel_fingerprints(dataset) for dataset in datasets]
    lines = []
    for (one, a), (two, b) in combinations(zip(datasets, prints, strict=True), 2):
        share = check_sessions.same_recording(a, b)
        if share > SHARED_VOXELS:
            text = f"{one.path} and {two.path} hold the same recording ({share:.0%} of voxels)"
            lines.append(Line("duplicate subjects", "fault", text))
    text = f"{len(datasets)} datasets hold different recordings"
    return lines or [Line("duplicate subjects", "ok", text)]


def _pictures(datasets: Sequence[Dataset], show_progress: bool) -> list[Line]:
    name = "shared pictures"
    in_folders = [dataset for dataset in datasets if dataset.info.stimuli.kind == "folder"]
    if len(in_folders) < 2 or sum(dataset.n_images for dataset in in_folders) > MOST_IMAGES:
        return []  # pictures of one HDF5 file are known by their rows
    try:
        seen = [_Seen(dataset, show_progress) for dataset in in_folders]
    except SynBrainError as error:
        return [Line(name, "not tested", error.problem)]
    lines = []
    for one, two in permutations(seen, 2):
        pairs = one.alike_in(two)
        if pairs:
            shown = ", ".join(f"{a} ~ {b}" for a, b in pairs[:3]) + (", ..." if len(pairs) > 3 else "")
            n = counted(len({a for a, _ in pairs}), "test image of", "test images of")
            text = f"{n} {one.dataset.path} look like training images of {two.dataset.path} in other files: "
            lines.append(Line(name, "fault", text + shown))
    return lines or [Line(name, "ok", "no test image of one is a training image of another in another file")]


class _Seen:
    """The pictures of a dataset, looked at once."""

    def __init__(self, dataset: Dataset, show_progress: bool) -> None:
        self.dataset, self.names = dataset, dataset.images["name"].astype(str).tolist()
        rows = track(
            range(dataset.n_images), f"look at {dataset.info.name}", unit="image", show=show_progress
        )
        self.prints: Float32 = np.stack([fingerprint(dataset.load_image(row)) for row in rows])
        self.marks = image_marks(dataset, np.arange(dataset.n_images))

    def alike_in(self, other: _Seen) -> list[tuple[str, str]]:
        """Test images of this one and training images of the other that look alike and are other files."""
        test, train = self.dataset.image_rows("test"), other.dataset.image_rows("train")
        pairs = lookalikes(self.prints[test], other.prints[train])
        places = [(int(test[i]), int(train[j])) for i, j in pairs]
        return [
            (self.names[a], other.names[b])
            for a, b in places
            if self.marks[a] != other.marks[b] and float(self._fine(a) @ other._fine(b)) >= FINE_ALIKE
        ]

    def _fine(self, row: int) -> Float32:
        return fine_fingerprint(self.dataset.load_image(row))
