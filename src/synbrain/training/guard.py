"""No test image is trained on: neither a dataset's own, nor, with several datasets, another's."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from synbrain.data.dataset import Dataset
from synbrain.errors import SynBrainError
from synbrain.files import digest


def image_identities(dataset: Dataset, rows: NDArray[np.int64]) -> list[str]:
    """What tells the images ``rows`` apart across datasets.

    Image files are told by their content, as different recordings use the same file names; images of an
    HDF5 brick by the brick's path and their row in it.
    """
    where = dataset.stimulus_path()
    if dataset.info.stimuli.kind == "hdf5":
        return [f"{where}#{row}" for row in dataset.images["row"].to_numpy()[rows]]
    names = dataset.images["name"].astype(str).to_numpy()[rows]
    missing = [name for name in names if not (where / name).exists()]
    if missing:
        raise SynBrainError(
            f"{len(missing)} stimuli of {dataset.path} are missing, {missing[0]} first",
            "restore them: without them nobody can tell whether a test image is among the training images",
        )
    return [digest(where / name) for name in names]


def safe_training_images(
    datasets: list[Dataset], shared: Literal["refuse", "drop"] = "refuse"
) -> list[NDArray[np.int64]]:
    """Training images of each dataset that are a test image of none of them.

    Args:
        datasets: all that one model is trained on, and for adaptation those of its base.
        shared: what to do about training images of one that are test images of another: "refuse" raises,
            "drop" leaves them out.

    Returns:
        For each dataset, rows of ``dataset.images``, ascending.

    Raises:
        SynBrainError: where training and test images overlap and ``shared`` is "refuse".
    """
    rows = [dataset.image_rows("train") for dataset in datasets]
    if len(datasets) == 1:  # within a dataset the split is by image: load_dataset checks it
        return rows
    held_out: set[str] = set()
    for dataset in datasets:
        held_out |= set(image_identities(dataset, dataset.image_rows("test")))
    safe = []
    for dataset, train in zip(datasets, rows, strict=True):
        is_test = np.array([name in held_out for name in image_identities(dataset, train)], dtype=bool)
        if is_test.any() and shared == "refuse":
            raise SynBrainError(
                f"{int(is_test.sum())} training images of {dataset.path} are test images of another dataset",
                "pass --shared-test-images drop to leave them out, or make one split for all datasets",
            )
        safe.append(train[~is_test])
    return safe
