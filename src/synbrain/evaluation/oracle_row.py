"""The oracle: on simulated data, the true mean and the true trial distribution, scored like a model."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synbrain.arrays import Float32, Rows
from synbrain.data.dataset import Dataset
from synbrain.data.scaling import RAW_PER_PERCENT, REFERENCE_DIVISOR
from synbrain.evaluation.measured import Measured
from synbrain.evaluation.row import Row
from synbrain.evaluation.score_model import score_arrays
from synbrain.simulate.truth import TRUTH, Truth

PER_PERCENT = {"percent": 1.0, "reference": RAW_PER_PERCENT / REFERENCE_DIVISOR}


def oracle_row(dataset: Dataset, measured: Measured, *, n_samples: int, seed: int) -> Row | None:
    """Score the truth of a simulated dataset.

    Args:
        dataset: prepared from a tree that ``synbrain simulate`` wrote, in which its stimuli lie.
        measured: its test split.
        n_samples, seed: as for a model.

    Returns:
        None where the dataset was not simulated; a row without values, and a note why, where it was but
        the truth does not fit its voxels or unit.
    """
    truth = _truth_of(dataset)
    if truth is None:
        return None
    factor = PER_PERCENT.get(str(dataset.info.scaling.get("kind")))
    if factor is None or truth.n_voxels != dataset.n_voxels:
        note = "the truth is known for all nsdgeneral voxels, in percent or the reference's unit"
        return Row(values={"voxel_r": None}, notes={"voxel_r": note})
    scale = np.float32(factor)
    ids = dataset.images["nsd_id"].to_numpy(dtype=np.int64)[measured.test.tokens.image_rows]

    def draw(images: Rows, n: int, block_seed: int) -> NDArray[Any]:
        return truth.sample(ids[images], n, block_seed) * scale

    return score_arrays(truth.mean(ids) * scale, draw, measured, n_samples=n_samples, seed=seed)


def true_trials(dataset: Dataset, rows: Rows, seed: int) -> Float32 | None:
    """One trial of the true brain for each image, (n_images, n_voxels) float32 in the dataset's unit.

    Args:
        dataset: prepared from a tree that ``synbrain simulate`` wrote; else None is returned.
        rows: of ``dataset.images``.
        seed: of the noise.
    """
    truth = _truth_of(dataset)
    factor = PER_PERCENT.get(str(dataset.info.scaling.get("kind")))
    if truth is None or factor is None or truth.n_voxels != dataset.n_voxels:
        return None
    ids = dataset.images["nsd_id"].to_numpy(dtype=np.int64)[rows]
    return np.asarray(truth.sample(ids, 1, seed)[0] * np.float32(factor), dtype=np.float32)


def _truth_of(dataset: Dataset) -> Truth | None:
    root = _tree_of(dataset)
    number = re.fullmatch(r"subj(\d+)", dataset.info.subject)
    if root is None or number is None or "nsd_id" not in dataset.images:
        return None
    return Truth.load(root, int(number[1]))


def _tree_of(dataset: Dataset) -> Path | None:
    """The simulated tree that holds the stimuli, if it is one."""
    for folder in dataset.stimulus_path().parents[:5]:
        if (folder / TRUTH / "simulation.json").exists():
            return folder
    return None
