"""From datasets to what a decoding method is fitted on, with the guard against test images."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from synbrain.arrays import Float32, Rows
from synbrain.data.budget import budget_trials, parse_budget
from synbrain.data.dataset import Dataset
from synbrain.data.known_pictures import NO_PICTURES, KnownPictures
from synbrain.data.marks import image_marks, packed, unpacked
from synbrain.decoding.decoder import Decoder
from synbrain.decoding.guards import Voxels, require_no_test_image, require_same_voxels, without
from synbrain.decoding.options import DecoderOptions
from synbrain.decoding.protocol import DecodingSubject
from synbrain.decoding.targets import TokenTargets
from synbrain.decoding.unseen import HeldOut, hold_out
from synbrain.describe import counted
from synbrain.errors import SynBrainError
from synbrain.features.scale import Scale
from synbrain.features.store import open_tokens, open_untuned
from synbrain.features.tokens import Pairs, TokenSet, pairs_of
from synbrain.model.subject import note_other_person
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
        validation_images: marks, with those of images that look like them.
        seen: names of the validation images that the maker of synthetic trials saw; None: not known.
        known_pictures: of the training and test images.
    """

    subjects: list[DecodingSubject]
    targets: TokenTargets
    units: dict[str, str]
    trained_images: str
    test_images: str
    record: dict[str, Any]
    validation_images: frozenset[bytes] = frozenset()
    seen: tuple[str, ...] | None = None
    known_pictures: KnownPictures = NO_PICTURES

    @property
    def n_validation_images(self) -> int:
        return sum(s.validation.n_images for s in self.subjects)


def decoding_data(
    datasets: Sequence[Dataset],
    options: DecoderOptions,
    augment: Dataset | None = None,
    *,
    targets: TokenTargets | None = None,
    run_images: str | None = None,
    left_out: Set[bytes] = frozenset(),
) -> DecodingData:
    """Training and validation images of every subject, within the budget, without any test image.

    Images that a tuned encoder was tuned on have no part: their tokens know the responses to them.

    Args:
        datasets: one a subject, with tokens of ``options.encoder``.
        options: budget, token layer, reduction, seed.
        augment: synthetic trials of the only subject. Those of validation images are left out.
        targets: of a decoder that is to be adapted; fitted here where left out.
        run_images: marks of the images that a run saw, whose trials are to be added (empty: it does not say);
            those that ``augment`` names where left out, None without it: no trials are to be added.
            Validation images are chosen among the others (decoding/unseen.py).
        left_out: marks of images that are not used.

    Raises:
        SynBrainError: shared names, missing tokens, an impossible budget, a test image among the training or
            synthetic images, a synthetic dataset of another subject, unit or encoder.
    """
    if augment is not None and len(datasets) > 1:
        raise SynBrainError(
            "synthetic trials for several subjects at once", "train one subject, or adapt to it"
        )
    layers = [options.layer] if options.layer else None
    datasets = [open_untuned(dataset, options.encoder, layers)[0] for dataset in datasets]
    allowed = training_images(datasets, options.shared_test_images)
    names = _names(datasets)
    if not run_images and augment is not None and augment.info.synthetic is not None:
        run_images = augment.info.synthetic.trained_images
    saw = None if run_images is None else unpacked(run_images)
    usable = [without(d, images.rows, left_out) for d, images in zip(datasets, allowed, strict=True)]
    chosen = [_chosen(d, rows, options, saw) for d, rows in zip(datasets, usable, strict=True)]
    split = [held for held, _ in chosen]
    layer = options.layer or list(split[0].train.tokens.layers)[-1]
    if targets is None:
        targets = TokenTargets.fit(
            [held.train.tokens for held in split], layer, grid=options.grid, components=options.components
        )
    data = DecodingData(
        [_subject(name, held, targets) for name, held in zip(names, split, strict=True)], targets,
        {name: dataset.info.unit for name, dataset in zip(names, datasets, strict=True)},
        packed(mark for _, marks in chosen for mark in marks),
        packed(mark for images in allowed for mark in images.test_marks),
        {
            "budget": str(options.budget),
            "n_images": sum(h.train.n_images + h.validation.n_images for h in split),
            "n_validation_images": sum(h.validation.n_images for h in split),
            "n_trials": sum(h.train.n_trials + h.validation.n_trials for h in split),
        },
        frozenset().union(*(held.marks for held in split)), split[0].seen,
    )  # fmt: skip
    if augment is not None:
        data = _augmented(data, datasets[0], augment, options, left_out)
    known = [images.pictures_of(dataset) for dataset, images in zip(datasets, allowed, strict=True)]
    return replace(data, known_pictures=KnownPictures.joined([data.known_pictures, *known]))


def _augmented(
    data: DecodingData, dataset: Dataset, augment: Dataset, options: DecoderOptions, left_out: Set[bytes]
) -> DecodingData:
    """``data`` with the trials of a synthetic dataset, but those of validation images and ``left_out``.

    Copies of validation and test images in other files are left out as well.
    """
    test = unpacked(data.test_images)
    require_synthetic(augment, dataset, test)
    source = data.targets.source
    augment, tokens = open_untuned(augment, source.encoder, [source.layer])
    pairs = pairs_of(augment, tokens, "train")
    known = KnownPictures.of(dataset, np.union1d(dataset.image_rows("train"), dataset.image_rows("test")))
    never = known.with_copies(data.validation_images | test, augment)
    rows = augment.image_rows("train")
    kept = without(augment, rows, never | left_out)
    if not len(kept):
        raise SynBrainError(
            f"{augment.path} shows no image but validation images", "synthesize responses to further images"
        )
    pairs = pairs.take(np.searchsorted(rows, kept))
    more = with_synthetic(data, pairs, data.targets.of(pairs.tokens), options.synthetic_weight)
    counts = {"n_synthetic_images": pairs.n_images, "n_synthetic_trials": pairs.n_trials}
    trained = unpacked(data.trained_images) | set(image_marks(augment, kept))
    synthetic = KnownPictures.of(augment, kept)
    return replace(
        more, record=data.record | counts, trained_images=packed(trained), known_pictures=synthetic
    )


