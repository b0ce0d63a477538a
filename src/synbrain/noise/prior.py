"""Both uncertainties of a new subject, with what base subjects have as a prior."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from synbrain.features.tokens import Pairs
from synbrain.metrics.device import Device
from synbrain.noise.config import NoiseConfig
from synbrain.noise.fit import NoisePrior, fit_response_noise
from synbrain.noise.response_noise import ResponseNoise


def prior_of(base: Sequence[ResponseNoise]) -> NoisePrior:
    """What base subjects whose images were repeated teach: medians over them.

    Residuals of images that were shown once hold trial noise and errors of the mean. With q the base's
    variance of the errors over that of trials, trials are taken to be ``1 / (1 + q)`` of the residuals.
    """
    records = [noise.record for noise in base if noise.record.source == "repeats"]
    if not records:
        return NoisePrior()
    return NoisePrior(
        trial_fraction=float(np.median([1 / (1 + record.error_over_trial_variance) for record in records])),
        growth=float(np.median([record.growth_with_distance for record in records])),
    )


def fit_noise_with_prior(
    pairs: Pairs,
    mean: NDArray[np.float32],
    config: NoiseConfig,
    base: Sequence[ResponseNoise],
    *,
    seed: int = 0,
    device: Device = "cpu",
) -> ResponseNoise:
    """:func:`fit_response_noise` with :func:`prior_of` the base subjects.

    Args:
        pairs: trials of the new subject's training images.
        mean: (n_images, n_voxels) float32, cross-fitted.
        config: see there.
        base: of base subjects; those that were fitted on repeats are looked at.
        seed, device: as for :func:`fit_response_noise`.
    """
    return fit_response_noise(pairs, mean, config, prior=prior_of(base), seed=seed, device=device)
