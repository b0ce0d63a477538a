"""Responses in units of their trial noise, with half of what voxels' noise has in common taken out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.utils.extmath import randomized_svd

from synbrain.arrays import Float64
from synbrain.features.tokens import Pairs, some_of

LEAST_FREEDOM = 8  # degrees of freedom within images from which noise is told
MOST_TRIALS, MOST_PATTERNS = 6000, 32
POWER = 0.5  # of the noise covariance that is divided out


@dataclass(frozen=True)
class NoiseUnits:
    """A change of coordinates of the voxels, ``x / sd`` with a factor for each shared pattern of noise.

    Attributes:
        sd: (n_voxels,) unit of each voxel.
        patterns: (n_voxels, k) orthonormal.
        factors: (k,) what scores on them are multiplied by; below 1 where noise is strong.
    """

    sd: Float64
    patterns: Float64
    factors: Float64

    def into(self, x: Float64) -> Float64:
        """(n, n_voxels) from the responses' unit into these coordinates."""
        scaled = x / self.sd
        return np.asarray(scaled + ((scaled @ self.patterns) * (self.factors - 1)) @ self.patterns.T)

    def back(self, x: Float64) -> Float64:
        """(n, n_voxels) from these coordinates into the responses' unit."""
        return np.asarray((x + ((x @ self.patterns) * (1 / self.factors - 1)) @ self.patterns.T) * self.sd)


def no_units(n_voxels: int) -> NoiseUnits:
    """Coordinates that change nothing."""
    return NoiseUnits(np.ones(n_voxels), np.zeros((n_voxels, 0)), np.ones(0))


def noise_units(pairs: Pairs, means: Float64, *, seed: int = 0) -> NoiseUnits:
    """Coordinates in which patterns with little noise count more than those with much.

    Least squares over correlated noise would divide by all of its covariance (``POWER`` 1). Half of it is
    divided out, which loses little where signal lies along noise patterns and its weights are shrunk one
    response at a time. Noise comes from residuals within images, which tell nothing of the repeat means:
    choosing coordinates by them leaves cross-validation honest. Patterns are those whose variance passes
    what independent noise would reach (Marchenko-Pastur), brought back to their true size (the spiked
    model of Baik and Silverstein 2006). Without repeats, units are the sd of the responses.

    Args:
        pairs: training images with their trials.
        means: (n_images, n_voxels), repeat means.
        seed: of the trials that are looked at, where there are many.
    """
    repeats = pairs.repeats()
    if int(np.sum(np.maximum(repeats - 1, 0))) < LEAST_FREEDOM:
        spread = np.std(means, axis=0)
        return NoiseUnits(_positive(spread), np.zeros((pairs.n_voxels, 0)), np.ones(0))
    usable = some_of(np.flatnonzero(repeats[pairs.image_of_trial] > 1), MOST_TRIALS, (seed, 4))
    image = pairs.image_of_trial[usable]
    left = (repeats[image] - 1) / repeats[image]  # share of a trial's variance that its mean leaves
    residual = (pairs.trial_responses(usable) - means[image]) / np.sqrt(left)[:, None]
    sd = _positive(np.sqrt(np.mean(residual**2, axis=0)))
    patterns, sizes = _spikes(residual / sd, freedom=float(left.sum()))
    return NoiseUnits(sd, patterns, sizes ** (-POWER / 2))


def _positive(sd: Float64) -> Float64:
    return np.where(sd > 1e-12, sd, 1.0)


def _spikes(z: Float64, freedom: float) -> tuple[Float64, Float64]:
    """Patterns (n_voxels, k) whose variance stands out, and that variance over the other patterns'."""
    n, n_voxels = z.shape
    most = min(MOST_PATTERNS, n - 1, n_voxels - 1)
    if most < 1:
        return np.zeros((n_voxels, 0)), np.ones(0)
    _, s, patterns = randomized_svd(z, most, random_state=0)
    sizes = s**2 / n
    aspect = n_voxels / freedom
    kept = 0
    for k in range(1, most + 1):  # each pattern is held against what the ones before it leave over
        rest = (n_voxels - float(sizes[: k - 1].sum())) / (n_voxels - k + 1)
        if sizes[k - 1] <= rest * (1 + np.sqrt(aspect)) ** 2:
            break
        kept = k
    rest = (n_voxels - float(sizes[:kept].sum())) / (n_voxels - kept)
    if rest <= 1e-12:
        return np.zeros((n_voxels, 0)), np.ones(0)
    found = sizes[:kept] / rest
    middle = found + 1 - aspect
    true = (middle + np.sqrt(np.maximum(middle**2 - 4 * found, 0))) / 2
    return np.asarray(patterns[:kept].T, dtype=np.float64), np.maximum(true, 1.0)
