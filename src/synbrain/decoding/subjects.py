"""From datasets to what a decoding method is fitted on, with the guard against test images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from synbrain.arrays import Float32
from synbrain.data.budget import budget_trials, parse_budget
from synbrain.data.dataset import Dataset
from synbrain.data.marks import image_marks, packed, unpacked
from synbrain.decoding.options import DecoderOptions
from synbrain.decoding.protocol import DecodingSubject
from synbrain.decoding.targets import TokenTargets
from synbrain.errors import SynBrainError
from synbrain.features.store import open_tokens
from synbrain.features.tokens import Pairs, Scale, TokenSet, pairs_of
from synbrain.training.leakage import training_images


@dataclass(frozen=True)
class DecodingData:
    """Subjects to fit a decoder on, and what its folder keeps of them.

    Attributes:
        subjects: one for each dataset.
        targets: token targets, fitted on the training images alone.
        units: subject name -> unit.
        trained_images, test_images: marks (training/leakage.py).
        record: numbers of images and trials, and the budget, for the card.
    """

    subjects: list[DecodingSubject]
    targets: TokenTargets
    units: dict[str, str]
    trained_images: str
    test_images: str
    record: dict[str, Any]


def decoding_data(
    datasets: Sequence[Dataset],
    options: DecoderOptions,
    augment: Dataset | None = None,
    targets: TokenTargets | None = None,
) -> DecodingData:
    """Training and validation images of every subject, within the budget, without any test image.

    Args:
        datasets: one a subject, with tokens of ``options.encoder``.
        options: budget, token layer, reduction, seed.
        augment: synthetic trials of the only subject.
        targets: of a decoder that is to be adapted; fitted here where left out.

    Raises:
        SynBrainError: shared names, missing tokens, an impossible budget, a test image among the training or
            synthetic images, a synthetic dataset of another subject, unit or encoder.
    """
    allowed = training_images(datasets, options.shared_test_images)
    names = [dataset.info.name if len(datasets) > 1 else dataset.info.subject for dataset in datasets]
    if len(set(names)) < len(names):
        raise SynBrainError(f"two subjects are called {names}", "prepare the datasets with different --name")
    split: list[tuple[Pairs, Pairs]] = []
    marks: set[bytes] = set()
    for dataset, images in zip(datasets, allowed, strict=True):
        pairs = _within_budget(dataset, images.rows, options)
        in_use = dataset.image_rows("train")[np.isin(dataset.image_rows("train"), pairs.tokens.rows)]
        marks |= set(image_marks(dataset, in_use))
        split.append(pairs.hold_out(options.validation_fraction, options.seed))
    layer = options.layer or list(split[0][0].tokens.layers)[-1]
    if targets is None:
        targets = TokenTargets.fit(
            [train.tokens for train, _ in split], layer, grid=options.grid, components=options.components
        )
    subjects = [
        DecodingSubject(
            name, train, targets.of(train.tokens), validation, targets.of(validation.tokens),
            *mean_and_sd(train),
        )
        for name, (train, validation) in zip(names, split, strict=True)
    ]  # fmt: skip
    test_marks = {mark for images in allowed for mark in images.test_marks}
    record: dict[str, Any] = {
        "budget": str(options.budget),
        "n_images": sum(s.train.n_images + s.validation.n_images for s in subjects),
        "n_validation_images": sum(s.validation.n_images for s in subjects),
        "n_trials": sum(s.train.n_trials + s.validation.n_trials for s in subjects),
    }
    if augment is not None:
        if len(subjects) > 1:
            raise SynBrainError(
                "synthetic trials for several subjects at once", "train one subject, or adapt to it"
            )
        synthetic = synthetic_pairs(augment, datasets[0], test_marks, targets)
        record |= {"n_synthetic_images": synthetic.n_images, "n_synthetic_trials": synthetic.n_trials}
        marks |= set(image_marks(augment, augment.image_rows("train")))
        subjects[0] = replace(
            subjects[0], synthetic=synthetic, synthetic_targets=targets.of(synthetic.tokens),
            synthetic_weight=options.synthetic_weight,
        )  # fmt: skip
    units = {name: dataset.info.unit for name, dataset in zip(names, datasets, strict=True)}
    return DecodingData(subjects, targets, units, packed(marks), packed(test_marks), record)


def with_synthetic(data: DecodingData, trials: Pairs, targets: Float32, weight: float) -> DecodingData:
    """The same data with synthetic trials of the only subject, which make up ``weight`` of a batch."""
    subject = replace(
        data.subjects[0], synthetic=trials, synthetic_targets=targets, synthetic_weight=weight
    )  # fmt: skip
    return replace(data, subjects=[subject])


def mean_and_sd(train: Pairs) -> tuple[Float32, Float32]:
    """(n_voxels,) float32 each, of the training trials; a constant voxel has sd 1."""
    scale = Scale.of_trials(train)
    return scale.mean.astype(np.float32), scale.unit.astype(np.float32)


def synthetic_pairs(
    augment: Dataset, dataset: Dataset, test_marks: set[bytes], targets: TokenTargets
) -> Pairs:
    """Trials of a synthetic dataset that may augment ``dataset``.

    Raises:
        SynBrainError: no synthetic dataset, no trials, another subject, unit or encoder, or test images.
    """
    if augment.info.synthetic is None:
        raise SynBrainError(
            f"{augment.path} holds no synthetic trials", "pass what `synbrain augment` wrote to --augment"
        )
    if augment.n_voxels != dataset.n_voxels or augment.info.unit != dataset.info.unit:
        raise SynBrainError(
            f"{augment.path} has {augment.n_voxels} voxels in {augment.info.unit!r}, {dataset.path} "
            f"{dataset.n_voxels} in {dataset.info.unit!r}",
            "make synthetic trials with a run of this subject",
        )
    if augment.n_trials == 0:
        raise SynBrainError(f"{augment.path} holds no trials", "pass --hours of at least one trial")
    leaked = test_marks.intersection(image_marks(augment, np.arange(augment.n_images)))
    if leaked:
        raise SynBrainError(
            f"{len(leaked)} images of {augment.path} are test images", "synthesize responses to other images"
        )
    return pairs_of(augment, open_tokens(augment, targets.source.encoder, [targets.source.layer]), "train")


def require_untrained(trained_images: str, dataset: Dataset) -> None:
    """Refuse to test a decoder on images that it was trained on.

    Raises:
        SynBrainError: naming how many.
    """
    seen = unpacked(trained_images).intersection(image_marks(dataset, dataset.image_rows("test")))
    if seen:
        raise SynBrainError(
            f"the decoder was trained on {len(seen)} test images of {dataset.path}",
            "train it without them, or evaluate on another dataset",
        )


def _within_budget(dataset: Dataset, rows: Any, options: DecoderOptions) -> Pairs:
    tokens = _layer_tokens(dataset, options)
    budget = parse_budget(options.budget, options.by, options.budget_seed)
    trials = budget_trials(dataset, budget)
    shown = dataset.trials["image"].to_numpy(dtype=np.int64)[trials]
    kept = np.isin(shown, rows)
    images = np.unique(shown[kept])
    if len(images) < 4:
        raise SynBrainError(
            f"{len(images)} training images within the budget {options.budget}", "choose a larger budget"
        )
    return Pairs(tokens.take(images), dataset.responses, trials[kept], np.searchsorted(images, shown[kept]))


def _layer_tokens(dataset: Dataset, options: DecoderOptions) -> TokenSet:
    tokens = open_tokens(dataset, options.encoder, [options.layer] if options.layer else None)
    return tokens.only(options.layer or list(tokens.layers)[-1])
