"""``synbrain calibrate``: refit the trial noise of a run on other repeats; its mean stays as it is."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from synbrain.data.dataset import load_dataset
from synbrain.errors import SynBrainError
from synbrain.features.store import open_tokens
from synbrain.features.tokens import pairs_of
from synbrain.files import require_absent
from synbrain.model.synbrain import SynBrain
from synbrain.noise.config import NoiseConfig
from synbrain.noise.fit import fit_response_noise

PLAIN_NOISE = NoiseConfig()


def calibrate(
    run: Path,
    dataset: Path,
    *,
    out: Path,
    subject: str | None = None,
    noise: NoiseConfig = PLAIN_NOISE,
    fitted_on_other_images: bool = False,
    seed: int = 0,
    overwrite: bool = False,
) -> None:
    """Refit the trial noise of a run on the training trials of a dataset; the mean is not touched.

    Args:
        run: run folder.
        dataset: dataset of the same voxels, with tokens of the run's encoder.
        out: run folder to write.
        subject: whose noise, where the run has several subjects.
        noise: how the noise is fitted.
        fitted_on_other_images: say that the run's mean was not fitted on this dataset's training images; else
            its errors there are too small to tell, and the inflation of the run's old noise is kept.
        seed: of the split that picks the number of factors.
        overwrite: replace what stands at out.
    """
    require_absent(out, overwrite)
    model = SynBrain.from_pretrained(run)
    part = model.subject(subject)
    data = load_dataset(dataset)
    if data.n_voxels != part.n_voxels or data.info.unit != part.unit:
        raise SynBrainError(
            f"{dataset} has {data.n_voxels} voxels in {data.info.unit}, {part.name} of the run "
            f"{part.n_voxels} in {part.unit}",
            "calibrate on recordings of the same voxels, prepared with the same scaling",
        )
    pairs = pairs_of(data, open_tokens(data, model.config.encoder, model.config.layers), "train")
    mean = model.predict(pairs.tokens, subject=part.name)
    fitted = fit_response_noise(pairs, mean, noise, seed=seed)
    if not fitted_on_other_images and part.noise is not None:
        kept = {"inflation": part.noise.inflation, "skew": part.noise.skew, "tail": part.noise.tail}
        about = {k: v for k, v in fitted.about.items() if not k.startswith(("coverage", "variance"))}
        fitted = dataclasses.replace(fitted, **kept, about=about | {"inflation": "kept from the older noise"})
    model.subjects[part.name] = dataclasses.replace(part, noise=fitted)
    model.save_pretrained(out, overwrite=overwrite)
    told = ", ".join(f"{key} {value}" for key, value in fitted.about.items() if not isinstance(value, dict))
    print(f"trial noise of {part.name} refitted: {told}\n{out}")
