"""What must hold before a decoder is fitted or tested: no test image trained on, voxels of the subject."""

from __future__ import annotations

from collections.abc import Set
from typing import NamedTuple

import numpy as np

from synbrain.arrays import Rows
from synbrain.data.dataset import Dataset
from synbrain.data.marks import image_marks
from synbrain.describe import counted
from synbrain.errors import SynBrainError
from synbrain.model.parts import SubjectPart
from synbrain.model.subject import part_of, require_recorded, require_unseen
from synbrain.model.synbrain import SynBrain


class Voxels(NamedTuple):
    """Whose responses: who has them, how many voxels, in which unit."""

    owner: str
    n_voxels: int
    unit: str

    @classmethod
    def of(cls, dataset: Dataset) -> Voxels:
        """Those of a dataset."""
        return cls(str(dataset.path), dataset.n_voxels, dataset.info.unit)


def require_same_voxels(mine: Voxels, other: Voxels, mend: str) -> None:
    """Refuse responses with another number of voxels, or in another unit.

    Raises:
        SynBrainError: naming both.
    """
    if mine[1:] != other[1:]:
        (ours, n, unit), (theirs, m, as_unit) = mine, other
        raise SynBrainError(
            f"{ours} has {counted(n, 'voxel')} in {unit!r}, {theirs} {m} in {as_unit!r}", mend
        )


def part_beside(run: SynBrain, dataset: Dataset, subject: str | None = None) -> SubjectPart:
    """The part of a run whose responses stand beside the recordings of ``dataset``, or are added to them.

    Args:
        run: of one subject or several.
        dataset: recordings of one of them.
        subject: which one, where the user named it.

    Raises:
        SynBrainError: where it has other voxels or another unit, or the run was trained on test images.
    """
    part = part_of(run, dataset, subject)
    mine = Voxels("the run", part.n_voxels, part.unit)
    require_same_voxels(mine, Voxels.of(dataset), "give a run of this subject")
    require_recorded(part, dataset, chosen=subject is not None)
    require_unseen(run, dataset)
    return part


def require_no_test_image(trained: Set[bytes], test: Set[bytes], who: str, mend: str) -> None:
    """Refuse training images that are test images.

    Args:
        trained, test: marks of images.
        who: is trained, and on whose test images, with the place of the number: "trained on {n} of them".
        mend: what to do about it.

    Raises:
        SynBrainError: with the number of these images.
    """
    if shared := trained & test:
        raise SynBrainError(who.format(n=len(shared)), mend)


def without(dataset: Dataset, rows: Rows, forbidden: Set[bytes]) -> Rows:
    """Those of ``rows`` of ``dataset.images`` whose picture is not forbidden."""
    marks = image_marks(dataset, rows)
    return np.asarray(rows[[mark not in forbidden for mark in marks]], dtype=np.int64)
