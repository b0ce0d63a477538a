"""How reliable each voxel is: ncsnr from repeated trials, and the noise ceiling it implies."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from synbrain.errors import SynBrainError

Rows = NDArray[np.int64]
BLOCK_BYTES = 128 * 2**20  # of float64 trials at a time, so that memory does not grow with the voxels


def ncsnr_from_trials(
    responses: NDArray[Any],
    image_of_trial: NDArray[np.integer],
    session_of_trial: NDArray[np.integer] | None = None,
    rows: Rows | None = None,
) -> NDArray[np.float32]:
    """Noise-ceiling signal-to-noise ratio of each voxel: sd of the signal over sd of the noise.

    As in NSD (Allen 2022): on betas that are z-scored within their session, the noise variance is the
    variance over repeats of an image, pooled over images, and the signal variance is what it leaves of
    the total, not below 0. Two details differ from "1 - noise": images may have any number of repeats
    (degrees of freedom are pooled), and the total variance is corrected for repeats that share their
    signal, which makes the estimate unbiased for few images.

    Args:
        responses: (n_stored, n_voxels), any unit, finite; may be a memory map, read in blocks.
        image_of_trial: (n_trials,) int, which image each trial showed.
        session_of_trial: (n_trials,) int; given, voxels are z-scored within each session first.
        rows: (n_trials,) rows of ``responses`` that the trials lie in; all of them in order if left out.

    Returns:
        (n_voxels,) float32, at least 0; 0 where a voxel never varies.

    Raises:
        SynBrainError: where no image has two trials.
    """
    n_trials, n_voxels = len(image_of_trial), responses.shape[1]
    _, group = np.unique(np.asarray(image_of_trial), return_inverse=True)
    counts = np.bincount(group)
    freedom = n_trials - len(counts)
    if freedom < 1 or len(counts) < 2:
        raise SynBrainError(
            f"{n_trials} trials of {len(counts)} images have no repeats to estimate noise from",
            "give at least two images, one of them with at least two trials",
        )
    order = np.argsort(group, kind="stable")
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    shared = (n_trials - 1) / (n_trials - np.square(counts).sum() / n_trials)
    ratio = np.zeros(n_voxels, dtype=np.float32)
    step = max(1, BLOCK_BYTES // (8 * n_trials))
    for first in range(0, n_voxels, step):
        columns = responses[:, first : first + step]
        block = np.array(columns if rows is None else columns[rows], dtype=np.float64)
        _standardise(block, session_of_trial)
        total = block.var(axis=0, ddof=1)
        block = block[order]
        block -= np.repeat(np.add.reduceat(block, starts) / counts[:, None], counts, axis=0)
        noise = np.square(block, out=block).sum(axis=0) / freedom
        signal = np.maximum(total - noise, 0.0) * shared
        varies = noise > 1e-12 * np.maximum(total, 1e-300)
        ratio[first : first + step] = np.sqrt(
            np.divide(signal, noise, out=np.zeros_like(noise), where=varies)
        )
    return ratio


def _standardise(block: NDArray[np.float64], sessions: NDArray[np.integer] | None) -> None:
    """Z-score the columns in place within each session; a column that is constant becomes 0."""
    for session in [None] if sessions is None else np.unique(sessions):
        rows = slice(None) if session is None else np.flatnonzero(sessions == session)
        part = block[rows]
        part = part - part.mean(axis=0)
        sd = part.std(axis=0)
        block[rows] = np.divide(part, sd, out=np.zeros_like(part), where=sd > 0)


def noise_ceiling(ncsnr: NDArray[Any], repeats: int | Iterable[int]) -> NDArray[np.float32]:
    """Share of the variance of a mean over repeats that an ideal model can explain.

    ``ncsnr^2 / (ncsnr^2 + mean(1 / n))``: with A, B and C images of 1, 2 and 3 repeats, the mean is
    ``(A + B/2 + C/3) / (A + B + C)``, which is NSD's formula for ragged repeats; with one number it is 1/n.

    Args:
        ncsnr: (n_voxels,) signal sd over noise sd.
        repeats: trials averaged per image, one number for all or one per image; all at least 1.

    Returns:
        (n_voxels,) float32 in 0..1; its square root is the ceiling of a correlation.
    """
    each = np.atleast_1d(np.asarray(list(repeats) if isinstance(repeats, Iterable) else repeats))
    if each.size == 0 or each.min() < 1:
        raise SynBrainError("a noise ceiling needs at least one trial per image", "leave out unseen images")
    signal = np.square(np.asarray(ncsnr, dtype=np.float64))
    ceiling: NDArray[np.float32] = (signal / (signal + np.mean(1.0 / each))).astype(np.float32)
    return ceiling


def ncsnr_of(responses: NDArray[Any], trials: pd.DataFrame) -> tuple[NDArray[np.float32] | None, str | None]:
    """The ncsnr of a dataset that brings none, and from which trials it was computed.

    Training trials are preferred, so that weighing or choosing voxels by it touches no test image; test
    trials serve where training images have no repeats.

    Returns:
        ((n_voxels,) float32, "train" or "test"), or (None, None) where no image was repeated.
    """
    for split in ("train", "test"):
        rows = np.flatnonzero((trials["split"] == split).to_numpy())
        part = trials.iloc[rows]
        if part["image"].nunique() < 2 or not part["image"].duplicated().any():
            continue
        sessions = part["session"].to_numpy()
        many = sessions if len(np.unique(sessions)) > 1 else None
        return ncsnr_from_trials(responses, part["image"].to_numpy(), many, rows), split
    return None, None
