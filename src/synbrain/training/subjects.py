"""The subjects that a model is trained on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from synbrain.data.dataset import Dataset
from synbrain.data.space import VoxelSpace
from synbrain.errors import SynBrainError
from synbrain.features.store import open_tokens
from synbrain.features.tokens import Pairs, pairs_of
from synbrain.networks.presets import preset
from synbrain.training.config import TrainConfig
from synbrain.training.leakage import image_marks, safe_training_images


@dataclass(frozen=True)
class TrainingSubject:
    """One subject's training pairs, and what its part of the run says about it.

    ``image_marks`` tell the images of ``pairs.tokens`` apart (training/leakage.py); left out, the run
    keeps no held-out scores.
    """

    name: str
    pairs: Pairs
    space: VoxelSpace
    unit: str
    scaling: dict[str, Any] = field(default_factory=dict)
    image_marks: tuple[bytes, ...] = ()


def sampling_weights(subjects: list[TrainingSubject], given: dict[str, float]) -> list[float]:
    """Weights of the subjects in sampling: as given, or their numbers of trials."""
    if not given:
        return [float(s.pairs.n_trials) for s in subjects]
    names = [s.name for s in subjects]
    if set(given) != set(names):
        raise SynBrainError(
            f"subject weights for {sorted(given)}, but the subjects are {names}",
            "give --subject-weights one entry for each subject",
        )
    return [given[name] for name in names]


def check_training(
    subjects: list[TrainingSubject], config: TrainConfig, *, new_networks: bool = True
) -> None:
    """See before anything is written or fitted that subjects and configuration fit each other.

    Raises:
        SynBrainError: two subjects of one name, different tokens, an unknown layer, preset or subject weight.
    """
    names = [s.name for s in subjects]
    if len(set(names)) != len(names):
        raise SynBrainError(
            f"two subjects have one name: {names}", "prepare the datasets with different --name"
        )
    first = subjects[0].pairs.tokens
    for s in subjects[1:]:
        tokens = s.pairs.tokens
        if (tokens.encoder, tokens.digest, tokens.shapes) != (first.encoder, first.digest, first.shapes):
            raise SynBrainError(
                f"{s.name} has tokens of another encoder, version or layer than {names[0]}",
                "run `synbrain features` with the same encoder and layers on every dataset",
            )
    layer = config.network_layer or list(first.layers)[-1]
    shape = first.only(layer).shapes[layer]
    if new_networks:
        preset(config.preset, shape)
    sampling_weights(subjects, config.subject_weights)


def training_images(
    datasets: list[Dataset], shared_test_images: Literal["refuse", "drop"], keep_out: list[Dataset]
) -> list[NDArray[np.int64]]:
    """Rows of the images of each dataset that may be trained on; test images of ``keep_out`` are dropped."""
    safe = safe_training_images(datasets, shared_test_images)
    if not keep_out:
        return safe
    marks = {mark for other in keep_out for mark in image_marks(other, other.image_rows("test"))}
    kept = []
    for dataset, rows in zip(datasets, safe, strict=True):
        kept.append(rows[[mark not in marks for mark in image_marks(dataset, rows)]])
    return kept


def training_subjects(
    datasets: list[Dataset],
    encoder: str,
    layers: list[str] | None = None,
    shared_test_images: Literal["refuse", "drop"] = "refuse",
    rows: list[NDArray[np.int64]] | None = None,
) -> list[TrainingSubject]:
    """Training pairs of datasets, without an image that is a test image of any of them.

    Raises:
        SynBrainError: where tokens are missing, or training and test images overlap.
    """
    subjects = []
    safe = safe_training_images(datasets, shared_test_images) if rows is None else rows
    for dataset, wanted in zip(datasets, safe, strict=True):
        pairs = pairs_of(dataset, open_tokens(dataset, encoder, layers), "train")
        kept = dataset.image_rows("train")
        if len(wanted) < len(kept):
            pairs = pairs.take((kept.searchsorted(wanted)).astype("int64"))
        info = dataset.info
        name = info.subject if len(datasets) == 1 else info.name
        marks = tuple(image_marks(dataset, wanted))
        subjects.append(TrainingSubject(name, pairs, dataset.space, info.unit, info.scaling, marks))
    return subjects
