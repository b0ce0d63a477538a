"""What can be said of a single trial before it is measured: trial noise and error of the mean in one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from synbrain.arrays import Float32, Float64
from synbrain.errors import SynBrainError
from synbrain.metrics.low_rank import log_density
from synbrain.noise.margins import unwarp, warp, warper
from synbrain.noise.parts import MeanError, TrialNoise, correlated_normals


def interval_ends(level: float, skew: Float32, tail: Float32) -> Float32:
    """(2, n_voxels) float32, ends of the central interval around a mean of 0 in sd: the same for all images.

    Raises:
        SynBrainError: for a level that is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise SynBrainError(f"an interval of level {level}", "give a level between 0 and 1, such as 0.9")
    ends = np.repeat(ndtri([[(1 - level) / 2], [(1 + level) / 2]]), len(skew), axis=1)
    return warp(ends, skew, tail).astype(np.float32)


@dataclass(frozen=True)
class Predictive:
    """Distribution of one trial of each of some images: ``mean + sd * warp(z)``.

    ``sd^2`` is the sum of both variances, and z are normals that correlate as the sum does. With a the
    error's fraction of a voxel's variance::

        corr(z) = D R_trial D + A R_error A,    D^2 = diag(1 - a),  A^2 = diag(a)

    Attributes:
        trial, error: the two parts.
        skew, tail: (n_voxels,) float32, shape of the sum's margin (:mod:`synbrain.noise.margins`).
        mean: (n_images, n_voxels) float32, predicted.
        growth: (n_images,), factor on the variance of the mean's error.
    """

    trial: TrialNoise
    error: MeanError
    skew: Float32
    tail: Float32
    mean: Float32
    growth: Float64

    @property
    def error_variance(self) -> Float32:
        """(n_images, n_voxels) float32, of the mean's error."""
        return np.asarray(self.growth[:, None] * self.error.sd**2, dtype=np.float32)

    @property
    def sd(self) -> Float32:
        """(n_images, n_voxels) float32, of a single trial around the predicted mean."""
        return np.asarray(np.sqrt(self.trial.variance(self.mean) + self.error_variance), dtype=np.float32)

    def sample(self, n_samples: int, seed: int, first_image: int = 0) -> Float32:
        """(n_samples, n_images, n_voxels) float32; every draw has its own error of the mean.

        Image i has a generator of its own, made of ``seed`` and ``first_image + i``, as for trials.
        """
        bend = warper(self.skew, self.tail)
        draws = np.empty((n_samples, *self.mean.shape), dtype=np.float32)
        sds = self.sd
        for image, (loadings, unique) in enumerate(self._correlations()):
            z = correlated_normals(loadings, unique, n_samples, [seed, first_image + image, 1])
            draws[:, image] = self.mean[image] + sds[image] * bend(z)
        return draws

    def interval(self, level: float) -> Float32:
        """(2, n_images, n_voxels) float32, ends of the central interval that holds a trial with ``level``.

        Raises:
            SynBrainError: for a level that is not between 0 and 1.
        """
        return np.asarray(self.mean + interval_ends(level, self.skew, self.tail)[:, None] * self.sd)

    def log_prob(self, responses: Float32) -> Float64:
        """(n_images,) float64, log density of ``responses`` (n_images, n_voxels), one trial an image.

        Solved through the small matrix of the low-rank part (Woodbury), so no n_voxels^2 array is made.
        """
        sd = self.sd.astype(np.float64)
        z, log_slope = unwarp((responses - self.mean) / sd, self.skew, self.tail)
        density = np.sum(log_slope - np.log(sd), axis=1)
        for image, (loadings, unique) in enumerate(self._correlations()):
            density[image] += log_density(z[image : image + 1], loadings, unique)[0]
        return np.asarray(density)

    def _correlations(self) -> Iterator[tuple[Float32, Float32]]:
        """Image by image, (n_voxels, k) factors of corr(z) and (n_voxels,) what they leave of 1."""
        trial, error = self.trial, self.error
        for mean, of_error in zip(self.mean, self.error_variance, strict=True):
            a = of_error / np.maximum(trial.variance(mean) + of_error, np.float32(1e-30))
            loadings = [np.sqrt(1 - a)[:, None] * trial.loadings, np.sqrt(a)[:, None] * error.loadings]
            yield np.concatenate(loadings, axis=1), (1 - a) * trial.unique + a * error.unique
