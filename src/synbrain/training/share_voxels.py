"""Share among voxels: predictions in their principal response patterns, each with a gain of its own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression
from sklearn.utils.extmath import randomized_svd

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]
Nested = dict[int, NDArray[np.float32]]
LARGEST_GAIN = 1.5


@dataclass(frozen=True)
class SharedMap:
    """``shared = response_mean + (predicted - predicted_mean) @ reduce @ expand``.

    Attributes:
        reduce: (n_voxels, r).
        expand: (r, n_voxels), gains included.
        predicted_mean, response_mean: (n_voxels,).
    """

    reduce: Floats
    expand: Floats
    predicted_mean: Floats
    response_mean: Floats

    def apply(self, predicted: Floats) -> Floats:
        """(n_images, n_voxels) predictions, shared."""
        scores = (predicted - self.predicted_mean) @ self.reduce
        return np.asarray(self.response_mean + scores @ self.expand)


@dataclass(frozen=True)
class _Patterns:
    """Principal patterns (r, n_voxels) of predictions, in units of the responses' ``sd``."""

    patterns: Floats
    sd: Floats
    predicted_mean: Floats
    response_mean: Floats

    def scores(self, values: Floats, mean: Floats) -> Floats:
        return np.asarray(((values - mean) / self.sd) @ self.patterns.T)

    def with_gains(self, gains: Floats) -> SharedMap:
        kept = max(1, int(np.count_nonzero(gains[: len(self.patterns)])))
        patterns, gains = self.patterns[:kept], gains[:kept]
        return SharedMap(
            patterns.T / self.sd[:, None],
            gains[:, None] * patterns * self.sd,
            self.predicted_mean,
            self.response_mean,
        )


def share_voxels(
    unseen: Floats, nested: Nested, responses: Floats, weights: Floats, folds: Rows, rank: int
) -> tuple[SharedMap, Floats]:
    """The map for all images, and out-of-fold predictions shared by maps that did not see their fold.

    Patterns are the right singular vectors of predictions for unseen images, voxels in units of the
    responses' sd. The gain of a pattern is the slope of the measured on the predicted score: near 1 where a
    pattern is predicted as well as it seems, 0 where it is noise of single voxels, above 1 where ridge shrank
    too much. Gains fall from pattern to pattern (isotonic regression), within [0, 1.5]. It is the curds and
    whey of Breiman and Friedman (1997) with patterns of predictions for canonical coordinates.

    A slope may not be measured on images whose noise is in its pattern. Out-of-fold predictions do not
    suffice for that: those of one fold were fitted on the responses of the others, so their patterns hold
    that noise, and with many voxels every noise pattern gets a slope of 1 or more. So each fold is scored on
    patterns of predictions in which it had no part at all (``nested``).

    Args:
        unseen: (n_images, n_voxels), predictions out of fold.
        nested: fold -> (n_images, n_voxels) predictions by fits without that fold and without the image's
            own; at least two folds. The rows of the fold itself are not read.
        responses: (n_images, n_voxels), repeat means.
        weights: (n_images,).
        folds: (n_images,).
        rank: patterns at most.
    """
    whole = _patterns(unseen, responses, weights, rank)
    most = len(whole.patterns)
    products, powers = np.zeros((2, len(nested), most))
    own: dict[int, _Patterns] = {}
    for place, (fold, predictions) in enumerate(nested.items()):
        held = folds == fold
        rest = ~held
        own[fold] = _patterns(predictions[rest].astype(np.float64), responses[rest], weights[rest], rank)
        found = own[fold]
        root = np.sqrt(weights[held])[:, None]
        predicted = root * found.scores(unseen[held], found.predicted_mean)
        measured = root * found.scores(responses[held], found.response_mean)
        n = min(most, predicted.shape[1])
        products[place, :n] = np.sum(predicted * measured, axis=0)[:n]
        powers[place, :n] = np.sum(predicted**2, axis=0)[:n]
    shared = np.empty_like(unseen)
    total = whole.with_gains(_gains(products.sum(axis=0), powers.sum(axis=0)))
    for fold in np.unique(folds):
        held = folds == fold
        applied = total  # where memory did not allow the fold's own map (many images)
        if fold in own:
            others = np.array([other != fold for other in nested])
            applied = own[fold].with_gains(_gains(products[others].sum(axis=0), powers[others].sum(axis=0)))
        shared[held] = applied.apply(unseen[held])
    return total, shared


def _patterns(predictions: Floats, responses: Floats, weights: Floats, rank: int) -> _Patterns:
    share = weights / weights.sum()
    predicted_mean, response_mean = share @ predictions, share @ responses
    sd = np.sqrt(share @ (responses - response_mean) ** 2)
    sd = np.where(sd > 1e-12, sd, 1.0)
    scaled = np.sqrt(share)[:, None] * (predictions - predicted_mean) / sd
    most = min(rank, *scaled.shape)
    if min(scaled.shape) <= 2 * rank:
        patterns = np.linalg.svd(scaled, full_matrices=False)[2][:most]
    else:
        patterns = randomized_svd(scaled, most, random_state=0)[2]
    return _Patterns(patterns, sd, predicted_mean, response_mean)


def _gains(products: Floats, powers: Floats) -> Floats:
    """Falling slopes of patterns that were scored; patterns beyond them are dropped (0)."""
    known = int(np.count_nonzero(powers))
    if known == 0:
        return np.zeros_like(powers)
    falling = IsotonicRegression(increasing=False, y_min=0, y_max=LARGEST_GAIN)
    slopes = products[:known] / powers[:known]
    gains = np.zeros_like(powers)
    gains[:known] = falling.fit_transform(np.arange(known), slopes, sample_weight=powers[:known])
    return gains
