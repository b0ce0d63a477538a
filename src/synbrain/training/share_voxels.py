"""Share among voxels: predictions in their principal response patterns, each with a gain of its own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression
from sklearn.utils.extmath import randomized_svd

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]
LARGEST_GAIN = 1.5


@dataclass(frozen=True)
class SharedMap:
    """``shared = response_mean + (predicted - predicted_mean) @ reduce @ expand``.

    Attributes:
        reduce: (n_voxels, r).
        expand: (r, n_voxels), gains included.
        predicted_mean, response_mean: (n_voxels,).
        gains: (r,), not increasing.
    """

    reduce: Floats
    expand: Floats
    predicted_mean: Floats
    response_mean: Floats
    gains: Floats

    def apply(self, predicted: Floats) -> Floats:
        """(n_images, n_voxels) predictions, shared."""
        scores = (predicted - self.predicted_mean) @ self.reduce
        return np.asarray(self.response_mean + scores @ self.expand)


def shared_map(unseen: Floats, responses: Floats, weights: Floats, rank: int) -> SharedMap:
    """Gains of the principal patterns of predictions for unseen images.

    Patterns are the right singular vectors of the predictions, voxels in units of the responses' sd. The
    gain of a pattern is the slope of the measured on the predicted score: near 1 where a pattern is
    predicted as well as it seems, 0 where it is noise of single voxels, above 1 where ridge shrank too
    much. Gains fall from pattern to pattern (isotonic regression), within [0, 1.5]. It is the curds and whey
    of Breiman and Friedman (1997) with patterns of predictions for canonical coordinates.

    Args:
        unseen: (n_images, n_voxels), predictions out of fold.
        responses: (n_images, n_voxels), repeat means.
        weights: (n_images,).
        rank: patterns at most.
    """
    share = weights / weights.sum()
    predicted_mean, response_mean = share @ unseen, share @ responses
    sd = np.sqrt(share @ (responses - response_mean) ** 2)
    sd = np.where(sd > 1e-12, sd, 1.0)
    root = np.sqrt(share)[:, None]
    predicted = root * (unseen - predicted_mean) / sd
    measured = root * (responses - response_mean) / sd
    most = min(rank, *predicted.shape)
    if min(predicted.shape) <= 2 * rank:
        patterns = np.linalg.svd(predicted, full_matrices=False)[2][:most]
    else:
        patterns = randomized_svd(predicted, most, random_state=0)[2]
    scores = predicted @ patterns.T
    power = np.maximum(np.sum(scores**2, axis=0), 1e-30)
    slopes = np.sum(scores * (measured @ patterns.T), axis=0) / power
    falling = IsotonicRegression(increasing=False, y_min=0, y_max=LARGEST_GAIN)
    gains = falling.fit_transform(np.arange(most), slopes, sample_weight=power)
    kept = max(1, int(np.count_nonzero(gains)))
    patterns, gains = patterns[:kept], np.asarray(gains[:kept], dtype=np.float64)
    return SharedMap(
        patterns.T / sd[:, None], gains[:, None] * patterns * sd, predicted_mean, response_mean, gains
    )


def shared_out_of_fold(unseen: Floats, responses: Floats, weights: Floats, folds: Rows, rank: int) -> Floats:
    """(n_images, n_voxels) predictions of each fold, shared by the patterns and gains of the other folds."""
    shared = np.empty_like(unseen)
    for fold in np.unique(folds):
        held = folds == fold
        found = shared_map(unseen[~held], responses[~held], weights[~held], rank)
        shared[held] = found.apply(unseen[held])
    return shared
