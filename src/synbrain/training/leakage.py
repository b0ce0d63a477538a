"""No test image is trained on: marks and thumbnails that tell pictures apart, and what they refuse.

A mark is the same wherever the file lies: on another machine, in another dataset, under another name. Where
datasets store one picture in other encodings or sizes, their thumbnails tell. A run keeps both of the images
it was trained on and of the test images it was kept from, so that a later adaptation cannot mix the two.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from synbrain.arrays import Rows
from synbrain.data.dataset import Dataset
from synbrain.data.known_pictures import KnownPictures, some_names
from synbrain.data.marks import image_marks, unpacked
from synbrain.describe import counted
from synbrain.errors import SynBrainError, SynBrainWarning
from synbrain.features.look_alikes import least_marks
from synbrain.model.subject import seen_rows
from synbrain.model.synbrain import SynBrain
from synbrain.training.options import SharedTestImages

SHARED = "image to train on is a test image", "images to train on are test images"


@dataclass(frozen=True)
class TrainingImages:
    """Images of one dataset that may be trained on.

    Attributes:
        rows: (n_images,) rows of ``dataset.images``, ascending.
        marks: of these images.
        test_marks: of the dataset's test images.
    """

    rows: Rows
    marks: tuple[bytes, ...]
    test_marks: tuple[bytes, ...]

    def pictures_of(self, dataset: Dataset, further: Rows | None = None) -> KnownPictures:
        """These images and the test images of the dataset, whose they are; and ``further`` ones of it."""
        rows = np.union1d(self.rows, dataset.image_rows("test"))
        return KnownPictures.of(dataset, rows if further is None else np.union1d(rows, further))


def training_images(
    datasets: Sequence[Dataset],
    shared: SharedTestImages = "refuse",
    keep_out: Sequence[Dataset] = (),
    show_progress: bool = False,
) -> list[TrainingImages]:
    """Training images of each dataset that are a test image of none of them.

    Args:
        datasets: all that one model is trained on.
        shared: about training images with the content of a test image, of the same dataset or of another:
            "refuse" raises, "drop" leaves them out. Those that look like a test image of another dataset, in
            another file, are left out in either case, and a note names them.
        keep_out: further datasets, not trained on, whose test images are left out.
        show_progress: show bars while pictures are looked at for the first time.

    Raises:
        SynBrainError: where training and test images overlap and ``shared`` is "refuse".
    """
    test_marks = [image_marks(dataset, dataset.image_rows("test")) for dataset in datasets]
    forbidden = {mark for marks in test_marks for mark in marks}
    kept_out = {mark for other in keep_out for mark in image_marks(other, other.image_rows("test"))}
    tested = _test_pictures(datasets if len(datasets) > 1 else (), show_progress)
    never = _test_pictures(keep_out, show_progress)
    images = []
    for dataset, of_test in zip(datasets, test_marks, strict=True):
        rows = dataset.image_rows("train")
        marks = image_marks(dataset, rows)
        n_shared = sum(mark in forbidden for mark in marks)
        if n_shared and shared == "refuse":
            of = f"of {dataset.path}"
            both = f"training image {of} is a test image", f"training images {of} are test images"
            raise SynBrainError(
                f"{counted(n_shared, *both)} of it or of another dataset",
                "pass --shared-test-images drop to leave them out, or make one split for all datasets",
            )
        copies = tested.copied_in(dataset, rows, show_progress)
        copies = np.union1d(copies, never.copied_in(dataset, rows, show_progress))
        note_left_out(dataset, copies, "another dataset")
        gone = forbidden | kept_out | set(image_marks(dataset, copies))
        images.append(_without(gone, rows, marks, of_test))
    return images


def _test_pictures(datasets: Sequence[Dataset], show_progress: bool) -> KnownPictures:
    return KnownPictures.joined(KnownPictures.of(d, d.image_rows("test"), show_progress) for d in datasets)


def note_left_out(dataset: Dataset, copies: Rows, whose: str) -> None:
    """Say which training images look like test images: perhaps they are not, but nothing is lost by it."""
    if len(copies):
        which = f"training image of {dataset.path} looks", f"training images of {dataset.path} look"
        note = f"{counted(len(copies), *which)} like a test image of {whose} in another file"
        warnings.warn(f"{note} ({some_names(dataset, copies)}): left out", SynBrainWarning, stacklevel=4)


def adaptation_images(
    base: SynBrain, dataset: Dataset, rows: Rows, shared: SharedTestImages = "refuse"
) -> TrainingImages:
    """The images among ``rows`` that a run may be adapted on.

    Args:
        base: the base run. One that does not say which images it saw (imported, or of an older version)
            refuses nothing on its own account.
        dataset: the new subject's.
        rows: of ``dataset.images``, training images of the budget.
        shared: about those with the content of a test image of the new subject or of a base subject:
            "refuse" raises, "drop" leaves them out. Those that look like a test image of a base subject, in
            another file, are left out in either case, and a note names them.

    Raises:
        SynBrainError: a row of ``rows`` is a test image of the new subject, or shares its content with a test
            image and ``shared`` is "refuse"; or the base was trained on the new subject's test images.
    """
    test = dataset.image_rows("test")
    if np.isin(rows, test).any():
        raise SynBrainError(
            f"{counted(int(np.isin(rows, test).sum()), *SHARED)} of {dataset.path}",
            "split by image: all trials of an image belong to one split",
        )
    test_marks, marks = image_marks(dataset, test), image_marks(dataset, rows)
    seen = seen_rows(base, dataset, "test")
    if len(seen):
        raise SynBrainError(
            f"the base run was trained on {counted(len(seen), 'test image')} of {dataset.path} "
            f"({some_names(dataset, seen)})",
            f"train the base again with --keep-out {dataset.path}, or mark these images as training images",
        )
    base_test = unpacked(base.config.test_images)
    forbidden = base_test.union(test_marks)
    n_shared = sum(mark in forbidden for mark in marks)
    if n_shared and shared == "refuse":
        raise SynBrainError(
            f"{counted(n_shared, *SHARED)} of the base run's subjects or of {dataset.path}",
            "pass --shared-test-images drop to leave them out",
        )
    copies = base.known_pictures.only(base_test).copied_in(dataset, rows)
    note_left_out(dataset, copies, "the base run's subjects")
    return _without(forbidden | set(image_marks(dataset, copies)), rows, marks, test_marks)


def leave_out(images: TrainingImages, share: float, families: Callable[[Rows], Rows]) -> TrainingImages:
    """``images`` but for a share of them, one image at least where ``share`` is not 0.

    Which ones depends on the pictures alone, not on a seed: runs of the same images leave out the same.
    Images that look alike are left out together, so that a few more may be.

    Args:
        images: of one dataset.
        share: in [0, 1).
        families: numbers of the families of the images at these rows; asked for where ``share`` is not 0.

    Raises:
        SynBrainError: where no image would be left.
    """
    if not share:
        return images
    n_out = max(1, round(share * len(images.marks)))
    # marks are digests: their order is a draw that every machine repeats
    least = least_marks(images.marks, families(images.rows))
    in_turn = sorted(images.marks, key=lambda mark: (least[mark], mark))
    last = {least[mark] for mark in in_turn[:n_out]}
    out = {mark for mark in in_turn if least[mark] in last}
    if len(out) == len(set(images.marks)):
        raise SynBrainError(
            f"{len(out)} of {len(images.marks)} images left out", "choose a smaller --leave-out"
        )
    return _without(out, images.rows, images.marks, images.test_marks)


def _without(
    forbidden: set[bytes], rows: Rows, marks: tuple[bytes, ...], test_marks: tuple[bytes, ...]
) -> TrainingImages:
    """``rows`` but those whose mark is forbidden."""
    allowed = np.array([mark not in forbidden for mark in marks], dtype=bool)
    left = tuple(mark for mark in marks if mark not in forbidden)
    return TrainingImages(np.asarray(rows[allowed]), left, test_marks)
