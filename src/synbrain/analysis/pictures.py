"""Images of two datasets are matched by name: are pictures that are called alike the same?"""

from __future__ import annotations

import warnings

import numpy as np

from synbrain.data.dataset import Dataset
from synbrain.data.marks import image_marks
from synbrain.data.thumbnails import same_picture, thumbnail
from synbrain.errors import SynBrainError, SynBrainWarning


def require_same_pictures(dataset: Dataset, other: Dataset) -> None:
    """See that the test images of a dataset are the pictures that another one calls so.

    Different recordings often number their pictures alike (``im001.png``). Files that differ are compared as
    pictures, as one may be stored in two ways.

    Raises:
        SynBrainError: naming how many are not.
    """
    test, every = dataset.image_rows("test"), np.arange(other.n_images)
    mine, theirs = (
        of.images["name"].astype(str).to_numpy()[rows] for of, rows in ((dataset, test), (other, every))
    )
    names, at_mine, at_theirs = np.intersect1d(mine, theirs, return_indices=True)
    if len(names) == 0:
        return
    a, b = test[at_mine], every[at_theirs]
    try:
        pairs = zip(image_marks(dataset, a), image_marks(other, b), strict=True)
        differing = [k for k, (one, two) in enumerate(pairs) if one != two]
        others = [k for k in differing if not _look_alike(dataset, int(a[k]), other, int(b[k]))]
    except SynBrainError as error:
        note = f"whether images that {dataset.path} and {other.path} call alike are the same is not known: "
        warnings.warn(note + error.problem, SynBrainWarning, stacklevel=2)
        return
    if others:
        raise SynBrainError(
            f"{len(others)} of {len(names)} images that {dataset.path} and {other.path} call alike are "
            f"different pictures, such as {names[others[0]]}",
            "compare with subjects who saw the same pictures, or name pictures by what they show",
        )


def _look_alike(dataset: Dataset, row: int, other: Dataset, its_row: int) -> bool:
    return same_picture(thumbnail(dataset.load_image(row)), thumbnail(other.load_image(its_row)))
