"""A model bound to one of its subjects, as scores and comparisons take it; whose recordings are at hand."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synbrain.arrays import Float32, Rows
from synbrain.data.dataset import Dataset, Split
from synbrain.data.marks import image_marks, unpacked
from synbrain.errors import SynBrainError, SynBrainWarning
from synbrain.features.tokens import Pairs, TokenSet
from synbrain.model.parts import SubjectPart
from synbrain.model.synbrain import SynBrain


def require_model(given: Any) -> None:
    """Raise where ``given`` is no run that was opened, such as its path."""
    if not isinstance(given, SynBrain):
        raise SynBrainError(
            f"{str(given)[:100]!r} is no model", "give what SynBrain.from_pretrained(RUN) opens"
        )


def part_of(model: SynBrain, dataset: Dataset, subject: str | None = None) -> SubjectPart:
    """The part of a run that a dataset's recordings are of.

    A run of several subjects calls them as their datasets are called, a run of one as its dataset calls the
    subject; a single subject needs no name.

    Args:
        model: a run.
        dataset: recordings.
        subject: named by the user.

    Raises:
        SynBrainError: where no name fits and the run has several subjects.
    """
    names = (dataset.info.name, dataset.info.subject)
    return model.subject(subject or next((name for name in names if name in model.subjects), None))


def require_recorded(part: SubjectPart, dataset: Dataset, *, chosen: bool) -> None:
    """See that recordings with as many voxels are of these voxels; say so where they are another subject's.

    Args:
        part: of the run.
        dataset: recordings of as many voxels.
        chosen: by the user, who knows whose recordings they are; nothing is said of names then.

    Raises:
        SynBrainError: where the voxels lie at other places of a grid.
    """
    mine, theirs = part.space, dataset.space
    if (
        mine.index is not None
        and theirs.index is not None
        and not (mine.shape == theirs.shape and np.array_equal(mine.index, theirs.index))
    ):
        raise SynBrainError(
            f"the {mine.unit_names} of {dataset.path} lie at other places than those of {part.name}",
            "give recordings of the subject of the run, prepared with the same mask",
        )
    meshes = {mine.mesh, theirs.mesh} - {None, "other"}
    if len(meshes) > 1:  # fsLR and fsaverage have meshes of as many vertices
        raise SynBrainError(
            f"the vertices of {dataset.path} are of {theirs.mesh}, those of {part.name} of {mine.mesh}",
            "give recordings on the mesh of the run",
        )
    if not chosen and part.name not in (dataset.info.subject, dataset.info.name):
        note_other_person(f"the run is of {part.name}", dataset, "`synbrain adapt` the run first")


def note_other_person(known: str, dataset: Dataset, mend: str) -> None:
    """Warn that recordings may be of another person than what they are used with; names alone do not tell.

    Args:
        known: what the other side says, such as "the run is of s1".
        dataset: recordings of a subject of another name.
        mend: what to do where it is another person.
    """
    note = f"{known}, {dataset.path} of {dataset.info.subject}: if these are two people, {mend}"
    warnings.warn(note, SynBrainWarning, stacklevel=4)


def seen_rows(run: SynBrain, dataset: Dataset, split: Split) -> Rows:
    """Rows of ``dataset.images`` whose picture a run was trained on, in this file or in another.

    A few test images that look like images in other files do not count (``known_pictures.note_few``).

    Raises:
        SynBrainError: where the pictures are gone, so that nobody can tell.
    """
    trained, rows = unpacked(run.config.trained_images), dataset.image_rows(split)
    seen = run.known_pictures.with_copies(trained, dataset, "the run" if split == "test" else "")
    return np.asarray(rows[[mark in seen for mark in image_marks(dataset, rows)]], dtype=np.int64)


def seen_images(run: SynBrain, dataset: Dataset, split: Split) -> tuple[int, int] | None:
    """How many images of a split a run was trained on, and how many there are; None where it does not say.

    Raises:
        SynBrainError: where the pictures are gone, so that nobody can tell.
    """
    if not run.config.trained_images:
        return None
    return len(seen_rows(run, dataset, split)), len(dataset.image_rows(split))


def require_unseen(run: SynBrain, dataset: Dataset) -> bool:
    """Refuse to score a run on images that it was trained on, as a dataset has that was split anew.

    Where a run does not say what it saw (imported, or of an older version), or the pictures are gone, nobody
    can tell, and that is said.

    Returns:
        Whether it is known that the run saw none.

    Raises:
        SynBrainError: naming how many.
    """
    why, known = "it does not say which images it saw", None
    try:
        known = seen_images(run, dataset, "test")
    except SynBrainError as error:
        why = error.problem
    if known is None:
        note = f"whether the run was trained on test images of {dataset.path} is not known: {why}"
        warnings.warn(note, SynBrainWarning, stacklevel=3)
        return False
    if known[0]:
        raise SynBrainError(
            f"the run was trained on {known[0]} of {known[1]} test images of {dataset.path}",
            "train it again on this split, or score it on images that it did not see",
        )
    return True


def n_fitted_images(model: SynBrain, part: SubjectPart) -> int | None:
    """How many images of its own a subject was fitted on (a budget's, say); None where a run does not say."""
    given = None if model.config.adaptation is None else model.config.adaptation.n_images
    return given if part.linear is None else part.linear.about.get("n_images", given)


class BoundModel:
    """A run with one of its subjects chosen, as the protocol that baselines share."""

    def __init__(self, model: SynBrain, subject: str) -> None:
        self.model, self.subject = model, subject

    def fit(self, pairs: Pairs, *, seed: int = 0, show_progress: bool = False) -> BoundModel:
        """Runs are trained by ``synbrain train``; this one is fitted already."""
        return self

    def predict(self, tokens: TokenSet) -> NDArray[np.float32]:
        return self.model.predict(tokens, subject=self.subject)

    def sample(self, tokens: TokenSet, n_samples: int, seed: int = 0) -> NDArray[np.float32]:
        return self.model.sample(tokens, n_samples, seed, subject=self.subject)

    def sample_around(self, mean: Float32, n_samples: int, seed: int = 0) -> Float32:
        """As :meth:`sample`, given the predictions (n_images, n_voxels)."""
        part = self.model.subject(self.subject)
        if part.noise is None:
            return np.broadcast_to(mean, (n_samples, *mean.shape))
        return part.noise.sample(mean, n_samples, part.seed_of_trials(seed))

    def predictive_around(self, mean: Float32, tokens: TokenSet, n_samples: int, seed: int = 0) -> Float32:
        """(n_samples, n_images, n_voxels) float32, draws of what may be measured, given the predictions."""
        part = self.model.subject(self.subject)
        if part.noise is None:
            return np.broadcast_to(mean, (n_samples, *mean.shape))
        return part.noise.predictive(mean, tokens).sample(n_samples, part.seed_of_trials(seed))
