"""Pictures that somebody knows, and which pictures of a dataset are among them in another file.

A mark (:mod:`synbrain.data.marks`) is of the bytes of a file: a picture that one dataset stores as PNG and
another as JPEG has two. Their thumbnails tell that it is one.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from synbrain.arrays import Rows
from synbrain.data.dataset import Dataset
from synbrain.data.marks import BYTES, image_marks
from synbrain.data.thumbnails import METHOD, SIDE, Thumbnails, copies, thumbnail
from synbrain.describe import counted
from synbrain.errors import SynBrainError, SynBrainWarning
from synbrain.files import atomic_path, beside
from synbrain.progress import track

# Of the test images, that may look like ones that were trained on: photographs are found in two collections,
# and scenes with another object in them have nearly one thumbnail. More are a data set in other files.
FEW = 0.05
PICTURES = "pictures.safetensors"  # in the folder of a run or a decoder
METHOD_KEY = "thumbnail"  # in the metadata of both files
KEPT = "thumbnails.safetensors"  # beside a dataset's other files, made when they are first asked for


@dataclass(frozen=True, eq=False)
class KnownPictures:
    """Pictures of any datasets, each known by its mark and its thumbnail.

    Attributes:
        marks: (n,) of :func:`image_marks`, each once.
        thumbnails: (n, 32, 32) uint8.
    """

    marks: tuple[bytes, ...]
    thumbnails: Thumbnails

    @classmethod
    def of(cls, dataset: Dataset, rows: Rows, show_progress: bool = False) -> KnownPictures:
        """The images ``rows`` of a dataset."""
        marks = image_marks(dataset, rows)
        return cls.joined([cls(marks, thumbnails_of(dataset, rows, show_progress))])

    @classmethod
    def joined(cls, several: Iterable[KnownPictures]) -> KnownPictures:
        """All of them, each picture once, in the order of marks."""
        by_mark = {m: small for one in several for m, small in zip(one.marks, one.thumbnails, strict=True)}
        marks = tuple(sorted(by_mark))
        small = [by_mark[mark] for mark in marks]
        return cls(marks, np.stack(small)) if small else NO_PICTURES

    def only(self, marks: Collection[bytes]) -> KnownPictures:
        """Those with one of these marks."""
        return self._at([mark in marks for mark in self.marks])

    def copied_in(self, dataset: Dataset, rows: Rows, show_progress: bool = False) -> Rows:
        """Those of ``rows`` of ``dataset.images`` that show a known picture in another file.

        Known pictures that the dataset shows itself do not count: its own split tells those apart, and two
        of its pictures may look alike.

        Raises:
            SynBrainError: where stimuli are missing or cannot be decoded.
        """
        shown = self.shown_in(dataset, rows, show_progress)
        marks = image_marks(dataset, rows) if shown else ()
        return np.asarray(rows[[mark in shown for mark in marks]] if shown else rows[:0], dtype=np.int64)

    def shown_in(
        self, dataset: Dataset, rows: Rows, show_progress: bool = False
    ) -> dict[bytes, tuple[bytes, ...]]:
        """As :meth:`copied_in`: mark of an image -> marks of the known pictures that it shows."""
        own = set(image_marks(dataset, _shown(dataset))) if self.marks else set()
        elsewhere = self._at([mark not in own for mark in self.marks])
        if not elsewhere.marks or not len(rows):
            return {}
        marks, mine = image_marks(dataset, rows), thumbnails_of(dataset, rows, show_progress)
        shown: dict[bytes, tuple[bytes, ...]] = {}
        for i, j in copies(mine, elsewhere.thumbnails):
            shown[marks[i]] = (*shown.get(marks[i], ()), elsewhere.marks[j])
        return shown

    def with_copies(self, marks: Collection[bytes], dataset: Dataset, who: str = "") -> set[bytes]:
        """``marks``, and those of a dataset's images that show a picture of one of these in another file.

        Args:
            marks: of pictures among these.
            dataset: whose images.
            who: was trained on the pictures; then a few test images that look like them do not count
                (:func:`note_few`).
        """
        copies = self.only(marks).copied_in(dataset, _shown(dataset))
        of_test = np.intersect1d(copies, dataset.image_rows("test"))
        if who and note_few(dataset, of_test, who):
            copies = np.setdiff1d(copies, of_test)
        return set(marks).union(image_marks(dataset, copies))

    def save(self, path: Path) -> None:
        """Write them as safetensors."""
        marks = np.frombuffer(b"".join(self.marks), dtype=np.uint8).reshape(-1, BYTES)
        tensors = {"marks": marks, "thumbnails": np.ascontiguousarray(self.thumbnails)}
        with atomic_path(path) as partial:
            save_file(tensors, partial, metadata={METHOD_KEY: METHOD})

    @classmethod
    def load(cls, path: Path) -> KnownPictures:
        """Those of :meth:`save`; none where there is no such file, as with older runs."""
        if not path.exists():
            return NO_PICTURES
        tensors = load_file(path)
        return cls(tuple(mark.tobytes() for mark in tensors["marks"]), tensors["thumbnails"])

    def _at(self, chosen: list[bool]) -> KnownPictures:
        at = np.flatnonzero(chosen)
        return KnownPictures(tuple(self.marks[i] for i in at), self.thumbnails[at])


NO_PICTURES = KnownPictures((), np.zeros((0, SIDE, SIDE), dtype=np.uint8))


def thumbnails_of(dataset: Dataset, rows: Rows, show_progress: bool = False) -> Thumbnails:
    """(n, 32, 32) uint8 of the images ``rows``; each picture is decoded once and kept beside the dataset.

    A picture is known by its mark there: one that was replaced is decoded again.

    Raises:
        SynBrainError: where stimuli are missing or cannot be decoded.
    """
    marks, file = image_marks(dataset, rows), beside(dataset.path) / KEPT
    kept = _kept(file)
    known = dict(zip(kept.marks, kept.thumbnails, strict=True))
    new = {mark: int(row) for mark, row in zip(marks, rows, strict=True) if mark not in known}
    about = f"look at {dataset.info.name}"
    for mark, row in track(list(new.items()), about, unit="image", show=show_progress and bool(new)):
        known[mark] = thumbnail(dataset.load_image(row))
    if new:
        with suppress(SynBrainError):  # a read-only disk: they are made again the next time
            KnownPictures(tuple(known), np.stack(list(known.values()))).save(file)
    return np.stack([known[mark] for mark in marks]) if marks else NO_PICTURES.thumbnails


def note_few(dataset: Dataset, look_alikes: Rows, who: str) -> bool:
    """Whether so few test images look like ones trained on that they may stay; a note names them then.

    Args:
        dataset: of the test images.
        look_alikes: rows of test images that look like others in other files.
        who: was trained on those.
    """
    if len(look_alikes) > FEW * len(dataset.image_rows("test")):
        return False
    if len(look_alikes):
        which = f"test image of {dataset.path} looks", f"test images of {dataset.path} look"
        note = (
            f"{counted(len(look_alikes), *which)} like images in other files that {who} was trained on "
            f"({some_names(dataset, look_alikes)}): scores of those may be too good"
        )
        warnings.warn(note, SynBrainWarning, stacklevel=4)
    return True


def some_names(dataset: Dataset, rows: Rows, n: int = 3) -> str:
    """The names of a few images, with dots where there are more."""
    names = dataset.images["name"].astype(str).to_numpy()[rows[:n]]
    return ", ".join(names) + (", ..." if len(rows) > n else "")


def _shown(dataset: Dataset) -> Rows:
    return np.unique(dataset.trials["image"].to_numpy(dtype=np.int64))


def _kept(file: Path) -> KnownPictures:
    """What is kept beside a dataset; nothing where it is damaged, or made by another method: made again."""
    try:
        with safe_open(file, "numpy") as opened:
            method = (opened.metadata() or {}).get(METHOD_KEY)
        return KnownPictures.load(file) if method == METHOD else NO_PICTURES
    except (SafetensorError, OSError, KeyError):
        return NO_PICTURES
