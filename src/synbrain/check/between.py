"""What can be wrong between datasets: one recording twice, and pictures that only people would know again.

A model of several datasets is not trained on a test image of any of them, in whatever file it comes
(:mod:`synbrain.training.leakage`); here that is told before anything is fitted.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, permutations

from synbrain.check import sessions as check_sessions
from synbrain.check.report import CheckReport, Line
from synbrain.data.dataset import Dataset
from synbrain.data.known_pictures import KnownPictures, some_names
from synbrain.describe import counted
from synbrain.errors import SynBrainError

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
    if sum(dataset.n_images for dataset in datasets) > MOST_IMAGES:
        return []
    lines = []
    try:
        tested = [KnownPictures.of(one, one.image_rows("test"), show_progress) for one in datasets]
        for (one, known), (two, _) in permutations(zip(datasets, tested, strict=True), 2):
            copies = known.copied_in(two, two.image_rows("train"), show_progress)
            if len(copies):
                which = counted(len(copies), "training image of", "training images of")
                looks = "looks like a test image" if len(copies) == 1 else "look like test images"
                text = f"{which} {two.path} {looks} of {one.path} in other files: "
                lines.append(Line(name, "fault", text + some_names(two, copies)))
    except SynBrainError as error:
        return [Line(name, "not tested", error.problem)]
    return lines or [Line(name, "ok", "no test image of one is a training image of another in another file")]
