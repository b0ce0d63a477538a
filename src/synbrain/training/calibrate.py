"""``synbrain.training.calibrate``: refit the noise of a model on other recordings; its mean stays."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from synbrain.arrays import Float32
from synbrain.data.dataset import Dataset
from synbrain.errors import SynBrainError
from synbrain.features.store import open_untuned
from synbrain.features.tokens import Pairs, pairs_of
from synbrain.files import require_absent
from synbrain.model.subject import require_recorded
from synbrain.model.synbrain import SynBrain
from synbrain.noise.config import NoiseConfig
from synbrain.noise.fit import fit_response_noise
from synbrain.noise.prior import prior_of
from synbrain.noise.response_noise import ResponseNoise

PLAIN_NOISE = NoiseConfig()


def calibrate(
    model: SynBrain,
    dataset: Dataset,
    *,
    out: Path | None = None,
    subject: str | None = None,
    noise: NoiseConfig = PLAIN_NOISE,
    fitted_on_other_images: bool = False,
    seed: int = 0,
    overwrite: bool = False,
) -> SynBrain:
    """Refit the noise of a model on the training trials of a dataset; the mean is not touched.

    Trial noise is always refitted. What is not known of the mean is refitted only where the mean was fitted
    on other images: around means that have seen their image, errors are too small.

    Args:
        model: whose mean is kept; it is not changed.
        dataset: recordings of the same voxels, with tokens of the model's encoder.
        out: run folder to write; None: nothing is kept on disk.
        subject: whose noise, where the model has several subjects.
        noise: how the noise is fitted.
        fitted_on_other_images: say that the mean was not fitted on this dataset's training images; else the
            error of the mean is kept from the older noise, with the shape of predictive margins.
        seed: of the split that picks the number of factors.
        overwrite: replace a run that stands at ``out``.

    Returns:
        A model with the new noise; ``model.subject().noise.record`` says what was fitted.

    Raises:
        SynBrainError: for recordings of other voxels or another unit, or an ``out`` that is taken.
    """
    if out is not None:
        require_absent(out, overwrite)
    part = model.subject(subject)
    if dataset.n_voxels != part.n_voxels or dataset.info.unit != part.unit:
        raise SynBrainError(
            f"{dataset.path} has {dataset.n_voxels} voxels in {dataset.info.unit}, {part.name} of the run "
            f"{part.n_voxels} in {part.unit}",
            "calibrate on recordings of the same voxels, prepared with the same scaling",
        )
    require_recorded(part, dataset, chosen=subject is not None)
    pairs = pairs_of(*open_untuned(dataset, model.config.encoder, model.config.layers), "train")
    mean = model.predict(pairs.tokens, subject=part.name)
    fitted = _refitted(pairs, mean, part.noise, noise, fitted_on_other_images, seed, model.device)
    subjects = model.subjects | {part.name: dataclasses.replace(part, noise=fitted)}
    calibrated = SynBrain(model.config, subjects, model.vae, model.mapper, device=model.device)
    if out is not None:
        calibrated.save_pretrained(out, overwrite=overwrite)
    return calibrated


def _refitted(
    pairs: Pairs,
    mean: Float32,
    older: ResponseNoise | None,
    config: NoiseConfig,
    fitted_on_other_images: bool,
    seed: int,
    device: torch.device,
) -> ResponseNoise:
    """Trial noise of ``pairs``; the error of the mean too, where ``mean`` was not fitted on their images."""
    # distances are those from the images that the mean was fitted on, which the older noise knows
    prior = prior_of([] if older is None else [older])
    if older is not None:
        prior = dataclasses.replace(prior, distance=older.error.distance)
    fitted = fit_response_noise(pairs, mean, config, prior=prior, seed=seed, device=device)
    if fitted_on_other_images or older is None:
        return fitted
    kept = older.record
    record = fitted.record.model_copy(
        update={
            "error_factors": kept.error_factors,
            "error_over_trial_variance": kept.error_over_trial_variance,
            "growth_with_distance": kept.growth_with_distance,
            "error_kept": True,
            "coverage_50": None,  # of intervals around means that have seen their image: it says nothing
            "coverage_90": None,
        }
    )
    return dataclasses.replace(fitted, error=older.error, skew=older.skew, tail=older.tail, record=record)
