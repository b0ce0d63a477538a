"""Representational similarity: do images that are alike for the brain stay alike in the synthesis?"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from synbrain.arrays import Float64, Rows
from synbrain.metrics.ceiling import stepped_up
from synbrain.metrics.device import Device
from synbrain.metrics.retrieval import cosine_matrix


def rdm(responses: NDArray[Any], device: Device = "cpu") -> Float64:
    """Representational dissimilarity: correlation distance between the responses to every two images.

    Args:
        responses: (n_images, n_voxels), z-scored per voxel with training statistics.
        device: where products are made.

    Returns:
        (n_images * (n_images - 1) / 2,) float64 in [0, 2], the upper triangle row by row; 1 where a
        response is constant over voxels.
    """
    upper = np.triu_indices(len(responses), 1)
    similarity = cosine_matrix(responses, responses, centre=True, device=device)
    return np.asarray(1 - similarity[upper], dtype=np.float64)


def rdm_correlation(a: Float64, b: Float64) -> float:
    """Spearman correlation of two RDMs (upper triangles); 0 where one of them is constant."""
    if np.ptp(a) < 1e-9 or np.ptp(b) < 1e-9:
        return 0.0
    return float(spearmanr(a, b).statistic)


def rdm_split(
    trials: NDArray[Any], image_of_trial: Rows, parts: int = 2, second: int = 1, *, seed: int = 0
) -> float | None:
    """Correlation of the RDMs of two sets of each image's trials that share no trial.

    Args:
        trials: (n_trials, n_voxels), z-scored per voxel with training statistics.
        image_of_trial: (n_trials,).
        parts: of equal size that an image's trials are put into; images with fewer trials are left out.
        second: parts that the second RDM averages; the first is of one part.
        seed: of the split.

    Returns:
        None where fewer than three images are left.
    """
    generator = np.random.default_rng(seed)
    one, other = [], []
    for image in np.unique(image_of_trial):
        rows = generator.permutation(np.flatnonzero(image_of_trial == image))
        size = len(rows) // parts
        if size == 0:
            continue
        some, others = rows[:size], rows[size : (1 + second) * size]
        one.append(np.asarray(trials[some], dtype=np.float64).mean(axis=0))
        other.append(np.asarray(trials[others], dtype=np.float64).mean(axis=0))
    if len(one) < 3:
        return None
    return rdm_correlation(rdm(np.asarray(one)), rdm(np.asarray(other)))


def rdm_ceiling(
    trials: NDArray[Any], image_of_trial: Rows, *, seed: int = 0, n_splits: int = 3
) -> float | None:
    """Best RDM correlation with the RDM of the repeat means.

    An RDM is a product of responses, so of m averaged trials its noise has a part that falls with m and one
    that falls with m squared. Spearman and Brown know the first alone, and would put the ceiling of three
    noisy repeats a quarter too low. Where most images have three trials or more, the two are told apart by
    two correlations: of a third of the trials with another third, and with the two others. With two trials
    it is split halves, stepped up, which is too low where noise is large.

    Arguments as of :func:`rdm_split`; correlations are means over ``n_splits`` splits.
    """
    counts = np.unique(image_of_trial, return_counts=True)[1]
    thirds = np.sum(counts >= 3) >= max(3, np.sum(counts == 2))
    parts = 3 if thirds else 2

    def over_splits(second: int) -> float | None:
        found = [rdm_split(trials, image_of_trial, parts, second, seed=seed + i) for i in range(n_splits)]
        known = [r for r in found if r is not None]
        return float(np.mean(known)) if known else None

    alike, double = over_splits(1), over_splits(2) if thirds else None
    if alike is None:
        return None
    # noise goes with 1 / trials averaged: where images differ in their number, with its mean
    times = float(np.mean(1 / (counts[counts >= parts] // parts)) / np.mean(1 / counts))
    if double is None:
        return stepped_up(alike, times)
    if min(alike, double) <= 0:
        return 0.0
    of_one, of_two = 1 / alike - 1, max(0.0, alike / double**2 - 1)  # noise over signal
    squared = min(max(2 * of_one - 4 * of_two, 0.0), of_one)
    return float(np.sqrt(1 / (1 + (of_one - squared) / times + squared / times**2)))
