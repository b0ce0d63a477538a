"""Tokens in memory: one image set seen through the layers of one encoder, and paired with trials."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synbrain.arrays import Mask, Rows
from synbrain.data.dataset import Dataset, Split
from synbrain.describe import counted
from synbrain.errors import SynBrainError, SynBrainWarning
from synbrain.metrics.voxel import blocks

SUMMED_VALUES = 2**23  # float64 sums of repeats in memory at a time: 64 MiB


def some_of(rows: Rows, most: int, seed: tuple[int, ...]) -> Rows:
    """``rows``, or ``most`` of them in order where there are more, drawn by ``seed``."""
    if len(rows) <= most:
        return rows
    return np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))


@dataclass(frozen=True)
class TokenFile:
    """Where a layer's tokens are stored: what is made of them may be kept beside them.

    Attributes:
        folder: of the tokens of this encoder, or where what belongs to read-only ones goes.
        layer: the name of the layer there.
        sha256: of the file.
        given: SHA-256 of the file that a user gave the tokens in; empty where an encoder made them, or where
            it is not known.
    """

    folder: Path
    layer: str
    sha256: str
    given: str = ""

    @classmethod
    def of(cls, folder: Path, layer: str, entry: Mapping[str, Any]) -> TokenFile:
        """A layer with what ``tokens.json`` says of it."""
        return cls(folder, layer, entry["sha256"], entry.get("given", ""))


def note_other_files(encoder: str, these: Mapping[str, str], those: Mapping[str, str], whose: str) -> None:
    """Warn where tokens that a user gave come from another file: nobody can say that one network made both.

    Args:
        encoder: name of the tokens.
        these, those: layer -> digest of the file, as :attr:`TokenSet.given`.
        whose: whom the others belong to ("the run").
    """
    other = sorted(layer for layer in these.keys() & those.keys() if these[layer] != those[layer])
    if other:
        note = (
            f"tokens of {encoder} (layer {other[0]}) come from another file than those of {whose}: "
            "that is right if the same network made both; give features of another network another name"
        )
        warnings.warn(note, SynBrainWarning, stacklevel=3)


@dataclass(frozen=True)
class TokenSet:
    """Tokens of ``len(self)`` images from one encoder, one array per layer; lazily indexed.

    Attributes:
        encoder: the encoder's name in the registry.
        digest: of encoder weights, preprocessing and layer; models refuse tokens of another digest.
        layers: layer name -> (n_stored, n_tokens, dim) float16 or float32, often memory maps.
        rows: (n_images,) which stored rows this set shows, in order.
        images: (n_images,) rows of ``dataset.images``; None where these are ``rows``, as in a dataset's own
            store. A store that several datasets share has other rows.
        tuned: stored rows of images that the encoder was tuned on; nothing is fitted on them.
        files: layer name -> its file, of layers that lie on disk.
        settled: (n_images,) families of images that look alike, where other layers than these tell them.
    """

    encoder: str
    digest: str
    layers: dict[str, NDArray[np.floating]]
    rows: Rows
    tuned: Rows | None = None
    files: Mapping[str, TokenFile] = field(default_factory=dict)
    images: Rows | None = None
    settled: Rows | None = None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """Layer -> (n_tokens, dim)."""
        return {name: (array.shape[1], array.shape[2]) for name, array in self.layers.items()}

    @property
    def image_rows(self) -> Rows:
        """(n_images,) rows of ``dataset.images`` that this set shows: pictures and names are theirs."""
        return self.rows if self.images is None else self.images

    @property
    def content(self) -> list[str]:
        """Digests of the encoder and of the files of the layers: other pictures have other tokens."""
        return [self.digest, *(self.files[layer].sha256 for layer in self.layers if layer in self.files)]

    @property
    def given(self) -> dict[str, str]:
        """Layer -> digest of the file that a user gave its tokens in, which the encoder's does not tell."""
        files = {layer: self.files[layer].given for layer in self.layers if layer in self.files}
        return {layer: given for layer, given in files.items() if given}

    @property
    def is_tuned(self) -> Mask:
        """(n_images,) bool, images that the encoder was tuned on: their tokens know the responses."""
        return np.isin(self.rows, [] if self.tuned is None else self.tuned)

    def take(self, rows: Rows) -> TokenSet:
        """The images ``rows`` of this set, in that order; nothing is copied."""
        images = None if self.images is None else self.images[rows]
        settled = None if self.settled is None else self.settled[rows]
        return replace(self, rows=self.rows[rows], images=images, settled=settled)

    def and_also(self, others: TokenSet) -> TokenSet:
        """The images of both, which are of one store."""

        def both(mine: Rows | None, theirs: Rows | None) -> Rows | None:
            return None if mine is None or theirs is None else np.concatenate([mine, theirs])

        return replace(
            self, rows=np.concatenate([self.rows, others.rows]), images=both(self.images, others.images),
            settled=both(self.settled, others.settled),
        )  # fmt: skip

    @cached_property
    def families(self) -> Rows:
        """(n_images,) number of each image's family of look-alikes (:mod:`synbrain.features.look_alikes`).

        Images of one family are fitted on together or judged by together.
        """
        from synbrain.features.look_alikes import families  # torch, which those who open tokens do without

        return families(self.layers, self.rows) if self.settled is None else self.settled

    @property
    def families_told(self) -> list[list[int]]:
        """For what depends on folds: the families, or nothing where no two images look alike."""
        from synbrain.features.look_alikes import n_alike

        return [self.families.tolist()] if n_alike(self.families) else []

    def families_of(self, rows: Rows) -> Rows:
        """(n,) families of the images ``rows`` of this set, told among these alone."""
        return self.take(rows).families

    def in_families(self) -> TokenSet:
        """The same images whose families stay what these layers tell, through whatever layers."""
        return replace(self, settled=self.families)

    def only(self, *layers: str) -> TokenSet:
        """The same images through some of the layers."""
        missing = [layer for layer in layers if layer not in self.layers]
        if missing:
            raise SynBrainError(
                f"tokens of {self.encoder} hold the layers {list(self.layers)}, not {missing}",
                "run `synbrain features` with those layers",
            )
        return replace(self, layers={layer: self.layers[layer] for layer in layers})

    def read(self, layer: str, rows: Rows | None = None) -> NDArray[np.float32]:
        """(n, n_tokens, dim) float32 of one layer, all images or the rows ``rows`` of this set."""
        wanted = self.rows if rows is None else self.rows[rows]
        return np.asarray(self.layers[layer][wanted], dtype=np.float32)


