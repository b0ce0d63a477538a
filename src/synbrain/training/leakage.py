"""Which images a run was trained on and kept from, as marks that go with the run; and what they refuse."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from typing import Literal

import h5py
import numpy as np
from numpy.typing import NDArray

from synbrain.data.dataset import Dataset
from synbrain.errors import SynBrainError
from synbrain.files import digest
from synbrain.model.parts import RunConfig

BYTES = 6  # of each mark: two of 73,000 x 1,000 pairs agree by chance once in four million runs


def image_marks(dataset: Dataset, rows: NDArray[np.int64]) -> list[bytes]:
    """What tells images apart across datasets and machines: the first bytes of SHA-256.

    Image files are told by content. Images of an HDF5 brick are told by the brick's shape, its first and last
    image, and their row in it: the same brick elsewhere gives the same marks.
    """
    if dataset.info.stimuli.kind == "hdf5":
        where = dataset.stimulus_path()
        if not where.exists():
            raise SynBrainError(f"the stimuli {where} are missing", "restore them")
        with h5py.File(where, "r") as file:
            brick = file[dataset.info.stimuli.key]
            ends = hashlib.sha256(str(brick.shape).encode() + brick[0].tobytes() + brick[-1].tobytes())
        names = [f"{ends.hexdigest()}#{row}" for row in dataset.images["row"].to_numpy()[rows]]
    else:
        names = image_identities(dataset, rows)
    return [hashlib.sha256(name.encode()).digest()[:BYTES] for name in names]


def packed(marks: Iterable[bytes]) -> str:
    """Distinct marks as one text, sorted."""
    return base64.b64encode(b"".join(sorted(set(marks)))).decode()


def unpacked(text: str) -> set[bytes]:
    """The marks that :func:`packed` wrote."""
    held = base64.b64decode(text)
    return {held[i : i + BYTES] for i in range(0, len(held), BYTES)}


def marks_of(datasets: Iterable[Dataset], trained: Iterable[bytes]) -> dict[str, str]:
    """The fields ``trained_images`` and ``test_images`` of a run's configuration.

    Args:
        datasets: all that the run was trained on.
        trained: marks (:func:`image_marks`) of the images whose trials went into training.
    """
    test = [mark for dataset in datasets for mark in image_marks(dataset, dataset.image_rows("test"))]
    return {"trained_images": packed(trained), "test_images": packed(test)}


def images_to_adapt_on(
    config: RunConfig,
    dataset: Dataset,
    rows: NDArray[np.int64],
    shared: Literal["refuse", "drop"] = "refuse",
) -> NDArray[np.int64]:
    """The images among ``rows`` that adaptation may train on.

    Args:
        config: of the base run. A run that does not say which images it saw (imported, or of an older
            version) refuses nothing.
        dataset: the new subject's.
        rows: of ``dataset.images``, training images of the budget.
        shared: about those that are test images of a base subject: "refuse" raises, "drop" leaves them out.

    Raises:
        SynBrainError: an image in ``rows`` is a test image of the new subject, or of a base subject and
            ``shared`` is "refuse"; or the base was trained on the new subject's test images.
    """
    test = dataset.image_rows("test")
    if np.isin(rows, test).any():
        raise SynBrainError(
            f"{int(np.isin(rows, test).sum())} images to train on are test images of {dataset.path}",
            "split by image: all trials of an image belong to one split",
        )
    if not config.trained_images and not config.test_images:
        return rows
    seen = unpacked(config.trained_images).intersection(image_marks(dataset, test))
    if seen:
        raise SynBrainError(
            f"the base run was trained on {len(seen)} test images of {dataset.path}",
            f"train the base again with --keep-out {dataset.path}, or mark these images as training images",
        )
    kept_out = unpacked(config.test_images)
    is_test = np.array([mark in kept_out for mark in image_marks(dataset, rows)], dtype=bool)
    if is_test.any() and shared == "refuse":
        raise SynBrainError(
            f"{int(is_test.sum())} images to train on are test images of the base run's subjects",
            "pass --shared-test-images drop to leave them out",
        )
    return np.asarray(rows[~is_test])


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
