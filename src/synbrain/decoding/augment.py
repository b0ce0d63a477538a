"""``synbrain augment``: a dataset of synthetic trials, in the unit of the real ones, with its lineage."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from synbrain.arrays import Float32, Rows
from synbrain.data.budget import TRIALS_PER_HOUR
from synbrain.data.dataset import (
    RESPONSES,
    Dataset,
    DatasetInfo,
    load_dataset,
    relative_to_dataset,
    write_tables,
)
from synbrain.data.marks import image_marks, unpacked
from synbrain.decoding.subjects import SYNTHETIC
from synbrain.errors import SynBrainError
from synbrain.features.store import copy_tokens, open_tokens
from synbrain.features.tokens import TokenSet
from synbrain.files import allocate_array, new_folder, require_replaceable
from synbrain.model.synbrain import SynBrain
from synbrain.progress import track

AT_ONCE = 64  # images


class AugmentOptions(BaseModel):
    """What synthetic trials are made."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    hours: float = Field(1.0, gt=0, description="of 750 trials each, as one NSD session")
    per_image: int = Field(1, ge=1, description="trials an image; images are used again where they run out")
    kind: Literal["trial", "mean", "isotropic"] = Field(
        "trial", description="with the run's noise, the expected response, or with isotropic noise"
    )
    subject: str | None = Field(None, description="of a run with several subjects")
    seed: int = Field(0, ge=0, description="of images and noise")


ONE_HOUR = AugmentOptions()


