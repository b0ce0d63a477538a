"""Predictions of several fits, averaged voxel by voxel."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, combinations_with_replacement

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from synbrain.arrays import Float32, Float64, Rows
from synbrain.metrics.voxel import blocks

BLOCK_VALUES = 1 << 23


def stacking_weights(errors: Float64, n_images: int, temper: float = 0.25) -> Float64:
    """(k, n_voxels) weights that sum to 1 over k predictions, from their errors on images not seen.

    As for candidates within a path (pseudo-Bayesian averaging, Yao et al. 2018), with half of each voxel's
    log likelihood ratio replaced by the mean over voxels: single voxels tell little from few images. One
    without an error, as a voxel that never varies is, has no say in that mean: its ratios are of rounding.

    Args:
        errors: (k, n_voxels) sums of squared errors of predictions out of fold.
        n_images: that they were summed over.
        temper: exponent on the likelihood.
    """
    least, told = _least(errors)
    log_weight = -temper * n_images / 2 * (errors / least - 1)
    pooled = log_weight[:, told].mean(axis=1, keepdims=True) if told.any() else 0.0
    log_weight = 0.5 * log_weight + 0.5 * pooled
    weight = np.exp(log_weight - log_weight.max(axis=0))
    return np.asarray(weight / weight.sum(axis=0))


def _least(errors: Float64) -> tuple[Float64, NDArray[np.bool_]]:
    """(n_voxels,) the least of k errors, above 0, and of which voxels it is more than rounding."""
    least = errors.min(axis=0)
    return np.maximum(least, 1e-30), least > 1e-9 * max(float(least.mean()), 1e-30)


def common_weights(products: Float64) -> Float64:
    """(k,) weights, at least 0 and of sum 1, of the average of predictions with the least squared error.

    Args:
        products: (k, k) sums of products of two predictions' errors.

    >>> common_weights(np.array([[1.0, 0.0], [0.0, 3.0]])).round(2).tolist()
    [0.75, 0.25]
    """
    values, vectors = np.linalg.eigh(products)
    root = np.sqrt(np.maximum(values, 0))[:, None] * vectors.T
    # with a price on the sum's distance from 1 the best weights are those of sum 1, but for a factor
    price = np.sqrt(max(float(np.trace(products)), 1e-30))
    system = np.vstack([root, np.full((1, len(root)), price)])
    weights, _ = nnls(system, np.append(np.zeros(len(root)), price))
    return np.asarray(weights / weights.sum())


def stacked(
    predictions: Sequence[Float32], y: Float32, folds: Rows, common: float = 0.0
) -> tuple[Float64, Float32]:
    """Weights (k, n_voxels) from all images, and the weighted predictions (n_images, n_voxels).

    What is predicted of a fold is weighed by the errors in the others alone.

    Args:
        predictions: k times (n_images, n_voxels), out of fold.
        y: (n_images, n_voxels), repeat means.
        folds: (n_images,).
        common: share of the weights that is the same for all voxels: those of the average with the least
            error, each voxel's in units of its own least. The rest is of :func:`stacking_weights`.
    """
    numbers = np.unique(folds)
    rows = [np.flatnonzero(folds == fold) for fold in numbers]
    products = np.stack([_products(predictions, y, of_fold) for of_fold in rows])
    total = products.sum(axis=0)
    average = np.empty_like(y)
    for f, of_fold in enumerate(rows):
        weights = _weights(total - products[f], len(y) - len(of_fold), common).astype(y.dtype)
        for part in blocks(len(of_fold), y.shape[1], BLOCK_VALUES):
            at = of_fold[part]
            average[at] = sum(w * predicted[at] for w, predicted in zip(weights, predictions, strict=True))
    return _weights(total, len(y), common), average


def _products(predictions: Sequence[Float32], y: Float32, rows: Rows) -> Float64:
    """(k, k, n_voxels) sums over images ``rows`` of products of two predictions' errors."""
    k = len(predictions)
    products = np.zeros((k, k, y.shape[1]))
    for part in blocks(len(rows), y.shape[1], BLOCK_VALUES):
        at = rows[part]
        off = [predicted[at] - y[at] for predicted in predictions]
        for i, j in combinations_with_replacement(range(k), 2):
            products[i, j] += np.sum(off[i] * off[j], axis=0, dtype=np.float64)
    for i, j in combinations(range(k), 2):
        products[j, i] = products[i, j]
    return products


def _weights(products: Float64, n_images: int, common: float) -> Float64:
    errors = np.diagonal(products).T
    weights = stacking_weights(errors, n_images)
    if common == 0:
        return weights
    least, told = _least(errors)
    in_units = products[:, :, told] / least[told]
    return (1 - common) * weights + common * common_weights(in_units.sum(axis=2))[:, None]