def with_synthetic(data: DecodingData, trials: Pairs, targets: Float32, weight: float) -> DecodingData:
    """The same data with synthetic trials of the only subject, which make up ``weight`` of a batch."""
    subject = replace(data.subjects[0], synthetic=trials, synthetic_targets=targets, synthetic_weight=weight)
    return replace(data, subjects=[subject])


def mean_and_sd(train: Pairs) -> tuple[Float32, Float32]:
    """(n_voxels,) float32 each, of the training trials; a constant voxel has sd 1."""
    scale = Scale.of_trials(train)
    return scale.mean.astype(np.float32), scale.unit.astype(np.float32)


def require_synthetic(augment: Dataset, dataset: Dataset, test_marks: set[bytes]) -> None:
    """Refuse what cannot augment ``dataset``.

    Raises:
        SynBrainError: no synthetic dataset, no trials, other voxels or another unit, or test images.
    """
    if augment.info.synthetic is None:
        raise SynBrainError(
            f"{augment.path} holds no synthetic trials", "pass what `synbrain augment` wrote to --augment"
        )
    mend = "make synthetic trials with a run of this subject"
    require_same_voxels(Voxels.of(augment), Voxels.of(dataset), mend)
    if augment.info.subject not in (dataset.info.subject, dataset.info.name):
        note_other_person(f"the trials of {augment.path} are of {augment.info.subject}", dataset, mend)
    if augment.n_trials == 0:
        raise SynBrainError(f"{augment.path} holds no trials", "pass --hours of at least one trial")
    require_no_test_image(
        set(image_marks(augment, np.arange(augment.n_images))),
        test_marks,
        f"{{n}} images of {augment.path} are test images",
        "synthesize responses to other images",
    )


def require_untrained(decoder: Decoder, dataset: Dataset) -> None:
    """Refuse to test a decoder on images that it was trained on.

    Raises:
        SynBrainError: naming how many.
    """
    require_no_test_image(
        decoder.known_pictures.with_copies(unpacked(decoder.config.trained_images), dataset, "the decoder"),
        set(image_marks(dataset, dataset.image_rows("test"))),
        f"the decoder was trained on {{n}} test images of {dataset.path}",
        "train it without them, or evaluate on another dataset",
    )


def _names(datasets: Sequence[Dataset]) -> list[str]:
    names = [dataset.info.name if len(datasets) > 1 else dataset.info.subject for dataset in datasets]
    if len(set(names)) < len(names):
        raise SynBrainError(f"two subjects are called {names}", "prepare the datasets with different --name")
    return names


def _subject(name: str, held: HeldOut, targets: TokenTargets) -> DecodingSubject:
    train, validation = held.train, held.validation
    return DecodingSubject(
        name, train, targets.of(train.tokens), validation, targets.of(validation.tokens), *mean_and_sd(train)
    )


def _chosen(
    dataset: Dataset, rows: Rows, options: DecoderOptions, saw: set[bytes] | None
) -> tuple[HeldOut, tuple[bytes, ...]]:
    """Images of the budget among ``rows``, split, and the marks of them all.

    ``saw``: marks of images that a run saw whose trials are to be added; None: none are.
    """
    tokens = _layer_tokens(dataset, options)
    budget = parse_budget(options.budget, options.by, options.budget_seed)
    trials = budget_trials(dataset, budget)
    shown = dataset.trials["image"].to_numpy(dtype=np.int64)[trials]
    kept = np.isin(shown, rows)
    images = np.unique(shown[kept])
    if len(images) < 4:
        raise SynBrainError(
            f"{counted(len(images), 'training image')} within the budget {options.budget}",
            "choose a larger budget",
        )
    pairs = Pairs(tokens.take(images), dataset.responses, trials[kept], np.searchsorted(images, shown[kept]))
    marks = image_marks(dataset, images)
    names = dataset.images["name"].astype(str).to_numpy()[images]
    if saw is None:
        return hold_out(pairs, marks, names, options.validation_fraction, (options.seed, set())), marks
    # the run, and synthetic trials, may show versions of these pictures that the budget does not hold
    every = dataset.image_rows("train")
    known, family = image_marks(dataset, every), tokens.families_of(every)
    like_seen = saw | _alike(known, family, saw)
    held = hold_out(pairs, marks, names, options.validation_fraction, (options.seed, like_seen))
    return replace(held, marks=held.marks | _alike(known, family, held.marks)), marks


def _alike(marks: Sequence[bytes], family: Rows, of: Set[bytes]) -> set[bytes]:
    """Those of ``marks`` whose families have an image of ``of``."""
    theirs = np.isin(family, family[[mark in of for mark in marks]])
    return {mark for mark, there in zip(marks, theirs, strict=True) if there}


def _layer_tokens(dataset: Dataset, options: DecoderOptions) -> TokenSet:
    tokens = open_tokens(dataset, options.encoder, [options.layer] if options.layer else None)
    return tokens.only(options.layer or list(tokens.layers)[-1])
