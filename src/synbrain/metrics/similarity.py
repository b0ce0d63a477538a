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


def rdm_split_half(trials: NDArray[Any], image_of_trial: Rows, *, seed: int = 0) -> float | None:
    """Correlation of the RDMs of two halves of each image's trials, over images with two or more.

    Args:
        trials: (n_trials, n_voxels), z-scored per voxel with training statistics.
        image_of_trial: (n_trials,).
        seed: of the halving.

    Returns:
        None where fewer than three images were repeated.
    """
    generator = np.random.default_rng(seed)
    first, second = [], []
    for image in np.unique(image_of_trial):
        rows = generator.permutation(np.flatnonzero(image_of_trial == image))
        if len(rows) < 2:
            continue
        half = len(rows) // 2
        first.append(np.asarray(trials[rows[:half]], dtype=np.float64).mean(axis=0))
        second.append(np.asarray(trials[rows[half : 2 * half]], dtype=np.float64).mean(axis=0))
    if len(first) < 3:
        return None
    return rdm_correlation(rdm(np.asarray(first)), rdm(np.asarray(second)))


def rdm_ceiling(trials: NDArray[Any], image_of_trial: Rows, *, seed: int = 0) -> float | None:
    """Best RDM correlation with the RDM of the repeat means, from :func:`rdm_split_half` stepped up.

    An approximation: trial noise also compresses correlation distances, alike for all pairs of images
    where repeats are equal in number. Arguments as there.
    """
    counts = np.unique(image_of_trial, return_counts=True)[1]
    halves = counts[counts >= 2] // 2
    if len(halves) == 0:
        return None
    times = float(np.mean(counts) / np.mean(halves))
    return stepped_up(rdm_split_half(trials, image_of_trial, seed=seed), times)
