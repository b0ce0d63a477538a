"""Residuals of trials, a block of voxels at a time: within images, and around a cross-fitted mean."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from synbrain.arrays import Float32, Float64, Rows
from synbrain.features.tokens import Pairs
from synbrain.metrics.ceiling import tells_noise

BLOCK_VALUES = 2**23  # responses in memory at a time


@dataclass(frozen=True)
class Block:
    """Some voxels of all trials.

    Attributes:
        voxels: which they are.
        mean: (n_images, n) float64, cross-fitted.
        error: (n_images, n), repeat mean - cross-fitted mean.
        within: (n_repeated_trials, n), trial - repeat mean, times sqrt(r / (r - 1)) for r repeats, so that
            its mean square is the trial variance.
        around: (n_trials, n), trial - cross-fitted mean.
        repeat_means: (n_images, n).
    """

    voxels: slice
    mean: Float64
    error: Float64
    within: Float64
    around: Float64
    repeat_means: Float64


class Residuals:
    """Residuals of the trials of ``pairs``; nothing of size trials x voxels is kept.

    Args:
        pairs: trials of images.
        mean: (n_images, n_voxels), of predictions that did not see their image.
    """

    def __init__(self, pairs: Pairs, mean: Float32) -> None:
        self.pairs, self.mean = pairs, mean
        self.repeats = np.maximum(pairs.repeats(), 1)
        self.shown = pairs.repeats() > 0
        self.image = pairs.image_of_trial
        self.repeated = tells_noise(pairs.repeats())
        self.usable = np.flatnonzero(self.repeats[self.image] > 1)
        r = self.repeats[self.image]
        self.widen = np.sqrt(r / np.maximum(r - 1, 1))
        ones = 1 / r
        where = (self.image, np.arange(len(self.image)))
        self._average = csr_array((ones, where), shape=(pairs.n_images, len(self.image)))

    def blocks(self) -> Iterator[Block]:
        """Every voxel once."""
        n_voxels = self.pairs.n_voxels
        width = max(1, BLOCK_VALUES // max(len(self.image), 1))
        for start in range(0, n_voxels, width):
            voxels = slice(start, min(start + width, n_voxels))
            y = np.asarray(self.pairs.responses[:, voxels][self.pairs.trials], dtype=np.float64)
            mean = np.asarray(self.mean[:, voxels], dtype=np.float64)
            repeat_means = np.asarray(self._average @ y)
            usable = self.usable
            within = (y[usable] - repeat_means[self.image[usable]]) * self.widen[usable, None]
            error = np.where(self.shown[:, None], repeat_means - mean, 0.0)
            yield Block(voxels, mean, error, within, y - mean[self.image], repeat_means)

    def within(self, rows: Rows, repeat_means: Float32) -> Float32:
        """(n, n_voxels) float32, residuals within images of the trials ``rows``, all voxels."""
        residual = self.pairs.trial_responses(rows) - repeat_means[self.image[rows]]
        return np.asarray(residual * self.widen[rows, None].astype(np.float32))


def moment_factors(repeats: Rows) -> tuple[float, float]:
    """What averaging over r repeats leaves of skewness and excess kurtosis in residuals within images.

    A residual is ``(1 - 1/r) t_1 - (t_2 + ... + t_r) / r`` of independent t. Third and fourth cumulants add
    up with the third and fourth powers of these weights, the variance with the second.

    Args:
        repeats: (n_trials,) repeats of each trial's image; those of images shown once have no residual. The
            mean over trials, as the residuals' own moments are means over trials.
    """
    r = repeats[repeats > 1].astype(np.float64)
    if not len(r):
        return 1.0, 1.0
    own, other = 1 - 1 / r, -1 / r
    squares = own**2 + (r - 1) * other**2
    third = (own**3 + (r - 1) * other**3) / squares**1.5
    fourth = (own**4 + (r - 1) * other**4) / squares**2
    return float(third.mean()), float(fourth.mean())
