"""Trials of an image, and what can be said of a trial before it is measured.

A single response is ``predicted mean + error of the mean + trial noise``. :meth:`ResponseNoise.sample` holds
the last alone: trials as a scanner gives them, all around one mean. Predictive draws, intervals and densities
hold both: how far a new measurement may lie from the prediction.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from scipy.special import ndtri

from synbrain.arrays import Float32, Float64
from synbrain.errors import SynBrainError
from synbrain.features.tokens import TokenSet
from synbrain.files import atomic_path, read_json, write_json
from synbrain.metrics.low_rank import log_density
from synbrain.noise.image_distance import ImageDistance
from synbrain.noise.margins import unwarp, warp, warper
from synbrain.noise.parts import MeanError, NoiseRecord, TrialNoise

CONFIG, WEIGHTS = "config.json", "model.safetensors"


@dataclass(frozen=True)
class ResponseNoise:
    """Both uncertainties of one subject's responses.

    A trial that is still to be measured is ``mean + sd(x) * warp(z)``, where ``sd(x)^2`` is the sum of both
    variances, z correlates as their sum does, and ``warp`` is the shape of their sum.

    Attributes:
        trial: what a trial adds to the true mean.
        error: what is not known of the mean.
        skew, tail: (n_voxels,) float32, shape of the sum's margin (:mod:`synbrain.noise.margins`).
        signal_variance: (n_voxels,) float32, variance over images of the true mean (unit^2); with
            ``noise_variance`` it gives the noise ceiling.
        noise_variance: (n_voxels,) float32, trial variance within an image, averaged over images.
        record: how they were fitted.
    """

    trial: TrialNoise
    error: MeanError
    skew: Float32
    tail: Float32
    signal_variance: Float32
    noise_variance: Float32
    record: NoiseRecord

    @property
    def n_voxels(self) -> int:
        return len(self.noise_variance)

    def sample(self, mean: Float32, n_samples: int, seed: int, first_image: int = 0) -> Float32:
        """Draw trials of images with these means, which every trial of an image shares.

        Image i has a generator of its own, made of ``seed`` and ``first_image + i``: images may be
        drawn in any batches, and the first samples do not depend on how many follow.

        Args:
            mean: (n_images, n_voxels) float32.
            n_samples: trials per image.
            seed: non-negative.
            first_image: position of ``mean[0]`` in the whole list of images.

        Returns:
            (n_samples, n_images, n_voxels) float32.
        """
        sd = np.sqrt(self.trial.variance(mean))
        bend = warper(self.trial.skew, self.trial.tail)
        trials = np.empty((n_samples, *mean.shape), dtype=np.float32)
        for image in range(len(mean)):
            z = _normals(self.trial.loadings, self.trial.unique, n_samples, [seed, first_image + image])
            trials[:, image] = mean[image] + sd[image] * bend(z)
        return trials

    def predictive_variance(self, mean: NDArray[Any], growth: Float64) -> Float32:
        """(n_images, n_voxels) float32, of single trials around the predicted mean: both variances summed.

        Args:
            mean: (n_images, n_voxels), predicted.
            growth: (n_images,), from ``error.growth(tokens)``.
        """
        of_mean = np.asarray(growth, dtype=np.float32)[:, None] * self.error.sd**2
        return np.asarray(self.trial.variance(mean) + of_mean, dtype=np.float32)

    def predictive_sample(
        self, mean: Float32, growth: Float64, n_samples: int, seed: int, first_image: int = 0
    ) -> Float32:
        """Draw what one measurement of each image may be: every draw has its own error of the mean.

        Args:
            mean: (n_images, n_voxels) float32, predicted.
            growth: (n_images,), from ``error.growth(tokens)``.
            n_samples, seed, first_image: as for :meth:`sample`.

        Returns:
            (n_samples, n_images, n_voxels) float32.
        """
        sd = np.sqrt(self.predictive_variance(mean, growth))
        bend = warper(self.skew, self.tail)
        draws = np.empty((n_samples, *mean.shape), dtype=np.float32)
        for image, (loadings, unique) in enumerate(self._correlations(mean, growth)):
            z = _normals(loadings, unique, n_samples, [seed, first_image + image, 1])
            draws[:, image] = mean[image] + sd[image] * bend(z)
        return draws

    def interval(self, mean: Float32, growth: Float64, level: float) -> Float32:
        """(2, n_images, n_voxels) float32, ends of the central interval of ``level`` of a single trial.

        Raises:
            SynBrainError: for a level that is not between 0 and 1.
        """
        if not 0 < level < 1:
            raise SynBrainError(f"an interval of level {level}", "give a level between 0 and 1, such as 0.9")
        ends = np.repeat(ndtri([[(1 - level) / 2], [(1 + level) / 2]]), self.n_voxels, axis=1)
        standard = warp(ends, self.skew, self.tail).astype(np.float32)
        return np.asarray(mean + standard[:, None] * np.sqrt(self.predictive_variance(mean, growth)))

    def log_prob(self, mean: Float32, growth: Float64, responses: Float32) -> Float64:
        """(n,) float64, log density of ``responses`` (n, n_voxels), single trials, around ``mean``.

        Solved through the small matrix of the low-rank part (Woodbury), so no n_voxels^2 array is made.
        """
        sd = np.sqrt(self.predictive_variance(mean, growth).astype(np.float64))
        z, log_slope = unwarp((responses - mean) / sd, self.skew, self.tail)
        density = np.sum(log_slope - np.log(sd), axis=1)
        for image, (loadings, unique) in enumerate(self._correlations(mean, growth)):
            density[image] += log_density(z[image : image + 1], loadings, unique)[0]
        return np.asarray(density)

    def noise_ceiling(self, n_repeats: int = 1) -> Float32:
        """(n_voxels,) float32, share of variance that the true mean explains of ``n_repeats``-trial means."""
        total = self.signal_variance + self.noise_variance / n_repeats
        return np.asarray(self.signal_variance / np.maximum(total, 1e-30), dtype=np.float32)

    def growth(self, tokens: TokenSet) -> Float64:
        """(n_images,) factor on the variance of the mean's error for each image."""
        return self.error.growth(tokens)

    def _correlations(self, mean: Float32, growth: Float64) -> Iterator[tuple[Float32, Float32]]:
        """Image by image, factors of the correlation of the sum.

        With a the error's fraction of a voxel's variance, R = D R_trial D + A R_error A, where D^2 = 1 - a
        and A^2 = a are diagonal.
        """
        trial, error = self.trial, self.error
        for m, g in zip(mean, growth, strict=True):
            of_error = np.float32(g) * error.sd**2
            a = of_error / np.maximum(trial.variance(m) + of_error, np.float32(1e-30))
            weights = np.sqrt(1 - a)[:, None], np.sqrt(a)[:, None]
            loadings = np.concatenate([weights[0] * trial.loadings, weights[1] * error.loadings], axis=1)
            yield loadings, (1 - a) * trial.unique + a * error.unique

    def save(self, folder: Path) -> list[str]:
        """Write the noise into ``folder`` and return the file names written."""
        folder.mkdir(parents=True, exist_ok=True)
        distance = self.error.distance
        tensors = {name: getattr(self, name) for name in _OWN}
        tensors |= {f"trial.{name}": getattr(self.trial, name) for name in _TRIAL}
        tensors |= {f"error.{name}": getattr(self.error, name) for name in _ERROR}
        config: dict[str, Any] = {"record": self.record.model_dump(mode="json"), "slope": self.error.slope}
        if distance is not None:
            tensors |= {f"distance.{name}": getattr(distance, name) for name in _DISTANCE}
            config["distance"] = {"layers": list(distance.layers), "unit": distance.unit}
        with atomic_path(folder / WEIGHTS) as partial:
            arrays = {k: np.ascontiguousarray(v, dtype=np.float32) for k, v in tensors.items()}
            save_file(arrays, partial)
        write_json(folder / CONFIG, config)
        return [CONFIG, WEIGHTS]

    @classmethod
    def load(cls, folder: Path) -> ResponseNoise:
        """Read a noise that :meth:`save` wrote."""
        tensors, config = load_file(folder / WEIGHTS), read_json(folder / CONFIG)
        distance = None
        if kept := config.get("distance"):
            arrays = {name: tensors[f"distance.{name}"] for name in _DISTANCE}
            distance = ImageDistance(tuple(kept["layers"]), **arrays, unit=float(kept["unit"]))
        error = {name: tensors[f"error.{name}"] for name in _ERROR}
        return cls(
            trial=TrialNoise(**{name: tensors[f"trial.{name}"] for name in _TRIAL}),
            error=MeanError(**error, slope=float(config["slope"]), distance=distance),
            **{name: tensors[name] for name in _OWN},
            record=NoiseRecord.model_validate(config["record"]),
        )


_OWN = ("skew", "tail", "signal_variance", "noise_variance")
_TRIAL = tuple(field.name for field in fields(TrialNoise))
_ERROR = ("sd", "loadings", "unique")
_DISTANCE = ("centre", "size", "axes", "told")


def _normals(loadings: Float32, unique: Float32, n: int, seed: list[int]) -> Float32:
    """(n, n_voxels) float32 of covariance ``L L' + diag(u)``."""
    rank = loadings.shape[1]
    rng = np.random.Generator(np.random.SFC64(seed))
    draws = rng.standard_normal((n, rank + len(unique)), dtype=np.float32)
    z = draws[:, :rank] @ loadings.T
    z += draws[:, rank:] * np.sqrt(unique)
    return np.asarray(z)
