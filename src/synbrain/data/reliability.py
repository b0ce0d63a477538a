"""The ncsnr of a dataset that brings none: from its repeated trials, z-scored within their session."""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from synbrain.arrays import Rows
from synbrain.errors import SynBrainError
from synbrain.metrics import ceiling

LEAST_SESSION = 30  # trials from which a session has a mean and a deviation of its own
BLOCK_BYTES = 128 * 2**20  # of float64 trials at a time, so that memory does not grow with the voxels


def ncsnr_from_trials(
    responses: NDArray[Any],
    image_of_trial: NDArray[np.integer],
    session_of_trial: NDArray[np.integer] | None = None,
    rows: Rows | None = None,
) -> NDArray[np.float32]:
    """Noise-ceiling signal-to-noise ratio of each voxel: sd of the signal over sd of the noise.

    NSD (Allen 2022) computes it on betas that are z-scored within their session, so that drift between
    sessions counts as neither signal nor noise; the estimate is :func:`synbrain.metrics.ceiling.ncsnr`, which
    allows any number of repeats per image. The mean of a session of few trials is mostly that of its images,
    and taking it away takes signal with it: sessions of fewer than :data:`LEAST_SESSION` trials are z-scored
    together.

    Args:
        responses: (n_stored, n_voxels), any unit, finite; may be a memory map, read in column blocks.
        image_of_trial: (n_trials,) int, which image each trial showed.
        session_of_trial: (n_trials,) int; given, voxels are z-scored within each session first, and within
            all that are short as if they were one.
        rows: (n_trials,) rows of ``responses`` that the trials lie in; all of them in order if left out.

    Returns:
        (n_voxels,) float32, at least 0; 0 where a voxel never varies.

    Raises:
        SynBrainError: where no image has two trials.
    """
    n_trials, n_voxels = len(image_of_trial), responses.shape[1]
    n_images = len(np.unique(image_of_trial))
    if n_trials == n_images or n_images < 2:
        raise SynBrainError(
            f"{n_trials} trials of {n_images} images have no repeats to estimate noise from",
            "give at least two images, one of them with at least two trials",
        )
    images = np.asarray(image_of_trial, dtype=np.int64)
    sessions = None if session_of_trial is None else _long_enough(session_of_trial)
    ratio = np.zeros(n_voxels, dtype=np.float32)
    step = max(1, BLOCK_BYTES // (8 * n_trials))
    for first in range(0, n_voxels, step):
        columns = responses[:, first : first + step]
        block = np.array(columns if rows is None else columns[rows], dtype=np.float64)
        if sessions is not None:
            _standardise(block, sessions)
        varies = block.min(axis=0) != block.max(axis=0)  # a rounded mean of equal values is no signal
        ratio[first : first + step] = np.where(varies, ceiling.ncsnr(block, images), 0.0)
        _let_go(responses)
    return ratio


def _let_go(responses: NDArray[Any]) -> None:
    """Give back the pages of a memory map that were read: they count as memory of this process."""
    mapped = getattr(responses, "_mmap", None)
    if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)


def _long_enough(session_of_trial: NDArray[np.integer]) -> Rows:
    """(n_trials,) number of each trial's session, where those that are short are one."""
    _, session, counts = np.unique(session_of_trial, return_inverse=True, return_counts=True)
    return np.where(counts[session] < LEAST_SESSION, -1, session)


def _standardise(block: NDArray[np.float64], sessions: NDArray[np.integer]) -> None:
    """Z-score the columns in place within each session; a column that is constant becomes 0."""
    for session in np.unique(sessions):
        rows = np.flatnonzero(sessions == session)
        part = block[rows]
        constant = part.min(axis=0) == part.max(axis=0)
        part -= part.mean(axis=0)
        part[:, constant] = 0.0  # not the rounding error of their mean
        part /= np.where(constant, 1.0, part.std(axis=0))
        block[rows] = part


def ncsnr_of(responses: NDArray[Any], trials: pd.DataFrame) -> tuple[NDArray[np.float32] | None, str | None]:
    """The ncsnr of a dataset that brings none, and from which trials it was computed.

    Training trials are preferred, so that weighing or choosing voxels by it touches no test image; test
    trials serve where too few training images were repeated to tell noise (``ceiling.tells_noise``). Where
    both splits have too few it is not known: of one repeated image, voxels without signal pass for reliable.

    Args:
        responses: (n_trials, n_voxels), may be a memory map.
        trials: one row per response row: image, session, split.

    Returns:
        ((n_voxels,) float32, "train" or "test"), or (None, None) where too few images were repeated.
    """
    freedom: dict[str, int] = {}
    for split in ("train", "test"):
        shown = trials.loc[trials["split"] == split, "image"]
        freedom[split] = len(shown) - shown.nunique() if shown.nunique() > 1 else 0
    enough = [name for name, n in freedom.items() if n >= ceiling.LEAST_FREEDOM]
    if not enough:
        return None, None
    split = enough[0]
    rows = np.flatnonzero((trials["split"] == split).to_numpy())
    part = trials.iloc[rows]
    sessions = part["session"].to_numpy()
    many = sessions if len(np.unique(sessions)) > 1 else None
    return ncsnr_from_trials(responses, part["image"].to_numpy(), many, rows), split
