"""Trial noise of a new subject: from its repeats; where it has none, split as the base subjects' is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from synbrain.features.tokens import Pairs
from synbrain.noise.config import NoiseConfig
from synbrain.noise.fit import fit_response_noise
from synbrain.noise.response_noise import ResponseNoise


def fit_noise_with_prior(
    pairs: Pairs,
    mean: NDArray[np.float32],
    config: NoiseConfig,
    base: Sequence[ResponseNoise],
    *,
    seed: int = 0,
) -> ResponseNoise:
    """Fit trial noise; without repeats, tell noise from errors of the mean by the base subjects' ratio.

    Residuals around the mean of images that were shown once hold trial noise and the errors of the mean.
    Base subjects with repeats know how the two divide: their residuals around a cross-fitted mean vary by a
    factor ``needed`` (median voxel) more than their repeats do. The new subject's noise variance is its
    residual variance over that factor, and the inflation that the base's samples carry comes on top.

    Args:
        pairs: trials of the new subject's training images.
        mean: (n_images, n_voxels) float32, cross-fitted.
        config: see there.
        base: trial noise of base subjects; noise that was fitted on repeats is looked at.
        seed: as for :func:`fit_response_noise`.
    """
    noise = fit_response_noise(pairs, mean, config, seed=seed)
    repeated = [of_base for of_base in base if of_base.source == "repeats"]
    if noise.source == "repeats" or not repeated:
        return noise
    needed = float(np.median([max(of_base.variance_needed, 1.0) for of_base in repeated]))
    inflation = float(np.median([np.median(of_base.inflation) for of_base in repeated]))
    within = noise.noise_variance / needed
    repeats = float(np.mean(1 / np.maximum(pairs.repeats(), 1)))
    return replace(
        noise,
        base=noise.base / np.float32(needed),
        slope=noise.slope / np.float32(needed),
        floor=noise.floor / np.float32(needed),
        inflation=np.full_like(noise.inflation, inflation),
        noise_variance=within,
        signal_variance=np.maximum(noise.signal_variance - within * np.float32(repeats), 0).astype(
            np.float32
        ),
        source="base subjects",
        about={**noise.about, "residual_over_noise_variance_of_base": needed},
    )