@dataclass(frozen=True)
class Pairs:
    """Tokens of images with the trials on which a subject saw them: what a model is fitted on.

    Attributes:
        tokens: one row per distinct image of this split.
        responses: (n_stored_trials, n_voxels) float32, often a memory map.
        trials: (n_trials,) rows of ``responses`` that belong here.
        image_of_trial: (n_trials,) row of ``tokens`` that each of them showed.
    """

    tokens: TokenSet
    responses: NDArray[np.float32]
    trials: Rows
    image_of_trial: Rows

    @property
    def n_images(self) -> int:
        return len(self.tokens)

    @property
    def n_trials(self) -> int:
        return len(self.trials)

    @property
    def n_voxels(self) -> int:
        return int(self.responses.shape[1])

    def repeats(self) -> Rows:
        """(n_images,) number of trials of each image."""
        return np.bincount(self.image_of_trial, minlength=self.n_images).astype(np.int64)

    @cached_property
    def digest(self) -> str:
        """Of what a fit that goes on must find as it was: tokens, images, trials, responses."""
        known = hashlib.sha256(" ".join(self.tokens.content).encode())
        for array in (self.tokens.rows, self.trials, self.image_of_trial):
            known.update(np.ascontiguousarray(array).data)
        for part in blocks(self.n_trials, self.n_voxels):
            known.update(np.ascontiguousarray(self.trial_responses(np.arange(part.start, part.stop))).data)
        return known.hexdigest()

    def trial_responses(self, which: Rows | None = None) -> NDArray[np.float32]:
        """(n, n_voxels) float32, single-trial responses, all or the positions ``which``."""
        rows = self.trials if which is None else self.trials[which]
        return np.asarray(self.responses[rows], dtype=np.float32)

    def repeat_means(self) -> NDArray[np.float32]:
        """(n_images, n_voxels) float32, mean response of each image over its trials."""
        order = np.argsort(self.image_of_trial, kind="stable")
        ends = np.concatenate([[0], np.cumsum(self.repeats())])
        means = np.zeros((self.n_images, self.n_voxels), dtype=np.float32)
        for images in blocks(self.n_images, self.n_voxels, SUMMED_VALUES):
            which = order[ends[images.start] : ends[images.stop]]
            counts = np.diff(ends[images.start : images.stop + 1])
            shown = np.flatnonzero(counts)
            if len(shown):
                starts = ends[images.start + shown] - ends[images.start]
                total = np.add.reduceat(self.responses[self.trials[which]], starts, axis=0, dtype=np.float64)
                means[images.start + shown] = total / counts[shown, None]
        return means

    def take(self, images: Rows) -> Pairs:
        """The images ``images`` (rows of ``tokens``) in that order, with all their trials."""
        position = np.full(self.n_images, -1, dtype=np.int64)
        position[images] = np.arange(len(images))
        kept = position[self.image_of_trial] >= 0
        return Pairs(
            tokens=self.tokens.take(images),
            responses=self.responses,
            trials=self.trials[kept],
            image_of_trial=position[self.image_of_trial[kept]],
        )

    def some_trials(self, most: int, seed: tuple[int, ...]) -> Rows:
        """Positions of ``most`` trials at most, of whole images drawn by ``seed``, repeated ones first.

        For estimates of noise, which need all trials of an image, and images from everywhere. An image with
        more than ``most`` trials is left out.
        """
        repeats = self.repeats()
        drawn = np.random.default_rng(seed).permutation(self.n_images)
        drawn = drawn[np.argsort(repeats[drawn] < 2, kind="stable")]
        kept = np.zeros(self.n_images, dtype=bool)
        room = most
        for image in drawn:
            if repeats[image] <= room:
                kept[image] = True
                room -= repeats[image]
        return np.flatnonzero(kept[self.image_of_trial])

    def together_with(self, others: Pairs) -> Pairs:
        """Images and trials of both, in stored order: what was split, when ``others`` was held out."""
        trials = np.concatenate([self.trials, others.trials])
        shown = np.concatenate([self.image_of_trial, others.image_of_trial + self.n_images])
        tokens = self.tokens.and_also(others.tokens)
        images, recorded = np.argsort(tokens.rows, kind="stable"), np.argsort(trials, kind="stable")
        return Pairs(
            tokens=tokens.take(images),
            responses=self.responses,
            trials=trials[recorded],
            image_of_trial=np.argsort(images)[shown[recorded]],
        )

    def hold_out(self, fraction: float, seed: int) -> tuple[Pairs, Pairs]:
        """Split by image into (rest, held out); at least one image is held out, the rest stays.

        Images that look alike stay together, so that a few more may be held out.
        """
        n_held = min(max(1, round(fraction * self.n_images)), self.n_images - 1)
        if n_held < 1:
            raise SynBrainError("one image cannot be split", "give at least two training images")
        from synbrain.features.look_alikes import held_out  # torch

        family = self.tokens.families
        n_held = max(1, min(n_held, self.n_images - int(np.bincount(family).max())))  # one family stays
        held = held_out(family, n_held, seed)
        return self.take(np.setdiff1d(np.arange(self.n_images), held)), self.take(held)


