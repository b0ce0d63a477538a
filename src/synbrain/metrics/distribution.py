"""Whether synthetic trials vary as measured ones do: CRPS, energy score, spread, coverage, covariance.

Estimators are fair (unbiased in the number of samples: Ferro 2014), so that a model is not rewarded for
drawing more samples; a deterministic model is a point mass and scores its absolute error. All functions
take one block of images, so that samples of many images never stand in memory together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import pdist

from synbrain.arrays import Float64, Rows
from synbrain.metrics.device import Device, distances, host, on, ordered


def is_point_mass(samples: NDArray[Any]) -> bool:
    """Whether all samples are one: a single one, or a view that repeats it (``np.broadcast_to``)."""
    return len(samples) == 1 or samples.strides[0] == 0


def crps(samples: NDArray[Any], trials: NDArray[Any], image_of_trial: Rows) -> Float64:
    """Fair CRPS of each measured trial under the synthetic trials of its image, per voxel.

    Args:
        samples: (n_samples, n_images, n_voxels), synthetic trials; one sample is a point mass.
        trials: (n_trials, n_voxels), measured single trials, same unit.
        image_of_trial: (n_trials,) row of ``samples``' second axis that each trial showed.

    Returns:
        (n_trials, n_voxels) float64, in the unit of the responses; smaller is better. Single values can be
        slightly negative (the price of no bias), means are not.
    """
    return crps_and_covered(samples, trials, image_of_trial, ())[0]


def crps_and_covered(
    samples: NDArray[Any],
    trials: NDArray[Any],
    image_of_trial: Rows,
    levels: Sequence[float],
    device: Device = "cpu",
) -> tuple[Float64, dict[float, NDArray[np.bool_]]]:
    """:func:`crps`, and :func:`covered` for each level, from one sorting of the samples on ``device``."""
    for level in levels:
        if len(samples) < min_samples(level):
            raise ValueError(f"{min_samples(level)} samples at least for a {level:.0%} interval")
    if is_point_mass(samples):
        point = np.asarray(samples[0])[image_of_trial]
        error = np.abs(np.asarray(trials, dtype=np.float64) - point)
        return np.asarray(error), {level: np.asarray(trials == point) for level in levels}
    n, scores = len(samples), np.empty(trials.shape)
    inside = {level: np.empty(trials.shape, dtype=np.bool_) for level in levels}
    # on sorted samples: sum_i<k |x_i - x_k| / n (n - 1)
    pairs = on((2 * np.arange(n) - n + 1) / (n * (n - 1)), device)
    for image in np.unique(image_of_trial):
        shown = np.flatnonzero(image_of_trial == image)
        drawn, seen = on(samples[:, image], device), on(trials[shown], device)
        sorted_samples = ordered(drawn.T)
        for row, score in zip(shown, _crps(drawn, seen, sorted_samples @ pairs), strict=True):
            scores[row] = host(score)
        for level in levels:
            inside[level][shown] = host(_inside(sorted_samples, seen, level))
    return scores, inside


def _crps(drawn: Any, trials: Any, spread: Any) -> Iterator[Any]:
    """Scores (n_voxels,) of each of an image's trials, given half the mean distance of its samples."""
    for trial in trials:  # E|x - y| - E|x - x'| / 2, over pairs of different samples
        yield abs(drawn - trial).mean(0) - spread


def _inside(sorted_samples: Any, trials: Any, level: float) -> Any:
    """(n_trials, n_voxels) bool, whether trials lie in the central interval of (n_voxels, n_samples)."""
    low, high = (_quantile(sorted_samples, (1 + sign * level) / 2) for sign in (-1, 1))
    return (trials >= low) & (trials <= high)


def _quantile(sorted_samples: Any, share: float) -> Any:
    """Quantile (n,) of sorted (n, n_samples) by Weibull's position, ``share * (n_samples + 1)`` from 1."""
    at, last = share * (sorted_samples.shape[1] + 1) - 1, sorted_samples.shape[1] - 1
    below = int(np.clip(np.floor(at + 1e-9), 0, last))
    above = min(below + 1, last)
    part = min(max(at - below, 0.0), 1.0)
    return sorted_samples[:, below] + part * (sorted_samples[:, above] - sorted_samples[:, below])


def energy_score(
    samples: NDArray[Any], trials: NDArray[Any], image_of_trial: Rows, device: Device = "cpu"
) -> Float64:
    """Fair energy score of each measured trial under the synthetic trials of its image, over all voxels.

    ``mean |x_m - y| - sum |x_m - x_k| / (2 M (M - 1))`` with Euclidean norms over voxels (Gneiting and
    Raftery 2007, eq. 22); it sees whether voxels vary together, which CRPS does not.

    Args:
        samples: (n_samples, n_images, n_voxels).
        trials: (n_trials, n_voxels).
        image_of_trial: (n_trials,).
        device: where distances are computed.

    Returns:
        (n_trials,) float64, in the unit of the responses; smaller is better.
    """
    out, point = np.empty(len(trials)), is_point_mass(samples)
    for image in np.unique(image_of_trial):
        shown = image_of_trial == image
        drawn = on((samples[:1] if point else samples)[:, image], device)
        spread = _mean_distance(drawn) / 2 if len(drawn) > 1 else 0.0
        out[shown] = host(distances(on(trials[shown], device), drawn).mean(1) - spread)
    return out


def _mean_distance(values: Any) -> Any:
    """Mean Euclidean distance of two different rows of (n, n_voxels), by one product instead of n^2 sums."""
    n, centred = len(values), values - values.mean(0)  # so that little is lost where distances are small
    products = centred @ centred.T
    squares = products.diagonal()[:, None] + products.diagonal() - 2 * products  # 0 on the diagonal, exactly
    return (squares.clip(0) ** 0.5).sum() / (n * (n - 1))


