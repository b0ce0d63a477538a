"""Tokens in memory: one image set seen through the layers of one encoder, and paired with trials."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from synbrain.arrays import Float64, Rows
from synbrain.data.dataset import Dataset, Split
from synbrain.errors import SynBrainError
from synbrain.metrics.voxel import blocks


def some_of(rows: Rows, most: int, seed: tuple[int, ...]) -> Rows:
    """``rows``, or ``most`` of them in order where there are more, drawn by ``seed``."""
    if len(rows) <= most:
        return rows
    return np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))


@dataclass(frozen=True)
class TokenSet:
    """Tokens of ``len(self)`` images from one encoder, one array per layer; lazily indexed.

    Attributes:
        encoder: the encoder's name in the registry.
        digest: of encoder weights, preprocessing and layer; models refuse tokens of another digest.
        layers: layer name -> (n_stored, n_tokens, dim) float16 or float32, often memory maps.
        rows: (n_images,) which stored rows this set shows, in order.
        tuned: stored rows of images that the encoder was tuned on; nothing is fitted on them.
    """

    encoder: str
    digest: str
    layers: dict[str, NDArray[np.floating]]
    rows: Rows
    tuned: Rows | None = None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """Layer -> (n_tokens, dim)."""
        return {name: (array.shape[1], array.shape[2]) for name, array in self.layers.items()}

    def take(self, rows: Rows) -> TokenSet:
        """The images ``rows`` of this set, in that order; nothing is copied."""
        return replace(self, rows=self.rows[rows])

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

    def trial_responses(self, which: Rows | None = None) -> NDArray[np.float32]:
        """(n, n_voxels) float32, single-trial responses, all or the positions ``which``."""
        rows = self.trials if which is None else self.trials[which]
        return np.asarray(self.responses[rows], dtype=np.float32)

    def repeat_means(self) -> NDArray[np.float32]:
        """(n_images, n_voxels) float32, mean response of each image over its trials."""
        total = np.zeros((self.n_images, self.n_voxels), dtype=np.float64)
        for start in range(0, self.n_trials, 2048):  # bounded memory however many trials there are
            part = slice(start, start + 2048)
            np.add.at(total, self.image_of_trial[part], self.responses[self.trials[part]])
        counts = np.maximum(self.repeats(), 1)[:, None]
        return (total / counts).astype(np.float32)

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

    def hold_out(self, fraction: float, seed: int) -> tuple[Pairs, Pairs]:
        """Split by image into (rest, held out); at least one image is held out, the rest stays."""
        order = np.random.default_rng(seed).permutation(self.n_images)
        n_held = min(max(1, round(fraction * self.n_images)), self.n_images - 1)
        if n_held < 1:
            raise SynBrainError("one image cannot be split", "give at least two training images")
        return self.take(np.sort(order[n_held:])), self.take(np.sort(order[:n_held]))


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
            f"{len(tokens)} token rows for {dataset.n_images} images of {dataset.path}",
            "run `synbrain features` on this dataset",
        )
    images, trials = dataset.image_rows(split), dataset.trial_rows(split)
    if len(images) == 0:
        raise SynBrainError(f"{dataset.path} has no {split} images", f"mark some trials as {split}")
    if split == "train" and tokens.tuned is not None and np.isin(tokens.rows[images], tokens.tuned).any():
        raise SynBrainError(
            f"{tokens.encoder} was tuned on training images of {dataset.path}, so that "
            "their features know the responses",
            "take `without_tuned_images(dataset, encoder)`, or tune an encoder without this dataset",
        )
    shown = dataset.trials["image"].to_numpy(dtype=np.int64)[trials]
    return Pairs(
        tokens=tokens.take(images),
        responses=dataset.responses,
        trials=trials,
        image_of_trial=np.searchsorted(images, shown),
    )


def response_scale(pairs: Pairs, kind: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(mean, sd), each (n_voxels,) float32, over single trials; (0, 1) for "raw".

    A constant voxel gets sd 1.
    """
    if kind == "raw":
        return np.zeros(pairs.n_voxels, dtype=np.float32), np.ones(pairs.n_voxels, dtype=np.float32)
    total = np.zeros(pairs.n_voxels)
    square = np.zeros(pairs.n_voxels)
    shift = pairs.trial_responses(np.arange(1))[0].astype(np.float64)  # keeps the squares small
    for start in range(0, pairs.n_trials, 2048):
        rows = np.arange(start, min(start + 2048, pairs.n_trials))
        part = pairs.trial_responses(rows) - shift
        total += part.sum(axis=0)
        square += (part**2).sum(axis=0)
    mean = total / pairs.n_trials
    sd = np.sqrt(np.maximum(square / pairs.n_trials - mean**2, 0.0))
    return (mean + shift).astype(np.float32), np.where(sd > 1e-6, sd, 1.0).astype(np.float32)


def split_pairs(dataset: Dataset, tokens: TokenSet) -> tuple[Pairs, Pairs]:
    """(training, test) pairs of a dataset.

    Raises:
        SynBrainError: where a split is empty.
    """
    if len(dataset.image_rows("test")) == 0:
        raise SynBrainError(
            f"{dataset.path} has no test images, so nothing can be scored",
            "mark some images' trials as `test` in its source and prepare it again",
        )
    return pairs_of(dataset, tokens, "train"), pairs_of(dataset, tokens, "test")


def training_statistics(train: Pairs) -> tuple[Float64, Float64]:
    """Mean and sd (n_voxels,) float64 of the training trials, read a block of trials at a time.

    The sd of a voxel that is constant up to float32 rounding is 0.
    """
    n, mean, squares = 0, np.zeros(train.n_voxels), np.zeros(train.n_voxels)
    for part in blocks(train.n_trials, train.n_voxels, 2**23):
        values = train.trial_responses(np.arange(part.start, part.stop)).astype(np.float64)
        m, own = len(values), values.mean(axis=0)
        squares += np.sum((values - own) ** 2, axis=0) + (own - mean) ** 2 * n * m / (n + m)
        mean += (own - mean) * m / (n + m)
        n += m
    sd = np.sqrt(squares / n)
    return mean, np.where(sd > 1e-7 * np.abs(mean), sd, 0.0)
