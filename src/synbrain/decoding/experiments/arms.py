"""Arms of the augmentation experiment: what each adds to the real trials of a subject."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from synbrain.arrays import Float32, Rows
from synbrain.baselines.gaussian import RidgeGaussian
from synbrain.data.budget import TRIALS_PER_HOUR
from synbrain.data.dataset import Dataset
from synbrain.data.known_pictures import KnownPictures
from synbrain.data.marks import image_marks
from synbrain.decoding.augment import draw_images, trials_of, usable_images
from synbrain.decoding.guards import part_beside
from synbrain.decoding.options import AugmentOptions
from synbrain.decoding.subjects import DecodingData
from synbrain.errors import SynBrainError
from synbrain.features.store import open_tokens
from synbrain.features.tokens import Pairs, TokenSet
from synbrain.files import digest_of
from synbrain.model.parts import SubjectPart
from synbrain.model.synbrain import SynBrain

KINDS = {"calibrated": "trial", "expected": "mean", "isotropic": "isotropic"}


@dataclass(frozen=True)
class Cell:
    """One decoder of the experiment.

    Attributes:
        arm, hours: what is added to the real trials, and how much.
        seed: of everything that is drawn.
        weight: share of synthetic samples in a batch.
    """

    arm: str
    hours: float
    seed: int
    weight: float = 0.0

    @property
    def name(self) -> str:
        """Of its file."""
        return f"{self.arm}-{self.hours:g}h-{self.seed}" + (f"-{self.weight:g}" if self.weight else "")

    @property
    def whichever_weight(self) -> Cell:
        """The place of the decoder that is chosen among several weights."""
        return replace(self, weight=0.0)


@dataclass(frozen=True)
class Arms:
    """Trials that are added to the real ones of a budget; expected responses are computed once for all cells.

    Attributes:
        run: of the subject.
        dataset: the subject's.
        images: whose images the synthetic trials show.
    """

    run: SynBrain
    dataset: Dataset
    images: Dataset
    _ridge: dict[int, RidgeGaussian] = field(default_factory=dict, repr=False)
    _with_copies: dict[frozenset[bytes], set[bytes]] = field(default_factory=dict, repr=False)

    @cached_property
    def part(self) -> SubjectPart:
        """Of the run, whose trials are added to those of ``dataset``.

        Raises:
            SynBrainError: where the run is of another subject or unit, or saw its test images.
        """
        return part_beside(self.run, self.dataset)

    @cached_property
    def run_digest(self) -> str:
        """What tells the run from others: its digest, or what it answers where it lies in no folder."""
        if self.run.digest:
            return self.run.digest
        first = self.expected[:1]
        answers = (first, trials_of(self.part, first, AugmentOptions()))
        return digest_of([hashlib.sha256(answer.tobytes()).hexdigest() for answer in answers])

    @cached_property
    def rows(self) -> Rows:
        """Rows of ``images.images`` that are nobody's test image."""
        return usable_images(self.run, self.images, [self.dataset])

    @cached_property
    def marks(self) -> tuple[bytes, ...]:
        """Of these images."""
        return image_marks(self.images, self.rows)

    def shown(self, options: AugmentOptions, data: DecodingData) -> Rows:
        """(n_trials,) rows of ``images.images``, none of them an image that ``data`` chooses decoders by.

        Nor is one of them an image that the encoder whose tokens are decoded was tuned on.

        Raises:
            SynBrainError: where no other image is left.
        """
        never = self._copies_too(data.validation_images)
        kept = np.array([mark not in never for mark in self.marks], dtype=bool)
        kept &= ~self._decoded(data).is_tuned[self.rows]
        if not kept.any():
            raise SynBrainError(
                f"every usable image of {self.images.path} is a validation image, or one that the decoded "
                "encoder was tuned on",
                "let synthetic trials show further images, with --images",
            )
        return draw_images(self.rows[kept], round(options.hours * TRIALS_PER_HOUR), options)

    def _copies_too(self, marks: frozenset[bytes]) -> set[bytes]:
        """``marks`` of the subject's images, and of those that ``images`` stores in other files."""
        if self.images.path == self.dataset.path:
            return set(marks)
        if marks not in self._with_copies:
            known = KnownPictures.of(self.dataset, self.dataset.image_rows("train"))
            self._with_copies[marks] = known.with_copies(marks, self.images)
        return self._with_copies[marks]

    @cached_property
    def tokens(self) -> TokenSet:
        """Of all images, from the run's encoder."""
        return self.run.tokens(open_tokens(self.images, self.run.config.encoder, self.run.config.layers))

    @cached_property
    def expected(self) -> Float32:
        """(len(rows), n_voxels) float32, the run's expected response to each usable image."""
        return self.run.predict(self.tokens.take(self.rows), subject=self.part.name)

    def trials(self, cell: Cell, data: DecodingData) -> tuple[Pairs, Float32]:
        """Trials that ``cell`` adds, and the targets of their images (n_images, n_tokens, dim).

        Args:
            cell: any arm but ``real``, which has a larger budget instead.
            data: the real trials.

        Raises:
            SynBrainError: missing tokens of the run's or the decoder's encoder.
        """
        subject, n_trials = data.subjects[0], round(cell.hours * TRIALS_PER_HOUR)
        if cell.arm == "repeated":
            order = np.resize(np.arange(subject.train.n_trials), n_trials)
            repeated = replace(
                subject.train, trials=subject.train.trials[order],
                image_of_trial=subject.train.image_of_trial[order],
            )  # fmt: skip
            return repeated, subject.targets
        options = AugmentOptions(hours=cell.hours, seed=cell.seed, kind=KINDS.get(cell.arm, "trial"))
        shown = self.shown(options, data)
        at = np.searchsorted(self.rows, shown)
        if cell.arm == "ridge_gaussian":
            # row i has noise of its own, also where an image is shown again
            responses = self._gaussian(cell.seed, subject.train).sample(
                self.tokens.take(shown), 1, cell.seed
            )[0]
        else:
            responses = trials_of(self.part, self.expected[at], options)
        unique = np.unique(shown)
        decoded = self._decoded(data).take(unique)
        pairs = Pairs(decoded, responses, np.arange(n_trials), np.searchsorted(unique, shown))
        return pairs, data.targets.of(decoded)

    def _decoded(self, data: DecodingData) -> TokenSet:
        """Tokens of all images, of the kind that is decoded."""
        source = data.targets.source
        return open_tokens(self.images, source.encoder, [source.layer])

    def _gaussian(self, seed: int, train: Pairs) -> RidgeGaussian:
        """Ridge with Gaussian residuals, fitted to the real trials of the seed.

        Images that the run's encoder was tuned on are left out: their tokens know the responses.
        """
        if seed not in self._ridge:
            encoder, layers = self.run.config.encoder, self.run.config.layers
            seen = self.run.tokens(open_tokens(self.dataset, encoder, layers)).take(train.tokens.image_rows)
            pairs = replace(train, tokens=seen).take(np.flatnonzero(~seen.is_tuned))
            self._ridge[seed] = RidgeGaussian().fit(pairs, seed=seed)
        return self._ridge[seed]
