"""``synbrain augment``: a dataset of synthetic trials, in the unit of the real ones, with its lineage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from synbrain.arrays import Float32, Rows
from synbrain.data.budget import TRIALS_PER_HOUR
from synbrain.data.dataset import (
    RESPONSES,
    Dataset,
    DatasetInfo,
    SyntheticTrials,
    load_dataset,
    relative_to_dataset,
    write_tables,
)
from synbrain.data.known_pictures import KnownPictures
from synbrain.data.marks import unpacked
from synbrain.decoding.guards import without
from synbrain.decoding.options import AugmentOptions
from synbrain.errors import SynBrainError
from synbrain.features.store import copy_tokens, open_tokens
from synbrain.features.tokens import TokenSet
from synbrain.files import allocate_array, new_folder, require_replaceable
from synbrain.model.parts import SubjectPart
from synbrain.model.synbrain import SynBrain
from synbrain.progress import track

AT_ONCE = 64  # images


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
        The new dataset; ``info.synthetic`` names the run, the seed and the recipe.

    Raises:
        SynBrainError: no image is left, missing tokens, an unknown subject.
    """
    require_replaceable(out, overwrite, [dataset.path])
    part = run.subject(options.subject)
    tokens = run.tokens(open_tokens(dataset, run.config.encoder, run.config.layers))
    rows = usable_images(run, dataset, keep_out or [])
    n_trials = _n_trials(options)
    shown = draw_images(rows, n_trials, options)
    images = np.unique(shown)
    with new_folder(out, overwrite) as building:
        expected = _expected(run, tokens.take(images), part.name, show_progress)
        at = np.searchsorted(images, shown)
        array = allocate_array(building / RESPONSES, (n_trials, part.n_voxels), np.float32)
        for start in range(0, n_trials, AT_ONCE):
            which = slice(start, start + AT_ONCE)
            array[which] = trials_of(part, expected[at[which]], options, start)
        array.flush()
        del array
        info = _info(run, part, dataset, options, out, len(images))
        table = dataset.images.iloc[images].reset_index(drop=True).assign(split="train")
        write_tables(building, info, _trials_table(at, shown), table, part.space)
    made = load_dataset(out)
    copy_tokens(tokens, dataset, made, images)
    return made


def _info(
    run: SynBrain, part: SubjectPart, dataset: Dataset, options: AugmentOptions, out: Path, n_images: int
) -> DatasetInfo:
    """What the dataset says of itself, with its lineage."""
    lineage = SyntheticTrials(
        run=run.digest, recipe=run.config.recipe, subject=part.name, seed=options.seed, kind=options.kind,
        hours=options.hours, images_of=dataset.info.name, n_images=n_images,
        trained_images=run.config.trained_images,
    )  # fmt: skip
    path = relative_to_dataset(dataset.stimulus_path(), out)
    return DatasetInfo(
        name=f"{dataset.info.name}-synthetic", subject=part.name, unit=part.unit,
        n_trials=_n_trials(options), n_voxels=part.n_voxels, n_images=n_images,
        stimuli=dataset.info.stimuli.model_copy(update={"path": path}), scaling=part.scaling,
        synthetic=lineage,
    )  # fmt: skip


def _trials_table(at: Rows, shown: Rows) -> pd.DataFrame:
    """One row a trial: number of its image, hour, how often the image was shown before."""
    return pd.DataFrame(
        {
            "image": at.astype(np.int32),
            "session": (np.arange(len(at)) // TRIALS_PER_HOUR).astype(np.int16),
            "repeat": _repeats(shown),
            "split": "train",
        }
    )


def _n_trials(options: AugmentOptions) -> int:
    return max(1, round(options.hours * TRIALS_PER_HOUR))


def usable_images(run: SynBrain, dataset: Dataset, keep_out: list[Dataset]) -> Rows:
    """Rows of ``dataset.images`` that are a test image of nobody: of it, of the run, of ``keep_out``.

    Raises:
        SynBrainError: where none is left.
    """
    rows = np.setdiff1d(np.arange(dataset.n_images), dataset.image_rows("test"))
    forbidden = run.known_pictures.with_copies(unpacked(run.config.test_images), dataset)
    for other in (dataset, *keep_out):
        tested = KnownPictures.of(other, other.image_rows("test"))
        forbidden |= tested.with_copies(tested.marks, dataset)
    kept = without(dataset, rows, forbidden)
    if not len(kept):
        raise SynBrainError(
            f"every image of {dataset.path} is a test image", "give a dataset with other images"
        )
    return kept


def draw_images(rows: Rows, n_trials: int, options: AugmentOptions) -> Rows:
    """(n_trials,) the image of each trial: every image once before any is shown again."""
    generator = np.random.default_rng([options.seed, 7])
    n_images = -(-n_trials // options.per_image)
    rounds = -(-n_images // len(rows))
    order = np.concatenate([generator.permutation(rows) for _ in range(rounds)])[:n_images]
    return np.repeat(order, options.per_image)[:n_trials].astype(np.int64)


def trials_of(part: SubjectPart, expected: Float32, options: AugmentOptions, first: int = 0) -> Float32:
    """(n_trials, n_voxels) float32, one synthetic trial around each expected response.

    Row i depends on the seed and on ``first + i``, not on how many trials are made at once.

    Args:
        part: the run's part of the subject.
        expected: (n_trials, n_voxels) float32, expected response to the image of each trial.
        options: kind and seed.
        first: number of the first row among all trials.
    """
    if options.kind == "mean" or part.noise is None:  # a run without noise is deterministic
        return expected
    seed = part.seed_of_trials(options.seed)
    if options.kind == "trial":
        return np.asarray(part.noise.sample(expected, 1, seed, first)[0])
    # the same power as the run's noise, over the images that it was fitted on: one number for all trials
    sd = np.sqrt(part.noise.noise_variance.mean())
    draws = [
        np.random.Generator(np.random.SFC64([seed, first + i])).standard_normal(
            expected.shape[1], dtype=np.float32
        )
        for i in range(len(expected))
    ]
    return np.asarray(expected + sd * np.stack(draws), dtype=np.float32)


def _expected(run: SynBrain, tokens: TokenSet, subject: str, show_progress: bool) -> Float32:
    """(n_images, n_voxels) float32, once for each image however many trials it gets."""
    blocks = run.iter_means(tokens, subject=subject, batch_size=AT_ONCE)
    n = -(-len(tokens) // AT_ONCE)
    return np.concatenate(
        [mean for _, mean in track(blocks, "synthesize", total=n, unit="block", show=show_progress)]
    )


def _repeats(shown: Rows) -> Rows:
    counts: dict[int, int] = {}
    out = np.empty(len(shown), dtype=np.int16)
    for i, image in enumerate(shown.tolist()):
        out[i] = counts.get(image, 0)
        counts[image] = counts.get(image, 0) + 1
    return np.asarray(out)
