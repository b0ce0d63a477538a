"""The ncsnr of a dataset that brings none: from its repeated trials, z-scored within their session."""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import block_array, csr_array
from scipy.sparse.csgraph import connected_components

from synbrain.arrays import Float64, Rows
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
    together, and their means are told apart from those of images (Henderson's third method, 1953).

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
    short = None if sessions is None else _ShortSessions.of(sessions, np.asarray(session_of_trial), images)
    ratio = np.zeros(n_voxels, dtype=np.float32)
    step = max(1, BLOCK_BYTES // (8 * n_trials))
    for first in range(0, n_voxels, step):
        columns = responses[:, first : first + step]
        block = np.array(columns if rows is None else columns[rows], dtype=np.float64)
        if sessions is not None:
            _standardise(block, sessions)
        if short is not None:
            short.rescale(block)
        varies = block.min(axis=0) != block.max(axis=0)  # a rounded mean of equal values is no signal
        told = ceiling.ncsnr(block, images) if short is None else short.ncsnr(block)
        ratio[first : first + step] = np.where(varies, told, 0.0)
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


@dataclass(frozen=True)
class _ShortSessions:
    """Means of short sessions beside those of images; long ones, whose means were taken out, are as one.

    Sessions are fixed and images random effects. The noise is what both leave over; the signal is what images
    explain beyond sessions, less the noise in it.

    Attributes:
        rows: trials of short sessions.
        of_session, of_image: (n_sessions, n_trials) and (n_images, n_trials), 1 where a trial is of one.
        shown: (n_sessions, n_images) trials of each image in each session.
        freedom: degrees of freedom that both leave over.
    """

    rows: Rows
    of_session: csr_array
    of_image: csr_array
    shown: Float64
    freedom: int

    @classmethod
    def of(cls, sessions: Rows, session_of_trial: NDArray[np.integer], images: Rows) -> Self | None:
        """Of :func:`_long_enough`'s sessions; None without short ones, or where too few trials tell noise."""
        rows = np.flatnonzero(sessions < 0)
        if not len(rows):
            return None
        numbers = np.unique(session_of_trial, return_inverse=True)[1]
        of_session = _one_hot(np.where(sessions < 0, numbers, len(numbers)))
        of_image = _one_hot(images)
        shown = (of_session @ of_image.T).toarray()
        both = csr_array(shown)
        n_parts = connected_components(block_array([[None, both], [both.T, None]]), directed=False)[0]
        freedom = len(images) - (sum(shown.shape) - n_parts)
        return cls(rows, of_session, of_image, shown, freedom) if freedom >= ceiling.LEAST_FREEDOM else None

    def rescale(self, trials: Float64) -> None:
        """In place, bring short sessions to an sd of 1 within them, as long ones have.

        Z-scored together they had that over their drift too, and less noise than others.
        """
        rows = self.rows
        n_session = self.shown.sum(axis=1)[:, None]
        off = (trials - self.of_session.T @ ((self.of_session @ trials) / n_session))[rows]
        freedom = len(rows) - int(np.sum(self.of_session[:, rows].sum(axis=1) > 0))
        sd = np.sqrt(np.sum(off**2, axis=0) / max(freedom, 1))
        still = sd < 1e-9  # of an sd of 1 over all of them: what drifts between sessions alone, and rounding
        trials[rows] = np.where(still, 0.0, trials[rows] / np.where(still, 1.0, sd))

    def ncsnr(self, trials: Float64) -> Float64:
        """(n_voxels,) of trials (n_trials, n_voxels)."""
        n_session, n_image = self.shown.sum(axis=1)[:, None], self.shown.sum(axis=0)[:, None]
        session, image = self.of_session @ trials, self.of_image @ trials  # sums
        squares = np.sum(trials**2, axis=0)
        # sessions when images are known: the normal equations with images taken out
        share = self.shown / n_image.T
        sides = session - share @ image
        effects = np.linalg.pinv(np.diag(n_session[:, 0]) - share @ self.shown.T) @ sides
        left = squares - np.sum(image**2 / n_image, axis=0) - np.sum(effects * sides, axis=0)
        noise = np.maximum(left, 0) / self.freedom
        beyond = squares - np.sum(session**2 / n_session, axis=0)
        n_trials = float(n_session.sum())
        times = n_trials - float(np.sum(self.shown**2 / n_session))
        signal = np.maximum(beyond - (n_trials - len(session)) * noise, 0) / max(times, 1e-12)
        ratio = np.sqrt(signal / np.where(noise > 0, noise, 1.0))
        return np.asarray(np.where(noise > 0, ratio, np.where(signal > 0, np.inf, 0.0)), dtype=np.float64)


def _one_hot(numbers: NDArray[np.integer]) -> csr_array:
    _, which = np.unique(numbers, return_inverse=True)
    ones = np.ones(len(which))
    return csr_array((ones, (which, np.arange(len(which)))), shape=(int(which.max()) + 1, len(which)))


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
