"""The consistency of synthetic brains with a subject, gathered from runs and datasets into one table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from synbrain.analysis.consistency import (
    Source,
    agreement_table,
    selectivity_agreement,
    shuffled_selectivity,
    trial_consistency,
)
from synbrain.analysis.options import ConsistencyOptions
from synbrain.analysis.pictures import require_same_pictures
from synbrain.analysis.profiles import merged_rois
from synbrain.arrays import Float32, Mask
from synbrain.data.dataset import Dataset
from synbrain.describe import counted
from synbrain.errors import SynBrainError
from synbrain.features.store import open_untuned
from synbrain.features.tokens import Pairs, TokenSet, split_pairs
from synbrain.files import require_absent, write_json, write_text
from synbrain.markdown import markdown_table
from synbrain.model.subject import part_of, require_recorded, require_unseen
from synbrain.model.synbrain import SynBrain

Table = dict[str, dict[str, float | None]]
Masks = dict[str, Mask]
AS_USUAL = ConsistencyOptions()


@dataclass(frozen=True)
class Consistency:
    """How well synthetic brains of one subject agree with it, on its test images.

    Attributes:
        subject: its name.
        dataset: name of the dataset.
        others: names of the datasets of other subjects.
        n_test_images: images compared.
        n_test_trials: measured trials of them.
        n_samples: synthetic trials per image.
        profiles: ROI -> comparison -> Pearson of ROI profiles over images.
        selectivity: comparison -> category -> Pearson of t maps; empty without categories.
        trials: ROI -> measured or synthetic -> Pearson of patterns over two trials of an image.
    """

    subject: str
    dataset: str
    others: list[str]
    n_test_images: int
    n_test_trials: int
    n_samples: int
    profiles: Table
    selectivity: Table
    trials: Table

    def means(self) -> Table:
        """Means over ROIs of profiles and trials, by comparison."""
        return {"profiles": _means(self.profiles), "trials": _means(self.trials)}

    def to_json(self) -> dict[str, Any]:
        """Everything, as plain numbers and names."""
        return asdict(self) | {"means": self.means()}

    def table(self) -> str:
        """Markdown: profiles by ROI, selectivity by category, patterns over trials by ROI."""
        means = self.means()
        blocks = [
            ("ROI profiles over test images (Pearson)", self.profiles, means["profiles"]),
            ("Category selectivity (Pearson of t maps)", self.selectivity, None),
            ("Patterns over two trials of one image (Pearson)", self.trials, means["trials"]),
        ]
        parts = [_block(title, table, last) for title, table, last in blocks if table]
        trials = counted(self.n_samples, "synthetic trial")
        head = f"{self.dataset}: {counted(self.n_test_images, 'test image')}, {trials} of each."
        return head + "\n\n" + "\n\n".join(parts) + "\n"


def consistency(
    run: SynBrain,
    dataset: Dataset,
    options: ConsistencyOptions = AS_USUAL,
    *,
    full_run: SynBrain | None = None,
    others: Sequence[Dataset] = (),
    out: Path | None = None,
    overwrite: bool = False,
) -> Consistency:
    """Compare ROI profiles, category selectivity and trial patterns with the subject's own, with controls.

    Everything is measured on the test images. Writes OUT/consistency.json and OUT/table.md.

    Args:
        run: an adapted run, of the dataset's subject or of one subject.
        dataset: the subject's, with ROIs and tokens of the run's encoder.
        options: which areas and categories, and how many trials.
        full_run: a run of the same subject with all its data.
        others: datasets of other subjects, the between-subject control; images are told by name, and only
            shared ones are compared.
        out: folder to write; nothing is written if left out.
        overwrite: replace what stands at out.

    Raises:
        SynBrainError: where the dataset has no ROIs or no test images, runs have other voxels, or another
            subject saw other pictures of the same names.
    """
    if out is not None:
        require_absent(out, overwrite)
    models = {"adapted": run} if full_run is None else {"adapted": run, "full": full_run}
    report = _measure_consistency(models, dataset, others, options)
    if out is not None:
        write_json(out / "consistency.json", report.to_json())
        write_text(out / "table.md", report.table())
    return report


def _measure_consistency(
    models: dict[str, SynBrain], dataset: Dataset, others: Sequence[Dataset], options: ConsistencyOptions
) -> Consistency:
    seed = options.seed
    category_of = None if options.categories is None else read_categories(options.categories)
    rois = _areas(dataset, options.min_voxels)
    if not rois:
        raise SynBrainError(
            f"{dataset.path} has no ROI of {options.min_voxels} voxels or more",
            "prepare the dataset with ROI labels, or lower --min-voxels",
        )
    _require_own_names(others)
    for other in others:
        require_same_pictures(dataset, other)
    for model in models.values():
        require_unseen(model, dataset)
    dataset, tokens = _untuned(dataset, models)
    train, test = split_pairs(dataset, tokens)
    images = dataset.images["name"].astype(str).to_numpy()[dataset.image_rows("test")]
    subject = Source(images, test.repeat_means(), rois)
    names = {name: _subject_of(model, name, dataset) for name, model in models.items()}
    synthetic = {
        name: Source(images, model.predict(test.tokens, subject=names[name]), rois)
        for name, model in models.items()
    }
    samples = models["adapted"].sample(test.tokens, options.samples, seed, subject=names["adapted"])
    between = {other.info.name: _measured(other, options.min_voxels) for other in others}
    if category_of is not None and not any(category_of.get(name) for name in images):
        raise SynBrainError(
            f"{options.categories} names no test image of {dataset.path}", "use the names in images.parquet"
        )
    selective = (
        {} if category_of is None else _selectivity(subject, synthetic, between, dict(category_of), seed)
    )
    return Consistency(
        subject=dataset.info.subject,
        dataset=dataset.info.name,
        others=list(between),
        n_test_images=test.n_images,
        n_test_trials=test.n_trials,
        n_samples=options.samples,
        profiles=agreement_table(subject, synthetic, between, seed),
        selectivity=selective,
        trials=_trial_patterns(test, samples, train.repeat_means().mean(axis=0), rois, seed),
    )


def _require_own_names(others: Sequence[Dataset]) -> None:
    """Columns are called as the datasets are: of two of one name only the last would be in the table."""
    names = [other.info.name for other in others]
    if len(set(names)) < len(names):
        raise SynBrainError(
            f"other subjects' datasets of one name: {', '.join(names)}",
            "prepare them with different --name",
        )


def _subject_of(model: SynBrain, name: str, dataset: Dataset) -> str:
    part = part_of(model, dataset)
    if part.n_voxels != dataset.n_voxels:
        raise SynBrainError(
            f"the {name} run has {counted(part.n_voxels, 'voxel')}, {dataset.path} {dataset.n_voxels}",
            "give runs of this subject",
        )
    if part.unit != dataset.info.unit:  # areas weigh their voxels by it, and the mean map is taken off
        raise SynBrainError(
            f"the {name} run predicts {part.unit!r}, {dataset.path} holds {dataset.info.unit!r}",
            "prepare the dataset with the scaling that the run was trained on",
        )
    require_recorded(part, dataset, chosen=False)
    return part.name


def _trial_patterns(test: Pairs, samples: Float32, mean_map: Float32, rois: Masks, seed: int) -> Table:
    """ROI -> measured and synthetic, and both with the images of trials in random order."""
    trials, image = test.trial_responses(), test.image_of_trial
    rng = np.random.default_rng(seed)
    patterns = trial_consistency(trials, image, samples, mean_map, rois)
    control = trial_consistency(trials, rng.permutation(image), _shuffled(samples, rng), mean_map, rois)
    return {
        roi: row | {f"{kind}, shuffled": value for kind, value in control[roi].items()}
        for roi, row in patterns.items()
    }


def read_categories(path: Path) -> dict[str, str]:
    """Image name -> category from a CSV with columns (nsdId or name) and category.

    Raises:
        SynBrainError: where a column is missing or the file cannot be read.
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise SynBrainError(f"{path} cannot be read ({error})", "give a CSV file") from error
    key = next((name for name in ("name", "nsdId") if name in table), None)
    if key is None or "category" not in table:
        raise SynBrainError(
            f"{path} has the columns {list(table)}", "give it nsdId or name, and category as columns"
        )
    names = table[key] if key == "name" else [f"nsd-{int(number):05d}" for number in table[key]]
    return dict(zip(names, table["category"], strict=True))