def pairs_of(dataset: Dataset, tokens: TokenSet, split: Split) -> Pairs:
    """Pair the trials of ``split`` with the tokens of their images.

    Args:
        dataset: one subject's recordings.
        tokens: tokens of all ``dataset.n_images`` images, in the order of ``dataset.images``.
        split: "train" or "test".

    Raises:
        SynBrainError: where tokens and images differ in number, or the split is empty.
    """
    if len(tokens) != dataset.n_images:
        raise SynBrainError(
            f"{counted(len(tokens), 'token row')} for {counted(dataset.n_images, 'image')} of {dataset.path}",
            "run `synbrain features` on this dataset",
        )
    images, trials = dataset.image_rows(split), dataset.trial_rows(split)
    if len(images) == 0:
        raise SynBrainError(f"{dataset.path} has no {split} images", f"mark some trials as {split}")
    if split == "train" and tokens.is_tuned[images].any():
        raise SynBrainError(
            f"{tokens.encoder} was tuned on training images of {dataset.path}, so that "
            "their features know the responses",
            "take what `open_untuned(dataset, encoder)` gives, or tune an encoder without this dataset",
        )
    shown = dataset.trials["image"].to_numpy(dtype=np.int64)[trials]
    return Pairs(
        tokens=tokens.take(images),
        responses=dataset.responses,
        trials=trials,
        image_of_trial=np.searchsorted(images, shown),
    )


def split_pairs(dataset: Dataset, tokens: TokenSet) -> tuple[Pairs, Pairs]:
    """(training, test) pairs of a dataset.

    Raises:
        SynBrainError: where a split is empty.

    >>> from synbrain.features.store import open_tokens
    >>> from synbrain.simulate.example import toy_dataset
    >>> train, test = split_pairs(toy_dataset(), open_tokens(toy_dataset(), "pixels"))
    >>> train.n_images, test.repeat_means().shape
    (40, (20, 12))
    """
    if len(dataset.image_rows("test")) == 0:
        raise SynBrainError(
            f"{dataset.path} has no test images, so nothing can be scored",
            "mark some images' trials as `test` in its source and prepare it again",
        )
    return pairs_of(dataset, tokens, "train"), pairs_of(dataset, tokens, "test")
