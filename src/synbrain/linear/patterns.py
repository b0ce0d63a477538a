"""Share among voxels: predictions in patterns that the images explain, each with a gain of its own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh
from sklearn.isotonic import IsotonicRegression

from synbrain.arrays import Float64, Rows

Nested = dict[int, NDArray[np.float32]]
LARGEST_GAIN = 1.5
DENSE_VOXELS = 2500  # up to here the covariance of all voxels is written out
OVERSAMPLES, POWER_STEPS = 16, 6


@dataclass(frozen=True)
class SharedMap:
    """``shared = response_mean + (predicted - predicted_mean) @ reduce @ expand``.

    Attributes:
        reduce: (n_voxels, r).
        expand: (r, n_voxels), gains included.
        predicted_mean, response_mean: (n_voxels,).
    """

    reduce: Float64
    expand: Float64
    predicted_mean: Float64
    response_mean: Float64

    def apply(self, predicted: Float64) -> Float64:
        """(n_images, n_voxels) predictions, shared."""
        scores = (predicted - self.predicted_mean) @ self.reduce
        return np.asarray(self.response_mean + scores @ self.expand)


@dataclass(frozen=True)
class _Patterns:
    """Orthonormal patterns (r, n_voxels) and the means that scores on them are taken around."""

    patterns: Float64
    predicted_mean: Float64
    response_mean: Float64

    def with_gains(self, gains: Float64) -> SharedMap:
        kept = max(1, int(np.count_nonzero(gains[: len(self.patterns)])))
        patterns, gains = self.patterns[:kept], gains[:kept]
        return SharedMap(patterns.T, gains[:, None] * patterns, self.predicted_mean, self.response_mean)


def share_voxels(
    unseen: Float64, nested: Nested, responses: Float64, weights: Float64, folds: Rows, rank: int
) -> tuple[SharedMap, Float64]:
    """The map for all images, and out-of-fold predictions shared by maps that did not see their fold.

    The gain of a pattern (:func:`explained_patterns`) is the slope of the measured on the predicted score:
    near 1 where a pattern is predicted as well as it seems, 0 where it is noise of single voxels, above 1
    where ridge shrank too much. Gains fall from pattern to pattern (isotonic regression), within [0, 1.5].
    It is the curds and whey of Breiman and Friedman (1997) with these patterns for canonical coordinates.

    A slope may not be measured on images whose noise is in its pattern. Out-of-fold predictions do not
    suffice for that: those of one fold were fitted on the responses of the others, so their patterns hold
    that noise, and with many voxels every noise pattern gets a slope of 1 or more. So each fold is scored on
    patterns of predictions in which it had no part at all (``nested``).

    Args:
        unseen: (n_images, n_voxels), predictions out of fold.
        nested: fold -> (n_images, n_voxels) predictions by fits without that fold and without the image's
            own; at least two folds. The rows of the fold itself are not read.
        responses: (n_images, n_voxels), repeat means, in units in which voxels may be compared.
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
        predicted = (unseen[held] - found.predicted_mean) @ found.patterns.T
        measured = (responses[held] - found.response_mean) @ found.patterns.T
        products[place] = weights[held] @ (predicted * measured)
        powers[place] = weights[held] @ predicted**2
    shared = np.empty_like(unseen)
    total = whole.with_gains(falling_gains(products.sum(axis=0), powers.sum(axis=0)))
    for fold in np.unique(folds):
        held = folds == fold
        applied = total  # where memory did not allow the fold's own map (many images)
        if fold in own:
            applied = own[fold].with_gains(gains_of_others(products, powers, list(nested).index(fold)))
        shared[held] = applied.apply(unseen[held])
    return total, shared


def _patterns(predictions: Float64, responses: Float64, weights: Float64, rank: int) -> _Patterns:
    share = weights / weights.sum()
    patterns = explained_patterns(predictions, responses, weights, rank)
    return _Patterns(patterns.T, share @ predictions, share @ responses)


def explained_patterns(predictions: Float64, responses: Float64, weights: Float64, rank: int) -> Float64:
    """(n_voxels, r) orthonormal patterns in which predictions and responses vary together most.

    Principal axes of their symmetrised cross-covariance over images. As predictions do not know the noise
    of the responses that they are held against, its expectation holds none, where the covariance of either
    holds its own.

    Args:
        predictions: (n_images, n_voxels), none fitted on its own image.
        responses: (n_images, n_voxels), repeat means.
        weights: (n_images,).
        rank: patterns at most; not more than there are voxels.
    """
    n_voxels = responses.shape[1]
    rank = min(rank, n_voxels)
    share = weights / weights.sum()
    measured = responses - share @ responses
    predicted = share[:, None] * (predictions - share @ predictions)
    if n_voxels <= max(DENSE_VOXELS, 2 * rank):
        cross = measured.T @ predicted
        patterns = eigh((cross + cross.T) / 2, subset_by_index=(n_voxels - rank, n_voxels - 1))[1]
        return np.asarray(patterns[:, ::-1])

    def times(x: Float64) -> Float64:
        return np.asarray(measured.T @ (predicted @ x) + predicted.T @ (measured @ x)) / 2

    # subspace iteration: exact where eigenvalues fall, and in matrix products alone (Halko et al. 2011)
    width = min(n_voxels, rank + OVERSAMPLES)
    basis = np.linalg.qr(times(np.random.default_rng(0).normal(size=(n_voxels, width))))[0]
    for _ in range(POWER_STEPS):
        basis = np.linalg.qr(times(basis))[0]
    inner = basis.T @ times(basis)
    turn = eigh((inner + inner.T) / 2, subset_by_index=(width - rank, width - 1))[1]
    return np.asarray(basis @ turn[:, ::-1])


def gains_of_others(products: Float64, powers: Float64, place: int) -> Float64:
    """:func:`falling_gains` from all scored folds (rows of both arguments) but the one at ``place``."""
    kept = np.arange(len(products)) != place
    return falling_gains(products[kept].sum(axis=0), powers[kept].sum(axis=0))


def falling_gains(products: Float64, powers: Float64) -> Float64:
    """Falling slopes ``products / powers`` of patterns, in [0, 1.5]; 0 from the first without power."""
    gains = np.zeros_like(powers)
    known = len(powers) if powers.all() else int(np.argmin(powers > 0))
    if known:
        falling = IsotonicRegression(increasing=False, y_min=0, y_max=LARGEST_GAIN)
        slopes = products[:known] / powers[:known]
        gains[:known] = falling.fit_transform(np.arange(known), slopes, sample_weight=powers[:known])
    return gains
