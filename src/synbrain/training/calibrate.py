"""``synbrain.training.calibrate``: refit the noise of a model on other recordings; its mean stays."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path

import torch

from synbrain.arrays import Float32
from synbrain.data.dataset import Dataset
from synbrain.describe import counted
from synbrain.errors import SynBrainError, SynBrainWarning
from synbrain.features.store import open_untuned
from synbrain.features.tokens import Pairs, pairs_of
from synbrain.files import require_absent
from synbrain.metrics.ceiling import tells_noise
from synbrain.model.subject import part_of, require_recorded, seen_images
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
    on other images: around means that have seen their image, errors are too small. Which images a run was
    trained on it says itself, but for imported runs and those of older versions.

    Args:
        model: whose mean is kept; it is not changed.
        dataset: recordings of the same voxels, with tokens of the model's encoder.
        out: run folder to write; without it nothing is kept on disk.
        subject: whose noise, where the model has several subjects.
        noise: how the noise is fitted.
        fitted_on_other_images: of a run that does not say what it saw: that this dataset's training images
            are others. Else the error of the mean is kept from the older noise, with the shape of predictive
            margins; where there is none, it stays unknown, with a warning.
        seed: of the split that picks the number of factors.
        overwrite: replace a run that stands at ``out``.

    Returns:
        A model with the new noise; ``model.subject().noise.record`` says what was fitted.

    Raises:
        SynBrainError: for recordings of other voxels or another unit, or an ``out`` that is taken; for images
            that the mean was fitted on, where none of them is repeated or they are said to be others.
    """
    if out is not None:
        require_absent(out, overwrite)
    part = part_of(model, dataset, subject)
    if dataset.n_voxels != part.n_voxels or dataset.info.unit != part.unit:
        raise SynBrainError(
            f"{dataset.path} has {counted(dataset.n_voxels, *dataset.space.unit_words)} in "
            f"{dataset.info.unit}, {part.name} of the run {part.n_voxels} in {part.unit}",
            f"calibrate on recordings of the same {part.space.unit_names}, prepared with the same scaling",
        )
    require_recorded(part, dataset, chosen=subject is not None)
    dataset, tokens = open_untuned(dataset, model.config.encoder, model.config.layers)
    pairs = pairs_of(dataset, tokens, "train")
    are_others = _are_others(model, dataset, fitted_on_other_images)
    if not are_others:
        _require_repeats(pairs, dataset)
    mean = model.predict(pairs.tokens, subject=part.name)
    fitted = _refitted(pairs, mean, part.noise, noise, are_others, seed, model.device)
    subjects = model.subjects | {part.name: dataclasses.replace(part, noise=fitted)}
    parts = model.config, subjects, model.vae, model.mapper, model.report
    calibrated = SynBrain(*parts, known_pictures=model.known_pictures, device=model.device)
    if out is not None:
        calibrated.save_pretrained(out, overwrite=overwrite)
    return calibrated


def _are_others(model: SynBrain, dataset: Dataset, said: bool) -> bool:
    """Whether the mean was fitted on other images than the dataset's training images."""
    try:
        known = seen_images(model, dataset, "train")
    except SynBrainError:  # the pictures are gone
        known = None
    if known is None:
        return said
    n_seen, n_images = known
    if said and n_seen:
        raise SynBrainError(
            f"the run was trained on {n_seen} of {n_images} training images of {dataset.path}",
            "leave out --fitted-on-other-images, or calibrate on other images",
        )
    return n_seen == 0


def _require_repeats(pairs: Pairs, dataset: Dataset) -> None:
    if not tells_noise(pairs.repeats()):
        raise SynBrainError(
            f"no images of {dataset.path} are repeated, and the mean was fitted on them, or may have been: "
            "residuals around it are too small",
            "calibrate on repeats, or on images that the run was not trained on",
        )


def _refitted(
    pairs: Pairs,
    mean: Float32,
    older: ResponseNoise | None,
    config: NoiseConfig,
    are_others: bool,
    seed: int,
    device: torch.device,
) -> ResponseNoise:
    """Trial noise of ``pairs``; the error of the mean too, where ``mean`` was fitted on other images."""
    # distances are those from the images that the mean was fitted on, which the older noise knows
    prior = prior_of([] if older is None else [older])
    if older is not None:
        prior = dataclasses.replace(prior, distance=older.error.distance)
    fitted = fit_response_noise(
        pairs, mean, config, prior=prior, cross_fitted=are_others, seed=seed, device=device
    )
    if are_others:
        return fitted
    # coverage of intervals around means that have seen their image says nothing
    told = {"coverage_50": None, "coverage_90": None}
    if older is None:
        note = "how far the mean is off is not known: it may have seen these images; intervals are too narrow"
        warnings.warn(note, SynBrainWarning, stacklevel=4)
        return dataclasses.replace(fitted, record=fitted.record.model_copy(update=told))
    of_error = ("error_factors", "error_over_trial_variance", "growth_with_distance")
    kept = {name: getattr(older.record, name) for name in of_error}
    record = fitted.record.model_copy(update=told | kept | {"error_kept": True})
    return dataclasses.replace(fitted, error=older.error, skew=older.skew, tail=older.tail, record=record)
