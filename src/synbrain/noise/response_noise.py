"""How responses vary around a predicted mean: trials of an image, and what a new measurement may be.

A single response is ``predicted mean + error of the mean + trial noise``. :meth:`ResponseNoise.sample` holds
the last alone: trials as a scanner gives them, all around one mean. :meth:`ResponseNoise.predictive` holds
both: how far a new measurement may lie from the prediction.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from synbrain.arrays import Float32
from synbrain.features.tokens import TokenSet
from synbrain.files import atomic_path, read_json, write_json
from synbrain.noise.image_distance import ImageDistance
from synbrain.noise.margins import warper
from synbrain.noise.parts import MeanError, NoiseRecord, TrialNoise, correlated_normals
from synbrain.noise.predictive import Predictive

CONFIG, WEIGHTS = "config.json", "model.safetensors"


@dataclass(frozen=True)
class ResponseNoise:
    """Both uncertainties of one subject's responses.

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
        trial, sd = self.trial, np.sqrt(self.trial.variance(mean))
        bend = warper(trial.skew, trial.tail)
        trials = np.empty((n_samples, *mean.shape), dtype=np.float32)
        for image in range(len(mean)):
            z = correlated_normals(trial.loadings, trial.unique, n_samples, [seed, first_image + image])
            trials[:, image] = mean[image] + sd[image] * bend(z)
        return trials

    def predictive(self, mean: Float32, tokens: TokenSet) -> Predictive:
        """What one measurement of each image may be.

        Args:
            mean: (n_images, n_voxels) float32, predicted.
            tokens: of the images, which tell how far they lie from the training images.
        """
        return Predictive(self.trial, self.error, self.skew, self.tail, mean, self.error.growth(tokens))

    def noise_ceiling(self, n_repeats: float = 1) -> Float32:
        """(n_voxels,) float32, share of variance that the true mean explains of ``n_repeats``-trial means."""
        total = self.signal_variance + self.noise_variance / n_repeats
        return np.asarray(self.signal_variance / np.maximum(total, 1e-30), dtype=np.float32)

    def save(self, folder: Path) -> list[str]:
        """Write the noise into ``folder`` and return the file names written."""
        folder.mkdir(parents=True, exist_ok=True)
        distance = self.error.distance
        tensors = {name: getattr(self, name) for name in _OWN}
        tensors |= {f"trial.{name}": getattr(self.trial, name) for name in _TRIAL}
        tensors |= {f"error.{name}": getattr(self.error, name) for name in _ERROR}
        config: dict[str, Any] = {"record": self.record.model_dump(mode="json"), "slope": self.error.slope}
        if distance is not None:
            tensors |= {f"distance.{stored}": getattr(distance, name) for name, stored in _DISTANCE.items()}
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
            arrays = {name: tensors[f"distance.{stored}"] for name, stored in _DISTANCE.items()}
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
# attribute -> its name in files
_DISTANCE = {"centre": "centre", "size": "size", "axes": "axes", "known": "told"}