def _selectivity(
    subject: Source,
    synthetic: dict[str, Source],
    others: dict[str, Source],
    categories: dict[str, str],
    seed: int,
) -> Table:
    """Comparison -> category -> r; the shuffled control permutes the images of one side."""
    category: dict[Any, str] = categories
    rows: Table = {
        f"{name} vs measured": selectivity_agreement(source, subject, category)
        for name, source in synthetic.items()
    }
    if "full" in synthetic:
        rows["adapted vs full"] = selectivity_agreement(synthetic["adapted"], synthetic["full"], category)
    for name, other in others.items():
        rows[f"adapted vs {name} (ROI means)"] = selectivity_agreement(synthetic["adapted"], other, category)
    rows["adapted vs measured, shuffled (absolute r)"] = shuffled_selectivity(
        synthetic["adapted"], subject, category, seed
    )
    return rows


def _areas(dataset: Dataset, min_voxels: int) -> Masks:
    masks = dataset.space.roi_masks()
    return merged_rois({k: m for k, m in masks.items() if not k.startswith("hemisphere/")}, min_voxels)


def _untuned(dataset: Dataset, models: dict[str, SynBrain]) -> tuple[Dataset, TokenSet]:
    config = next(iter(models.values())).config
    layers = dict.fromkeys(layer for model in models.values() for layer in model.config.layers)
    return open_untuned(dataset, config.encoder, layers)


