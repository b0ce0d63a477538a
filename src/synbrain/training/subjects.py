"""The subjects that a model is trained on."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from synbrain.data.dataset import Dataset
from synbrain.data.known_pictures import NO_PICTURES, KnownPictures
from synbrain.data.marks import image_marks
from synbrain.data.space import VoxelSpace
from synbrain.describe import counted
from synbrain.errors import SynBrainError, SynBrainWarning
from synbrain.features.tokens import Pairs, TokenSet, note_other_files, pairs_of
from synbrain.features.tuned_images import tuned_away
from synbrain.linear.fit import LEAST_IMAGES, LinearFit
from synbrain.training.config import TrainConfig
from synbrain.training.leakage import TrainingImages


@dataclass(frozen=True)
class TrainingSubject:
    """One subject's training pairs, and what its part of the run says about it.

    Attributes:
        name: unique in a run.
        pairs: training images with their trials.
        space: positions and ROIs of the voxels.
        unit: of the responses.
        scaling: what leads back to the raw unit.
        image_marks: of the images of ``pairs.tokens`` (training/leakage.py); without them the run keeps no
            held-out predictions.
        test_marks: of the subject's test images.
        tuned_marks: of training images that have no part, since the encoder was tuned on them: the run knows
            the responses to them all the same.
        pictures: these images and the test images, which a run keeps to know them in other files.
        also_known: of an adaptation, mark of an image -> marks of its picture in files that the base was
            trained on.
        linear_fit: the linear path of these pairs without any prior, where it was fitted already.
    """

    name: str
    pairs: Pairs
    space: VoxelSpace
    unit: str
    scaling: dict[str, Any] = field(default_factory=dict)
    image_marks: tuple[bytes, ...] = ()
    test_marks: tuple[bytes, ...] = ()
    tuned_marks: tuple[bytes, ...] = ()
    pictures: KnownPictures = NO_PICTURES
    also_known: dict[bytes, tuple[bytes, ...]] = field(default_factory=dict)
    linear_fit: LinearFit | None = None

    @classmethod
    def of(cls, dataset: Dataset, pairs: Pairs, images: TrainingImages, name: str = "") -> TrainingSubject:
        """The subject of ``dataset``, whose ``pairs`` show ``images``; ``name`` in place of its own."""
        info = dataset.info
        if info.synthetic is not None:
            note = f"{dataset.path} holds synthetic responses ({info.synthetic}), not measured ones"
            warnings.warn(note, SynBrainWarning, stacklevel=3)
        tuned = tuned_away(dataset)
        return cls(
            name=name or info.subject,
            pairs=pairs,
            space=dataset.space,
            unit=info.unit,
            scaling=info.scaling,
            image_marks=images.marks,
            test_marks=images.test_marks,
            tuned_marks=image_marks(dataset, tuned),
            pictures=images.pictures_of(dataset, tuned),
        )


def training_subjects(
    datasets: Sequence[Dataset],
    images: Sequence[TrainingImages],
    tokens: Sequence[TokenSet],
) -> list[TrainingSubject]:
    """Training pairs of the images of each dataset that may be trained on (``leakage.training_images``).

    Several subjects are named as their datasets are, since datasets of one study may call them alike.

    Args:
        datasets: one per subject.
        images: of each, those that may be trained on.
        tokens: of all images of each dataset.
    """
    subjects = []
    for dataset, allowed, of_all in zip(datasets, images, tokens, strict=True):
        pairs = pairs_of(dataset, of_all, "train")
        pairs = pairs.take(dataset.image_rows("train").searchsorted(allowed.rows))
        name = dataset.info.name if len(datasets) > 1 else ""
        subjects.append(TrainingSubject.of(dataset, pairs, allowed, name))
    return subjects


def network_layer(tokens: TokenSet, config: TrainConfig) -> str:
    """The encoder layer that the networks read: the configured one, or the last of ``tokens``."""
    return config.network_layer or list(tokens.layers)[-1]


def sampling_weights(subjects: Sequence[TrainingSubject], given: dict[str, float]) -> list[float]:
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


def check_subjects(subjects: Sequence[TrainingSubject], config: TrainConfig) -> None:
    """See before anything is written or fitted that subjects and configuration fit each other.

    Raises:
        SynBrainError: two subjects of one name, too few images, different tokens, an unknown layer or subject
            weight.
    """
    names = [s.name for s in subjects]
    if len(set(names)) != len(names):
        raise SynBrainError(
            f"two subjects have one name: {names}", "prepare the datasets with different --name"
        )
    least = LEAST_IMAGES if config.linear_path else 2  # one to train on and one to validate
    for s in subjects:
        if s.pairs.n_images < least:
            raise SynBrainError(
                f"{s.name} has {counted(s.pairs.n_images, 'image')} to train on",
                f"give {least} at least, which cross-validation needs",
            )
    first = subjects[0].pairs.tokens
    for s in subjects[1:]:
        tokens = s.pairs.tokens
        if (tokens.encoder, tokens.digest, tokens.shapes) != (first.encoder, first.digest, first.shapes):
            raise SynBrainError(
                f"{s.name} has tokens of another encoder, version or layer than {names[0]}",
                "run `synbrain features` with the same encoder and layers on every dataset",
            )
        note_other_files(tokens.encoder, tokens.given, first.given, names[0])
    first.only(network_layer(first, config))
    sampling_weights(subjects, config.subject_weights)
