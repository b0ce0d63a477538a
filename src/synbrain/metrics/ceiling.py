"""How well any model could score, given the trial-to-trial variability of the measured responses.

Model of a measured trial: image-dependent mean (signal, variance s2 over images) plus independent noise
(variance n2). ``ncsnr = sqrt(s2 / n2)``; of a mean over n trials the explainable share of variance is
``NC = ncsnr^2 / (ncsnr^2 + 1/n)`` (Allen et al. 2022, Nature Neuroscience), and the best correlation that a
model can reach is ``sqrt(NC)``. Images with different numbers of trials: 1/n becomes its mean over images.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from synbrain.arrays import Float64, Rows
from synbrain.metrics.voxel import _correlate, blocks

RELIABLE = 0.2  # ncsnr from which a voxel counts as reliable: its single trials correlate .2 with the signal
FEWEST_IMAGES = 4  # from which :func:`ceiling_snr` tells a ceiling
LEAST_FREEDOM = 8  # degrees of freedom within images from which noise is told


def tells_noise(repeats: Rows) -> bool:
    """Whether images (n_images,) were repeated often enough to tell how trials vary.

    A few repeats among images shown once do not: of a single one, the variance has one degree of freedom, and
    voxels of no signal then pass for reliable ones half of the time.

    >>> tells_noise(np.array([1, 1, 1, 2])), tells_noise(np.array([3, 3, 3, 3]))
    (False, True)
    """
    return int(np.sum(np.maximum(repeats - 1, 0))) >= LEAST_FREEDOM


def signal_and_noise(trials: NDArray[Any], image_of_trial: Rows) -> tuple[Float64, Float64]:
    """Variance of the signal over images and of the noise over trials, per voxel (one-way random effects).

    Unbiased for any number of repeats per image, equal or not, but for a negative signal variance, which
    is set to 0.

    Args:
        trials: (n_trials, n_voxels), single-trial responses.
        image_of_trial: (n_trials,) which image each trial showed, any integers.

    Returns:
        signal, noise: (n_voxels,) float64, unit squared; NaN where no image was repeated, or there is
        only one image.
    """
    signal, noise = _components(trials, image_of_trial)
    return np.maximum(signal, 0.0), noise


def _components(trials: NDArray[Any], image_of_trial: Rows) -> tuple[Float64, Float64]:
    _, image, counts = np.unique(image_of_trial, return_inverse=True, return_counts=True)
    n, k = len(image), len(counts)
    if n <= k or k < 2:
        undefined = np.full(trials.shape[1], np.nan)
        return undefined, undefined.copy()
    signal, noise = np.empty(trials.shape[1]), np.empty(trials.shape[1])
    order = np.argsort(image, kind="stable")
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    mean_count = (n - np.sum(counts**2) / n) / (k - 1)
    for voxels in blocks(trials.shape[1], n):
        values = np.asarray(trials[:, voxels], dtype=np.float64)[order]
        values -= values[0]  # variances stay, and a constant voxel's are 0 instead of rounding errors
        means = np.add.reduceat(values, starts, axis=0) / counts[:, None]
        grand = values.mean(axis=0)
        within = np.sum((values - np.repeat(means, counts, axis=0)) ** 2, axis=0) / (n - k)
        between = np.sum(counts[:, None] * (means - grand) ** 2, axis=0) / (k - 1)
        noise[voxels] = within
        signal[voxels] = (between - within) / mean_count
    return signal, noise


def ncsnr(trials: NDArray[Any], image_of_trial: Rows) -> Float64:
    """Noise-ceiling signal-to-noise ratio, signal sd over noise sd, per voxel.

    Args:
        trials: (n_trials, n_voxels).
        image_of_trial: (n_trials,) which image each trial showed.

    Returns:
        (n_voxels,) float64, at least 0; 0 where a voxel is constant; NaN where no image was repeated.

    >>> trials = np.array([[1.0], [3.0], [5.0], [7.0]])  # two images, two trials each
    >>> ncsnr(trials, np.array([0, 0, 1, 1])).round(2).tolist()
    [1.87]
    """
    signal, noise = signal_and_noise(trials, image_of_trial)
    ratio = np.sqrt(signal / np.where(noise > 0, noise, 1.0))
    return np.asarray(np.where(noise == 0, np.where(signal > 0, np.inf, 0.0), ratio), dtype=np.float64)


def ceiling_snr(trials: NDArray[Any], image_of_trial: Rows) -> Float64:
    """:func:`ncsnr`, corrected so that the noise ceiling of few images is not too low.

    The ceiling of the repeat means is 1 - W / B, with W and B the mean squares within and between images.
    For k images W / B is on average (k - 1) / (k - 3) times too large (mean of an inverse chi-square), so
    it is multiplied by (k - 3) / (k - 1). That matters below a few hundred images; arguments as there. Of
    fewer than :data:`FEWEST_IMAGES` that mean does not exist, and the ceiling is not known: NaN.
    """
    signal, noise = _components(trials, image_of_trial)
    counts = np.unique(image_of_trial, return_counts=True)[1]
    if len(counts) < FEWEST_IMAGES:
        return np.full(len(noise), np.nan)
    left = float(np.mean(1 / counts))
    shrink = (len(counts) - 3) / (len(counts) - 1)
    between = np.maximum(signal + noise * left, 0.0)
    share = shrink * noise * left / np.where(between > 0, between, 1.0)
    share = np.where(between > 0, share, 1.0)
    explained = np.where(np.isnan(noise), np.nan, np.clip(1 - share, 0.0, 1.0))
    odds = explained / np.where(explained < 1, 1 - explained, 1.0)
    return np.asarray(np.where(explained == 1, np.inf, np.sqrt(left * odds)), dtype=np.float64)


def noise_ceiling(snr: NDArray[Any], repeats: float | NDArray[Any] = 1) -> Float64:
    """Share of variance that a perfect model explains in means over ``repeats`` trials.

    Args:
        snr: (n_voxels,) ncsnr.
        repeats: number of trials averaged, or (n_images,) the number for each image (ragged).

    Returns:
        (n_voxels,) float64 in [0, 1]; NaN where ``snr`` is NaN.

    >>> noise_ceiling(np.array([1.0]), repeats=[1, 3]).round(3).tolist()
    [0.6]
    """
    left = float(np.mean(1.0 / np.asarray(repeats, dtype=np.float64)))
    with np.errstate(invalid="ignore"):
        return np.asarray(1.0 / (1.0 + left / np.square(np.maximum(snr, 1e-150))), dtype=np.float64)


def correlation_ceiling(snr: NDArray[Any], repeats: int | NDArray[Any] = 1) -> Float64:
    """Best ``voxel_r`` against means over ``repeats`` trials: the root of :func:`noise_ceiling`.

    >>> correlation_ceiling(np.array([0.5]), repeats=3).round(3).tolist()
    [0.655]
    """
    return np.sqrt(noise_ceiling(snr, repeats))


def fraction_of_ceiling(r: Float64, ceiling: Float64, reliable: NDArray[np.bool_]) -> float | None:
    """``voxel_r`` as a fraction of its ceiling: mean(r) / mean(ceiling) over reliable voxels.

    A ratio of means: a mean of ratios blows up where a ceiling is near 0, and its value would hang on
    those voxels. ``reliable`` should come from other trials than ``r`` and ``ceiling``, for choosing voxels
    on the test noise favours those that were lucky. The value is not cut at 1.

    Args:
        r: (n_voxels,) Pearson across images.
        ceiling: (n_voxels,) from :func:`correlation_ceiling`, for the same number of repeats.
        reliable: (n_voxels,) bool, see :data:`RELIABLE`.
    """
    used = reliable & np.isfinite(r) & np.isfinite(ceiling)
    top = float(np.sum(ceiling[used]))
    return float(np.sum(r[used])) / top if top > 0 else None


def repeat_similarity(trials: NDArray[Any], image_of_trial: Rows, *, centre: bool) -> float | None:
    """Mean similarity across voxels of two different trials of one image, over all such pairs.

    Args:
        trials: (n_trials, n_voxels).
        image_of_trial: (n_trials,).
        centre: True for Pearson, False for cosine.

    Returns:
        In [-1, 1]; None where no image was repeated.
    """
    total, pairs = 0.0, 0
    order = np.argsort(image_of_trial, kind="stable")
    _, counts = np.unique(image_of_trial, return_counts=True)
    for rows in np.split(order, np.cumsum(counts)[:-1]):
        if len(rows) < 2:
            continue
        values = np.asarray(trials[rows], dtype=np.float64)
        for i in range(len(rows) - 1):
            rest = values[i + 1 :]
            r = _correlate(np.broadcast_to(values[i], rest.shape), rest, axis=1, centre=centre)
            total, pairs = total + float(np.nansum(r)), pairs + int(np.isfinite(r).sum())
    return total / pairs if pairs else None


def within_ceiling(similarity: float | None, repeats: int | NDArray[Any] = 1) -> float | None:
    """Similarity (Pearson or cosine across voxels) of the true mean with a mean over ``repeats`` trials.

    Two trials share the image's mean only, so their similarity r is the squared similarity of each with
    that mean; averaging n trials steps r up by Spearman and Brown. Images with different numbers of trials:
    the mean over images, as scores within an image are.
    """
    if similarity is None:
        return None
    r = max(similarity, 0.0)
    left = 1.0 / np.asarray(repeats, dtype=np.float64)
    return float(np.mean(np.sqrt(r / (r + (1 - r) * left)))) if r > 0 else 0.0


def stepped_up(similarity: float | None, times: float = 2.0) -> float | None:
    """Best correlation with data ``times`` as large as each of two parts that correlate by ``similarity``.

    Spearman and Brown give the reliability of the larger data, ``k r / (1 + (k - 1) r)``; the truth
    correlates with it by the root. For two halves and the whole, ``times`` is 2.
    """
    if similarity is None:
        return None
    if similarity <= 0:
        return 0.0
    return float(np.sqrt(times * similarity / (1 + (times - 1) * similarity)))
