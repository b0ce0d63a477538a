"""Scores of decoded images against the seen ones: two-way identification, PixCorr, SSIM, feature distance."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from synbrain.arrays import Float64
from synbrain.metrics.retrieval import cosine_matrix
from synbrain.metrics.voxel import pearson_within

LUMA = np.array([0.2125, 0.7154, 0.0721])  # ITU-R BT.709, as scikit-image's rgb2gray


def two_way_identification(decoded: NDArray[Any], seen: NDArray[Any]) -> float:
    """Share of pairs in which the decoded image is more like its own seen image than like another.

    Args:
        decoded, seen: (n_images, ...) features of any extractor, row i of one image.

    Returns:
        In [0, 1]; chance is .5, and a tie counts half.
    """
    return float(two_way_wins(decoded, seen).sum() / (len(seen) * (len(seen) - 1)))


def two_way_wins(decoded: NDArray[Any], seen: NDArray[Any]) -> Float64:
    """(n_images,) float64: than how many other seen images is a decoded one more like its own?

    Pearson over features; a tie counts half (the original counts it as lost).

    Args:
        decoded, seen: (n_images, ...) features of any extractor, row i of one image.
    """
    if len(seen) < 2:
        raise ValueError("two images at least")
    if not (np.isfinite(decoded).all() and np.isfinite(seen).all()):
        raise ValueError("features that are not finite: they would win and tie against nothing")
    similarity = cosine_matrix(decoded, seen, centre=True)
    matching = np.diagonal(similarity)[:, None]
    better = (matching > similarity + 1e-12).sum(axis=1)
    tied = (np.abs(matching - similarity) <= 1e-12).sum(axis=1) - 1  # not with itself
    return np.asarray(better + 0.5 * tied, dtype=np.float64)


def correlation_distance(decoded: NDArray[Any], seen: NDArray[Any]) -> Float64:
    """1 - Pearson over the features of each image: (n_images, ...) twice to (n_images,), 0 for equal."""
    return 1 - pearson_within(decoded.reshape(len(decoded), -1), seen.reshape(len(seen), -1))


def pixel_correlation(decoded: NDArray[Any], seen: NDArray[Any]) -> Float64:
    """PixCorr: Pearson over all pixel values of each image, (n_images, h, w, channels) to (n_images,)."""
    return pearson_within(decoded.reshape(len(decoded), -1), seen.reshape(len(seen), -1))


def structural_similarity(decoded: NDArray[Any], seen: NDArray[Any]) -> Float64:
    """SSIM of the grey images (Wang et al. 2004, eq. 13): Gaussian window of sd 1.5 cut at 3.5 sd.

    Constants K1 .01 and K2 .03, population covariances, mean over the pixels whose window lies inside.

    Args:
        decoded, seen: (n_images, h, w, 3) or (n_images, h, w), in [0, 1].

    Returns:
        (n_images,) float64, 1 for equal images.
    """
    if decoded.shape != seen.shape:
        raise ValueError(f"images of different shape: {decoded.shape} and {seen.shape}")
    return np.array([_ssim(_grey(a), _grey(b)) for a, b in zip(decoded, seen, strict=True)])


def _grey(image: NDArray[Any]) -> Float64:
    pixels = np.asarray(image, dtype=np.float64)
    return np.asarray(pixels @ LUMA if pixels.ndim == 3 else pixels)


def _ssim(a: Float64, b: Float64) -> float:
    def smooth(x: Float64) -> Float64:
        return np.asarray(gaussian_filter(x, sigma=1.5, truncate=3.5, mode="reflect"))

    c1, c2, margin = 0.01**2, 0.03**2, 5
    if min(a.shape) < 2 * margin + 1:
        raise ValueError("images of 11 x 11 pixels at least")
    mean_a, mean_b = smooth(a), smooth(b)
    var_a, var_b = smooth(a * a) - mean_a**2, smooth(b * b) - mean_b**2
    covariance = smooth(a * b) - mean_a * mean_b
    value = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    value /= (mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)
    return float(value[margin:-margin, margin:-margin].mean())