def expected_scores(trials: NDArray[Any], image_of_trial: Rows) -> tuple[Float64, Float64]:
    """CRPS and energy score that the true trial distribution would get, from pairs of repeats.

    For y drawn from F itself, CRPS(F, y) = E|X - Y| - E|X - X'| / 2 = E|X - X'| / 2, and two repeats of one
    image are such a pair; the energy score likewise. This is the floor of both scores.

    Args:
        trials: (n_trials, n_voxels).
        image_of_trial: (n_trials,).

    Returns:
        crps (n_repeated_images, n_voxels) and energy (n_repeated_images,), float64; images with fewer than
        two trials are left out.
    """
    crps_rows, energy_rows = [], []
    for image in np.unique(image_of_trial):
        values = np.asarray(trials[image_of_trial == image], dtype=np.float64)
        n = len(values)
        if n < 2:
            continue
        weight = 2 * np.arange(n) - n + 1  # sum over pairs of |difference| from the sorted values
        crps_rows.append(weight @ np.sort(values, axis=0) / (n * (n - 1)))
        energy_rows.append(float(np.mean(pdist(values))) / 2)
    return np.asarray(crps_rows).reshape(-1, trials.shape[1]), np.asarray(energy_rows)


def within_image_squares(trials: NDArray[Any], image_of_trial: Rows) -> tuple[Float64, int]:
    """Sum of squares around each image's mean, per voxel (n_voxels,), and its degrees of freedom."""
    _, image, counts = np.unique(image_of_trial, return_inverse=True, return_counts=True)
    residuals = _centred(np.asarray(trials, dtype=np.float64), image, counts)
    return np.sum(residuals**2, axis=0), int(len(image) - len(counts))


def variance_ratio(synthetic: Float64, measured: Float64) -> Float64:
    """Synthetic over measured within-image trial variance, per voxel.

    Args:
        synthetic, measured: (n_voxels,) variance of trials around their image's mean, unit squared.

    Returns:
        (n_voxels,) float64; NaN where the measured variance is 0.
    """
    alive = measured > 0
    return np.where(alive, synthetic / np.where(alive, measured, 1.0), np.nan)


def min_samples(level: float) -> int:
    """Fewest samples from which a central interval of ``level`` can be told without bias."""
    return int(np.ceil(2 / (1 - level) - 1 - 1e-9))


def covered(samples: NDArray[Any], trials: NDArray[Any], image_of_trial: Rows, level: float) -> NDArray[Any]:
    """Whether each measured trial lies in the central interval of its image's synthetic trials.

    The interval's ends are sample quantiles with plotting position i / (M + 1) (Weibull), which contain a
    further draw of the same distribution with probability ``level`` whatever M is; other definitions cover
    too little for few samples. Fewer than :func:`min_samples` samples cannot give such an interval.

    Args:
        samples: (n_samples, n_images, n_voxels).
        trials: (n_trials, n_voxels).
        image_of_trial: (n_trials,).
        level: 0.9 for the central 90 % interval.

    Returns:
        (n_trials, n_voxels) bool.
    """
    return crps_and_covered(samples, trials, image_of_trial, (level,))[1][level]


def noise_products(trials: NDArray[Any], image_of_trial: Rows) -> tuple[Float64, int]:
    """Sum of outer products of trials around their image's mean, and its degrees of freedom.

    Sums of several blocks add up; divided by the summed degrees of freedom they are the noise covariance.

    Args:
        trials: (n_trials, n_voxels), few hundred voxels (the result is square).
        image_of_trial: (n_trials,).

    Returns:
        (n_voxels, n_voxels) float64, unit squared, and n_trials - n_images.
    """
    _, image, counts = np.unique(image_of_trial, return_inverse=True, return_counts=True)
    residuals = _centred(np.asarray(trials, dtype=np.float64), image, counts)
    return residuals.T @ residuals, int(len(image) - len(counts))


def _centred(values: Float64, image: Rows, counts: Rows) -> Float64:
    means = np.zeros((len(counts), values.shape[1]))
    np.add.at(means, image, values)
    return np.asarray(values - (means / counts[:, None])[image], dtype=np.float64)


def covariance_r(a: Float64, b: Float64) -> float | None:
    """Pearson correlation of the off-diagonal entries of two (n_voxels, n_voxels) covariances.

    None where there are fewer than three voxels, or a side has no off-diagonal structure (a point mass, or
    independent noise without sampling error).
    """
    upper = np.triu_indices(len(a), 1)
    x, y = a[upper], b[upper]
    if len(x) < 3 or np.std(x) == 0 or np.std(y) == 0:
        return None
    return float(np.corrcoef(x, y)[0, 1])


def covariance_split_half(
    trials: NDArray[Any], image_of_trial: Rows, *, n_splits: int = 10, seed: int = 0
) -> float | None:
    """:func:`covariance_r` between the noise covariances of two halves of the images, mean over splits.

    Args:
        trials: (n_trials, n_voxels), few hundred voxels.
        image_of_trial: (n_trials,).
        n_splits: number of random halvings.
        seed: of the halvings.
    """
    images = np.unique(image_of_trial)
    generator = np.random.default_rng(seed)
    values = []
    for _ in range(n_splits):
        chosen = np.isin(image_of_trial, generator.permutation(images)[: len(images) // 2])
        halves = []
        for half in (chosen, ~chosen):
            if not half.any():
                return None
            products, freedom = noise_products(trials[half], image_of_trial[half])
            if freedom < 1:
                return None
            halves.append(products / freedom)
        r = covariance_r(halves[0], halves[1])
        if r is None:
            return None
        values.append(r)
    return float(np.mean(values))
