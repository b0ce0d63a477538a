"""A dataset's split as :class:`Pairs`: tokens of its images with its trials."""

from __future__ import annotations

import numpy as np

from synbrain.data.dataset import Dataset, Split
from synbrain.errors import SynBrainError
from synbrain.features.tokens import Pairs, TokenSet


def pairs_of(dataset: Dataset, tokens: TokenSet, split: Split) -> Pairs:
    """Pair the trials of ``split`` with the tokens of their images.

    Args:
        dataset: one subject's recordings.
        tokens: tokens of all ``dataset.n_images`` images, in the order of ``dataset.images``.
        split: "train" or "test".

    Raises:
        SynBrainError: where tokens and images differ in number, or the split is empty.
    """
    if len(tokens) != dataset.n_images:
        raise SynBrainError(
            f"{len(tokens)} token rows for {dataset.n_images} images of {dataset.path}",
            "run `synbrain features` on this dataset",
        )
    images, trials = dataset.image_rows(split), dataset.trial_rows(split)
    if len(images) == 0:
        raise SynBrainError(f"{dataset.path} has no {split} images", f"mark some trials as {split}")
    shown = dataset.trials["image"].to_numpy(dtype=np.int64)[trials]
    return Pairs(
        tokens=tokens.take(images),
        responses=dataset.responses,
        trials=trials,
        image_of_trial=np.searchsorted(images, shown),
    )
