"""Responses in units of their trial noise, with half of what voxels' noise has in common taken out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.utils.extmath import randomized_svd

from synbrain.arrays import Float32, Float64
from synbrain.features.tokens import Pairs, some_of
from synbrain.metrics.ceiling import tells_noise
from synbrain.metrics.voxel import blocks

MOST_TRIALS, MOST_PATTERNS = 6000, 32
BLOCK_VALUES = 1 << 23
POWER = 0.5  # of the noise covariance that is divided out


@dataclass(frozen=True)
class NoiseUnits:
    """A change of coordinates of the voxels, ``x / sd`` with a factor for each shared pattern of noise.

    Attributes:
        sd: (n_voxels,) unit of each voxel.
        patterns: (n_voxels, k) orthonormal.
        factors: (k,) what scores on them are multiplied by; below 1 where noise is strong.
    """

    sd: Float32
    patterns: Float32
    factors: Float32

    @classmethod
    def scaled(cls, sd: Float32) -> NoiseUnits:
        """Voxels over ``sd`` alone."""
        return cls(sd, np.zeros((len(sd), 0), dtype=np.float32), np.ones(0, dtype=np.float32))

    @property
    def unchanged(self) -> bool:
        """Whether these coordinates are the responses' unit."""
        return self.patterns.shape[1] == 0 and bool(np.all(self.sd == 1))

    def into(self, x: Float32) -> Float32:
        """(n, n_voxels) from the responses' unit into these coordinates."""
        scaled = x / self.sd
        scaled += ((scaled @ self.patterns) * (self.factors - 1)) @ self.patterns.T
        return scaled

    def back(self, x: Float32) -> Float32:
        """(n, n_voxels) from these coordinates into the responses' unit."""
        out = x + ((x @ self.patterns) * (1 / self.factors - 1)) @ self.patterns.T
        out *= self.sd
        return np.asarray(out)


def no_units(n_voxels: int) -> NoiseUnits:
    """Coordinates that change nothing."""
    return NoiseUnits.scaled(np.ones(n_voxels, dtype=np.float32))


def noise_units(pairs: Pairs, means: Float32, *, seed: int = 0) -> NoiseUnits:
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
    if not tells_noise(repeats):
        spread = np.std(means, axis=0)
        return NoiseUnits.scaled(_positive(spread))
    usable = some_of(np.flatnonzero(repeats[pairs.image_of_trial] > 1), MOST_TRIALS, (seed, 4))
    image = pairs.image_of_trial[usable]
    left = ((repeats[image] - 1) / repeats[image]).astype(
        np.float32
    )  # of a trial's variance, beside its mean
    residual = pairs.trial_responses(usable)
    for part in blocks(len(usable), pairs.n_voxels, BLOCK_VALUES):
        residual[part] -= means[image[part]]
    residual /= np.sqrt(left)[:, None]
    sd = _positive(np.sqrt(np.einsum("ij,ij->j", residual, residual) / len(residual)))
    residual /= sd
    varies = (residual != 0).any(
        axis=0
    )  # constant voxels add none of the variance that patterns stand out of
    patterns, sizes = np.zeros((len(sd), 0), dtype=np.float32), np.ones(0)
    if varies.any():
        known, sizes = _spikes(residual if varies.all() else residual[:, varies], freedom=float(left.sum()))
        patterns = np.zeros((len(sd), len(sizes)), dtype=np.float32)
        patterns[varies] = known
    return NoiseUnits(sd, patterns, (sizes ** (-POWER / 2)).astype(np.float32))


def _positive(sd: Float32) -> Float32:
    return np.where(sd > 1e-12, sd, 1.0).astype(np.float32)


def _spikes(z: Float32, freedom: float) -> tuple[Float32, Float64]:
    """Patterns (n_voxels, k) whose variance stands out, and that variance over the other patterns'."""
    n, n_voxels = z.shape
    most = min(MOST_PATTERNS, n - 1, n_voxels - 1)
    if most < 1:
        return np.zeros((n_voxels, 0), dtype=np.float32), np.ones(0)
    _, s, patterns = randomized_svd(z, most, random_state=0)
    sizes = s.astype(np.float64) ** 2 / n
    aspect = n_voxels / freedom
    kept = 0
    for k in range(1, most + 1):  # each pattern is held against what the ones before it leave over
        rest = (n_voxels - float(sizes[: k - 1].sum())) / (n_voxels - k + 1)
        if sizes[k - 1] <= rest * (1 + np.sqrt(aspect)) ** 2:
            break
        kept = k
    rest = (n_voxels - float(sizes[:kept].sum())) / (n_voxels - kept)
    if rest <= 1e-12:
        return np.zeros((n_voxels, 0), dtype=np.float32), np.ones(0)
    seen = sizes[:kept] / rest
    middle = seen + 1 - aspect
    true = (middle + np.sqrt(np.maximum(middle**2 - 4 * seen, 0))) / 2
    return np.asarray(patterns[:kept].T), np.maximum(true, 1.0)
