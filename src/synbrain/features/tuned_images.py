"""Images that an encoder was tuned on: no model is fitted on their features, and none is scored on them.

A tuned encoder's features of such an image know the responses of its subjects to it. For a subject of the
tuning they fit its responses better than those of other images ever will, so that cross-validation over
them would choose too small penalties and report too good scores. What is left are the training images that
were held out of the tuning.
"""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np

from synbrain.arrays import Rows
from synbrain.data.dataset import Dataset
from synbrain.data.marks import image_marks, unpacked
from synbrain.describe import counted
from synbrain.errors import SynBrainError, SynBrainWarning

UNUSED = "tuned"  # the split of trials that neither train nor test a model
FEWEST = 3  # images that a linear path can be fitted on


def tuned_rows(dataset: Dataset, tuned_on: str) -> Rows:
    """Rows of ``dataset.images`` whose image is among the marks ``tuned_on`` (``marks.packed``)."""
    if not tuned_on:
        return np.zeros(0, dtype=np.int64)
    known, every = unpacked(tuned_on), np.arange(dataset.n_images, dtype=np.int64)
    return every[[mark in known for mark in image_marks(dataset, every)]]


def tuned_away(dataset: Dataset) -> Rows:
    """Rows of the training images that :func:`without_images` took out of a dataset."""
    unused = (dataset.trials["split"] == UNUSED).to_numpy()
    return np.unique(dataset.trials["image"].to_numpy(dtype=np.int64)[unused])


def refuse_tuned_test_images(dataset: Dataset, encoder: str, rows: Rows) -> None:
    """Raise where ``rows``, the images that ``encoder`` was tuned on, hold test images of the dataset."""
    n_test = int(np.isin(dataset.image_rows("test"), rows).sum())
    if n_test:
        raise SynBrainError(
            f"{encoder} was tuned on {counted(n_test, 'test image')} of {dataset.path}",
            f"tune it again with --keep-out {dataset.path}, or mark these images as training images",
        )


def without_images(dataset: Dataset, rows: Rows, encoder: str) -> Dataset:
    """The dataset with the training images ``rows`` in neither split; a warning says how many are left.

    Raises:
        SynBrainError: where fewer than 3 training images are left.
    """
    trials = dataset.trials
    gone = trials["image"].isin(rows).to_numpy() & (trials["split"] == "train").to_numpy()
    if not gone.any():
        return dataset
    left = replace(dataset, trials=trials.assign(split=np.where(gone, UNUSED, trials["split"])))
    n_left, n_all = len(left.image_rows("train")), len(dataset.image_rows("train"))
    if n_left < FEWEST:
        raise SynBrainError(
            f"{encoder} was tuned on {n_all - n_left} of {n_all} training images of {dataset.path}",
            "tune an encoder without this dataset, or with a larger --validation-fraction",
        )
    warnings.warn(
        f"{dataset.info.name}: {encoder} was tuned on {n_all - n_left} of its training images; models are "
        f"fitted on the other {n_left}",
        SynBrainWarning,
        stacklevel=3,
    )
    return left