def augment(
    run: SynBrain,
    dataset: Dataset,
    options: AugmentOptions = ONE_HOUR,
    *,
    out: Path,
    keep_out: list[Dataset] | None = None,
    overwrite: bool = False,
    show_progress: bool = False,
) -> Dataset:
    """Write synthetic trials of a subject for images of ``dataset``, as a dataset of training trials.

    Args:
        run: a model of the subject.
        dataset: whose images are shown: the subject's own, or another's. Test images of it, of the run and
            of ``keep_out`` are never used.
        options: number, kind and seed.
        out: the dataset folder to write; its tokens are those of ``dataset``.
        keep_out: further datasets whose test images are left out.
        overwrite: replace ``out``.
        show_progress: show a bar.

    Returns:
        The new dataset; ``info.provenance["synthetic"]`` names the run, the seed and the recipe.

    Raises:
        SynBrainError: no image is left, missing tokens, an unknown subject.
    """
    require_replaceable(out, overwrite, [dataset.path])
    part = run.subject(options.subject)
    tokens = run.tokens(open_tokens(dataset, run.config.encoder, run.config.layers))
    rows = usable_images(run, dataset, keep_out or [])
    n_trials = max(1, round(options.hours * TRIALS_PER_HOUR))
    shown = draw_images(rows, n_trials, options)
    images = np.unique(shown)
    with new_folder(out, overwrite) as building:
        array = allocate_array(building / RESPONSES, (n_trials, part.n_voxels), np.float32)
        blocks = -(-n_trials // AT_ONCE)
        made_blocks = _responses(run, tokens, shown, options)
        for _ in track(range(blocks), "synthesize", unit="block", show=show_progress):
            which, trials = next(made_blocks)
            array[which] = trials
        array.flush()
        del array
        table = dataset.images.iloc[images].reset_index(drop=True).assign(split="train")
        trials_table = pd.DataFrame(
            {
                "image": np.searchsorted(images, shown).astype(np.int32),
                "session": (np.arange(n_trials) // TRIALS_PER_HOUR).astype(np.int16),
                "repeat": _repeats(shown),
                "split": "train",
            }
        )
        stimuli = dataset.info.stimuli.model_copy(
            update={"path": relative_to_dataset(dataset.stimulus_path(), out)}
        )
        lineage = {
            "run": run.digest, "recipe": run.config.recipe, "subject": part.name, "seed": options.seed,
            "kind": options.kind, "hours": options.hours, "images_of": dataset.info.name,
            "n_images": len(images),
        }  # fmt: skip
        info = DatasetInfo(
            name=f"{dataset.info.name}-synthetic", subject=part.name, unit=part.unit, n_trials=n_trials,
            n_voxels=part.n_voxels, n_images=len(images), stimuli=stimuli, scaling=part.scaling,
            provenance={SYNTHETIC: lineage},
        )  # fmt: skip
        write_tables(building, info, trials_table, table, part.space)
    made = load_dataset(out)
    copy_tokens(tokens, dataset, made, images)
    return made


def usable_images(run: SynBrain, dataset: Dataset, keep_out: list[Dataset]) -> Rows:
    """Rows of ``dataset.images`` that are a test image of nobody: of it, of the run, of ``keep_out``.

    Raises:
        SynBrainError: where none is left.
    """
    rows = np.setdiff1d(np.arange(dataset.n_images), dataset.image_rows("test"))
    forbidden = unpacked(run.config.test_images)
    for other in (dataset, *keep_out):
        forbidden |= set(image_marks(other, other.image_rows("test")))
    marks = image_marks(dataset, rows)
    kept = rows[np.array([mark not in forbidden for mark in marks], dtype=bool)]
    if not len(kept):
        raise SynBrainError(
            f"every image of {dataset.path} is a test image", "give a dataset with other images"
        )
    return np.asarray(kept, dtype=np.int64)


def draw_images(rows: Rows, n_trials: int, options: AugmentOptions) -> Rows:
    """(n_trials,) the image of each trial: every image once before any is shown again."""
    generator = np.random.default_rng([options.seed, 7])
    n_images = -(-n_trials // options.per_image)
    rounds = -(-n_images // len(rows))
    order = np.concatenate([generator.permutation(rows) for _ in range(rounds)])[:n_images]
    return np.repeat(order, options.per_image)[:n_trials].astype(np.int64)


def synthetic_responses(
    run: SynBrain, tokens: TokenSet, shown: Rows, options: AugmentOptions = ONE_HOUR
) -> Float32:
    """(n_trials, n_voxels) float32, one synthetic trial for each row of ``shown``, in the subject's unit.

    Args:
        run: of the subject.
        tokens: of the images that ``shown`` counts, from the run's encoder.
        shown: (n_trials,) image of each trial.
        options: kind of trial, subject and seed.
    """
    out = np.empty((len(shown), run.subject(options.subject).n_voxels), dtype=np.float32)
    for which, trials in _responses(run, tokens, shown, options):
        out[which] = trials
    return out


def _responses(
    run: SynBrain, tokens: TokenSet, shown: Rows, options: AugmentOptions
) -> Iterator[tuple[Rows, Float32]]:
    """Blocks of (positions of trials, their responses); each trial has noise of its own."""
    part = run.subject(options.subject)
    for number, start in enumerate(range(0, len(shown), AT_ONCE)):
        which = np.arange(start, min(start + AT_ONCE, len(shown)))
        block = tokens.take(shown[which])
        seed = int(np.random.SeedSequence([options.seed, number]).generate_state(1)[0])
        if options.kind == "trial":
            yield which, run.sample(block, 1, seed, subject=part.name)[0]
            continue
        mean = run.predict(block, subject=part.name)
        if options.kind == "isotropic":
            trials = run.sample(block, 1, seed, subject=part.name)[0]
            size = np.sqrt(np.mean((trials - mean) ** 2))  # the same power as the run's noise
            mean = mean + size * np.random.default_rng(seed).standard_normal(mean.shape, dtype=np.float32)
        yield which, mean


def _repeats(shown: Rows) -> Rows:
    counts: dict[int, int] = {}
    out = np.empty(len(shown), dtype=np.int16)
    for i, image in enumerate(shown.tolist()):
        out[i] = counts.get(image, 0)
        counts[image] = counts.get(image, 0) + 1
    return np.asarray(out)
