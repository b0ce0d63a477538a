"""The consistency of synthetic brains with a subject, gathered from runs and datasets into one table."""

from __future__ import annotations

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
from synbrain.analysis.profiles import merged_rois
from synbrain.data.dataset import Dataset
from synbrain.errors import SynBrainError
from synbrain.features.store import open_tokens
from synbrain.features.tokens import Pairs, pairs_of
from synbrain.markdown import markdown_table
from synbrain.model.synbrain import SynBrain

Table = dict[str, dict[str, Any]]


def consistency_report(
    models: dict[str, SynBrain],
    dataset: Dataset,
    others: list[Dataset],
    *,
    categories: dict[str, str] | None = None,
    n_samples: int = 3,
    min_voxels: int = 10,
    seed: int = 0,
) -> dict[str, Any]:
    """ROI profiles, category selectivity and trial patterns of models of one subject, on its test images.

    Args:
        models: "adapted" first; "full" where there is one. Each has the dataset's subject, or one subject.
        dataset: the subject's.
        others: other subjects' datasets; images are told by name, and only shared ones are compared.
        categories: image name -> category.
        n_samples: synthetic trials per image.
        min_voxels: areas with fewer voxels are left out.
        seed: of synthetic trials and the shuffled control.

    Returns:
        {"profiles": ROI -> comparison -> r, "selectivity": comparison -> category -> r,
        "trials": ROI -> {"measured", "synthetic"} -> r, and "means" over ROIs, and sizes.}

    Raises:
        SynBrainError: where the dataset has no ROIs or no test images, or runs have other voxels.
    """
    rois = _areas(dataset, min_voxels)
    if not rois:
        raise SynBrainError(
            f"{dataset.path} has no ROI of {min_voxels} voxels or more",
            "prepare the dataset with ROI labels, or lower --min-voxels",
        )
    train = pairs_of(dataset, _tokens(dataset, models), "train")
    test = pairs_of(dataset, _tokens(dataset, models), "test")
    images = _names(dataset, test)
    subject = Source(images, test.repeat_means(), rois)
    synthetic, samples = {}, {}
    for name, model in models.items():
        part = model.subject(dataset.info.subject if dataset.info.subject in model.subjects else None)
        if part.n_voxels != dataset.n_voxels:
            raise SynBrainError(
                f"the {name} run has {part.n_voxels} voxels, {dataset.path} {dataset.n_voxels}",
                "give runs of this subject",
            )
        synthetic[name] = Source(images, model.predict(test.tokens, subject=part.name), rois)
        samples[name] = model.sample(test.tokens, n_samples, seed, subject=part.name)
    between = {other.info.name: _measured(other, min_voxels) for other in others}
    profiles = agreement_table(subject, synthetic, between, seed)
    mean_map = train.repeat_means().mean(axis=0)
    trials = trial_consistency(
        test.trial_responses(), test.image_of_trial, samples["adapted"], mean_map, rois
    )
    rng = np.random.default_rng(seed)
    mixed = trial_consistency(
        test.trial_responses(),
        rng.permutation(test.image_of_trial),
        _shuffled(samples["adapted"], rng),
        mean_map,
        rois,
    )
    for roi, held in trials.items():
        held |= {f"{kind}, shuffled": value for kind, value in mixed[roi].items()}
    found: dict[str, Any] = {
        "subject": dataset.info.subject,
        "dataset": dataset.info.name,
        "others": list(between),
        "n_test_images": test.n_images,
        "n_test_trials": test.n_trials,
        "n_samples": n_samples,
        "profiles": profiles,
        "trials": trials,
        "selectivity": {},
    }
    if categories is not None:
        found["selectivity"] = _selectivity(subject, synthetic, between, dict(categories), seed)
    found["means"] = {"profiles": _means(profiles), "trials": _means(trials)}
    return found


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
    found: Table = {
        f"{name} vs measured": selectivity_agreement(source, subject, category)
        for name, source in synthetic.items()
    }
    if "full" in synthetic:
        found["adapted vs full"] = selectivity_agreement(synthetic["adapted"], synthetic["full"], category)
    for name, other in others.items():
        found[f"adapted vs {name} (ROI means)"] = selectivity_agreement(synthetic["adapted"], other, category)
    found["adapted vs measured, shuffled (mean |r|)"] = shuffled_selectivity(
        synthetic["adapted"], subject, category, seed
    )
    return found


def _areas(dataset: Dataset, min_voxels: int) -> dict[str, NDArray[np.bool_]]:
    masks = dataset.space.roi_masks()
    return merged_rois({k: m for k, m in masks.items() if not k.startswith("hemisphere/")}, min_voxels)


def _tokens(dataset: Dataset, models: dict[str, SynBrain]) -> Any:
    config = next(iter(models.values())).config
    layers = dict.fromkeys(layer for model in models.values() for layer in model.config.layers)
    return open_tokens(dataset, config.encoder, layers)


def _names(dataset: Dataset, pairs: Pairs) -> NDArray[Any]:
    return dataset.images["name"].astype(str).to_numpy()[dataset.image_rows("test")]


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
    """Synthetic trials whose images are permuted within each sample: pairs of different images."""
    return np.stack([sample[rng.permutation(len(sample))] for sample in samples])


def _means(table: Table) -> dict[str, float | None]:
    names = dict.fromkeys(name for row in table.values() for name in row)
    means: dict[str, float | None] = {}
    for name in names:
        known = [row[name] for row in table.values() if row.get(name) is not None]
        means[name] = float(np.mean(known)) if known else None
    return means


def consistency_table(found: dict[str, Any]) -> str:
    """The report as Markdown: profiles by ROI, selectivity by category, patterns over trials by ROI."""
    blocks = [
        ("ROI profiles over test images (Pearson)", found["profiles"], found["means"]["profiles"]),
        ("Category selectivity (Pearson of t maps)", found["selectivity"], None),
        ("Patterns over two trials of one image (Pearson)", found["trials"], found["means"]["trials"]),
    ]
    parts = []
    for title, table, means in blocks:
        if not table:
            continue
        columns = list(dict.fromkeys(name for row in table.values() for name in row))
        rows = [(name, row) for name, row in table.items()] + ([("mean", means)] if means else [])
        cells = [
            [name, *("-" if row.get(c) is None else f"{row[c]:.3f}" for c in columns)] for name, row in rows
        ]
        parts.append("\n".join([f"### {title}", "", *markdown_table(["", *columns], cells, numbers=False)]))
    about = f"{found['dataset']}: {found['n_test_images']} test images, "
    about += f"{found['n_samples']} synthetic trials of each."
    return about + "\n\n" + "\n\n".join(parts) + "\n"