def _measured(dataset: Dataset, min_voxels: int) -> Source:
    """Repeat means of all images of another subject, training images too: nothing is fitted on them."""
    image = dataset.trials["image"].to_numpy(dtype=np.int64)
    total = np.zeros((dataset.n_images, dataset.n_voxels))
    np.add.at(total, image, dataset.responses)
    counts = np.bincount(image, minlength=dataset.n_images)
    shown = counts > 0
    names = dataset.images["name"].astype(str).to_numpy()[shown]
    rois = _areas(dataset, min_voxels)
    return Source(names, total[shown] / counts[shown, None], rois)


def _shuffled(samples: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    """Synthetic trials whose images go round within each sample: each is paired with another image."""
    shuffled = np.empty_like(samples)
    for sample, into in zip(samples, shuffled, strict=True):
        order = rng.permutation(len(sample))
        into[order] = sample[np.roll(order, 1)]
    return shuffled


def _means(table: Table) -> dict[str, float | None]:
    names = dict.fromkeys(name for row in table.values() for name in row)
    means: dict[str, float | None] = {}
    for name in names:
        known = [value for row in table.values() if (value := row.get(name)) is not None]
        means[name] = float(np.mean(known)) if known else None
    return means


def _block(title: str, table: Table, means: dict[str, float | None] | None) -> str:
    """One table under its title; the row of means is the last."""
    columns = list(dict.fromkeys(name for row in table.values() for name in row))
    rows = [*table.items(), *([("mean", means)] if means else [])]
    cells = [[name, *("-" if row.get(c) is None else f"{row[c]:.3f}" for c in columns)] for name, row in rows]
    return "\n".join([f"### {title}", "", *markdown_table(["", *columns], cells, numbers=False)])
