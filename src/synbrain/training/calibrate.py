"""``synbrain.training.calibrate``: refit the trial noise of a model on other repeats; its mean stays."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from synbrain.data.dataset import Dataset
from synbrain.errors import SynBrainError
from synbrain.features.store import open_untuned
from synbrain.features.tokens import pairs_of
from synbrain.files import require_absent
from synbrain.model.synbrain import SynBrain
from synbrain.noise.config import NoiseConfig
from synbrain.noise.fit import fit_response_noise

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
    """Refit the trial noise of a model on the training trials of a dataset; the mean is not touched.

    Args:
        model: whose mean is kept; it is not changed.
        dataset: recordings of the same voxels, with tokens of the model's encoder.
        out: run folder to write; None: nothing is kept on disk.
        subject: whose noise, where the model has several subjects.
        noise: how the noise is fitted.
        fitted_on_other_images: say that the mean was not fitted on this dataset's training images; else its
            errors there are too small to tell, and the inflation of the older noise is kept.
        seed: of the split that picks the number of factors.
        overwrite: replace a run that stands at ``out``.

    Returns:
        A model with the new noise; ``model.subject().noise.about`` says what was fitted.

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
    pairs = pairs_of(*open_untuned(dataset, model.config.encoder, model.config.layers), "train")
    mean = model.predict(pairs.tokens, subject=part.name)
    fitted = fit_response_noise(pairs, mean, noise, seed=seed)
    if not fitted_on_other_images and part.noise is not None:
        kept: dict[str, Any] = {
            "inflation": part.noise.inflation, "skew": part.noise.skew, "tail": part.noise.tail,
        }  # fmt: skip
        about = {k: v for k, v in fitted.about.items() if not k.startswith(("coverage", "variance"))}
        fitted = dataclasses.replace(fitted, **kept, about=about | {"inflation": "kept from the older noise"})
    subjects = model.subjects | {part.name: dataclasses.replace(part, noise=fitted)}
    calibrated = SynBrain(model.config, subjects, model.vae, model.mapper, device=model.device)
    if out is not None:
        calibrated.save_pretrained(out, overwrite=overwrite)
    return calibrated
