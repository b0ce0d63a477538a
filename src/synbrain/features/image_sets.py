"""What identifies the images that tokens are of: names and order, decoding, sizes of their files."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from synbrain.data.dataset import Dataset, Stimuli
from synbrain.data.options import PictureOptions
from synbrain.files import digest_of


def image_set_digest(dataset: Dataset) -> str:
    """SHA-256 of what identifies the images and their order: names, rows in the stimulus file, and
    decoding.
    """
    images = dataset.images
    content = {"names": images["name"].astype(str).tolist()}
    if "row" in images:
        content["rows"] = [str(row) for row in images["row"].tolist()]
    content |= rules_digest_part(dataset.info.stimuli)
    return digest_of(content)


def picture_sizes(dataset: Dataset) -> NDArray[np.int64] | None:
    """(n_images,) bytes of each picture file; None for an HDF5 file, or where a picture is missing."""
    if dataset.info.stimuli.kind == "hdf5":
        return None
    folder = dataset.stimulus_path()
    try:
        sizes = [(folder / str(name)).stat().st_size for name in dataset.images["name"]]
    except OSError:
        return None
    return np.array(sizes, dtype=np.int64)


def sizes_digest(sizes: NDArray[np.int64] | None) -> str:
    """SHA-256 of :func:`picture_sizes`; empty where they are not known."""
    return "" if sizes is None else digest_of(sizes.tolist())


def rules_digest_part(stimuli: Stimuli) -> dict[str, list[str]]:
    """What a digest says about how pictures are decoded: nothing where the rules are the usual ones."""
    differing = stimuli.model_dump(include=set(PictureOptions.model_fields), exclude_defaults=True)
    return {"decoded": [f"{name} {value}" for name, value in sorted(differing.items())]} if differing else {}
