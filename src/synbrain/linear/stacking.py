"""Predictions of several fits, averaged voxel by voxel."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from synbrain.arrays import Float32, Float64, Rows
from synbrain.metrics.voxel import blocks

BLOCK_VALUES = 1 << 23


def stacking_weights(errors: Float64, n_images: int, temper: float = 0.25) -> Float64:
    """(k, n_voxels) weights that sum to 1 over k predictions, from their errors on images not seen.

    As for candidates within a path (pseudo-Bayesian averaging, Yao et al. 2018), with half of each voxel's
    log likelihood ratio replaced by the mean over voxels: single voxels tell little from few images.

    Args:
        errors: (k, n_voxels) sums of squared errors of predictions out of fold.
        n_images: that they were summed over.
        temper: exponent on the likelihood.
    """
    least = np.maximum(errors.min(axis=0), 1e-30)
    log_weight = -temper * n_images / 2 * (errors / least - 1)
    log_weight = 0.5 * log_weight + 0.5 * log_weight.mean(axis=1, keepdims=True)
    weight = np.exp(log_weight - log_weight.max(axis=0))
    return np.asarray(weight / weight.sum(axis=0))


def stacked(predictions: Sequence[Float32], y: Float32, folds: Rows) -> tuple[Float64, Float32]:
    """Weights (k, n_voxels) from all images, and the weighted predictions (n_images, n_voxels).

    What is predicted of a fold is weighed by the errors in the others alone.

    Args:
        predictions: k times (n_images, n_voxels), out of fold.
        y: (n_images, n_voxels), repeat means.
        folds: (n_images,).
    """
    numbers = np.unique(folds)
    rows = [np.flatnonzero(folds == fold) for fold in numbers]
    errors = np.zeros((len(numbers), len(predictions), y.shape[1]))
    for f, of_fold in enumerate(rows):
        for part in blocks(len(of_fold), y.shape[1], BLOCK_VALUES):
            at = of_fold[part]
            for k, predicted in enumerate(predictions):
                errors[f, k] += np.sum((predicted[at] - y[at]) ** 2, axis=0, dtype=np.float64)
    average = np.empty_like(y)
    total = errors.sum(axis=0)
    for f, of_fold in enumerate(rows):
        weights = stacking_weights(total - errors[f], len(y) - len(of_fold)).astype(y.dtype)
        for part in blocks(len(of_fold), y.shape[1], BLOCK_VALUES):
            at = of_fold[part]
            average[at] = sum(w * predicted[at] for w, predicted in zip(weights, predictions, strict=True))
    return stacking_weights(total, len(y)), average
