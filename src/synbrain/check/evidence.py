"""Trials reduced for checking: a few components per trial, and how well each trial fits each label.

All label checks rest on one matrix per session, ``evidence[t, j]``: how much trial t looks like a response
to the image of trial j, judged from *other* sessions alone. Two sources give the expected response of an
image: the mean of its repeats in other sessions, and a ridge prediction from image features that was fitted
on other sessions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import RidgeCV

from synbrain.arrays import Float64, Rows
from synbrain.data.dataset import Dataset

MAX_VOXELS, MAX_COMPONENTS, FOLDS = 1000, 100, 5
CLIP = 6.0  # session z-scores beyond this are artefacts, and would drown the rest


@dataclass(frozen=True)
class Reduced:
    """Responses of one dataset, ready for the label checks.

    Attributes:
        scores: (n_trials, k) float64, whitened principal components of session-z-scored responses.
        variances: (k,) variance of each component before whitening.
        image: (n_trials,) row of ``dataset.images``.
        block: (n_trials,) 0-based session (or fold, where the dataset has one session only).
        n_images: number of distinct images.
    """

    scores: Float64
    variances: Float64
    image: Rows
    block: Rows
    n_images: int

    @property
    def n_blocks(self) -> int:
        return int(self.block.max()) + 1

    def rows(self, block: int) -> Rows:
        """Trials of one block in recorded order."""
        return np.flatnonzero(self.block == block)

    def with_blocks(self, block: Rows) -> Reduced:
        """The same trials in other blocks."""
        return Reduced(self.scores, self.variances, self.image, block, self.n_images)


def session_z(responses: NDArray[np.floating]) -> Float64:
    """One session (n_trials, n_voxels) without its mean and linear trend, at unit variance, clipped.

    Voxels without variance or with values that are not finite become 0.
    """
    values = np.asarray(responses, dtype=np.float64)
    values[:, ~np.isfinite(values).all(axis=0)] = 0.0
    line = np.linspace(-1.0, 1.0, len(values))
    values -= values.mean(axis=0)
    scale = values.std(axis=0)
    if len(values) > 20:
        values -= line[:, None] * ((line @ values) / (line @ line))
    left = values.std(axis=0)
    usable = left > 1e-6 * np.maximum(scale, 1e-12)
    values[:, usable] /= left[usable]
    values[:, ~usable] = 0.0
    return np.asarray(np.clip(values, -CLIP, CLIP))


def choose_voxels(dataset: Dataset, seed: int = 0) -> Rows:
    """At most ``MAX_VOXELS`` voxels: those of highest ncsnr where it is known, any otherwise."""
    if dataset.n_voxels <= MAX_VOXELS:
        return np.arange(dataset.n_voxels)
    known = dataset.space.ncsnr
    if known is not None and np.nan_to_num(known).max() > 0:
        return np.sort(np.argsort(-np.nan_to_num(known), kind="stable")[:MAX_VOXELS])
    return np.sort(np.random.default_rng(seed).permutation(dataset.n_voxels)[:MAX_VOXELS])


def sessions_of(dataset: Dataset) -> tuple[list[int], Rows]:
    """The session numbers, ascending, and the 0-based session of each trial."""
    numbers, index = np.unique(dataset.trials["session"].to_numpy(dtype=np.int64), return_inverse=True)
    return [int(number) for number in numbers], index.astype(np.int64)


def reduce_responses(dataset: Dataset) -> Reduced:
    """Read the responses session by session and keep a few components of each trial."""
    _, session = sessions_of(dataset)
    voxels = choose_voxels(dataset)
    z = np.zeros((dataset.n_trials, len(voxels)), dtype=np.float32)
    for number in range(int(session.max()) + 1):
        rows = np.flatnonzero(session == number)
        z[rows] = session_z(np.asarray(dataset.responses[rows])[:, voxels])
    covariance = np.asarray(z.T @ z, dtype=np.float64) / len(z)
    values, vectors = np.linalg.eigh(covariance)
    k = int(min(MAX_COMPONENTS, max(1, len(z) // 10), (values > 1e-6 * values.max()).sum()))
    kept = np.argsort(values)[::-1][:k]
    scores = (z @ vectors[:, kept].astype(np.float32)).astype(np.float64) / np.sqrt(values[kept])
    image = dataset.trials["image"].to_numpy(dtype=np.int64)
    return Reduced(scores, values[kept], image, session, dataset.n_images)


class RepeatSums:
    """Sums of scores by image and block, so that any block can be left out of an image's mean."""

    def __init__(self, data: Reduced) -> None:
        self.data = data
        k = data.scores.shape[1]
        self.total = np.zeros((data.n_images, k))
        np.add.at(self.total, data.image, data.scores)
        self.count = np.bincount(data.image, minlength=data.n_images).astype(np.float64)
        self.own: list[tuple[Rows, Float64, Float64]] = []
        for block in range(data.n_blocks):
            rows = data.rows(block)
            images, position = np.unique(data.image[rows], return_inverse=True)
            sums = np.zeros((len(images), k))
            np.add.at(sums, position, data.scores[rows])
            self.own.append((images, sums, np.bincount(position).astype(np.float64)))

    def means(self, images: Rows, without: set[int]) -> tuple[Float64, NDArray[np.bool_]]:
        """Mean scores (n, k) of ``images`` outside the blocks ``without``, and whether there are any."""
        sums, count = self.total[images].copy(), self.count[images].copy()
        for block in without:
            shown, own_sums, own_count = self.own[block]
            place = np.minimum(np.searchsorted(shown, images), len(shown) - 1)
            hit = shown[place] == images
            sums[hit] -= own_sums[place[hit]]
            count[hit] -= own_count[place[hit]]
        known = count > 0.5
        sums[known] /= count[known, None]
        sums[~known] = 0.0
        return sums, known

    def reliability(self, without: int, seed: int = 0, at_most: int = 3000) -> Float64:
        """(k,) how far each component repeats across blocks other than ``without``, at least 0.

        This weighs the components in ``without``, which thus has no say in its own weights.
        """
        data = self.data
        product, n = np.zeros(data.scores.shape[1]), 0
        rng = np.random.default_rng(seed)
        share = min(1.0, at_most / max(1, len(data.block)))
        for block in range(data.n_blocks):
            if block == without:
                continue
            rows = data.rows(block)
            rows = rows[rng.random(len(rows)) < share] if share < 1.0 else rows
            mean, known = self.means(data.image[rows], {block, without})
            product += (data.scores[rows][known] * mean[known]).sum(axis=0)
            n += int(known.sum())
        weights = np.maximum(product / max(n, 1), 0.0)
        return weights if weights.max() > 0 else np.ones_like(weights)


def repeat_evidence(data: Reduced, sums: RepeatSums, block: int) -> tuple[Float64, NDArray[np.bool_]]:
    """(n, n) evidence of one block from repeats in other blocks, and which labels j have one."""
    rows = data.rows(block)
    mean, known = sums.means(data.image[rows], {block})
    # with two blocks no third one is left to weigh by: components then weigh by their variance
    weights = sums.reliability(block) if data.n_blocks > 2 else data.variances
    return (data.scores[rows] * weights) @ mean.T, known


def predict_left_out(data: Reduced, features: NDArray[np.floating]) -> list[Float64]:
    """For each block, (n_images, k) scores predicted from image features by ridge, both left out.

    Neither the trials of the block nor any trial of the predicted image take part in its prediction. Without
    the latter, wrong labels that are wrong alike in every repeat (another subject's responses: NSD shows all
    subjects the same order of repeats) would be learnt, and look right.

    Args:
        data: the trials.
        features: (n_images, d), any image features; standardised here.

    Returns:
        One array per block; blocks of one fold (at most ``FOLDS`` folds) share theirs.
    """
    x = np.asarray(features, dtype=np.float64)
    x = (x - x.mean(axis=0)) / np.maximum(x.std(axis=0), 1e-9)
    image_fold = np.arange(data.n_images) % FOLDS
    fold_of = np.arange(data.n_blocks) % min(FOLDS, data.n_blocks)
    by_fold: dict[int, Float64] = {}
    for fold in np.unique(fold_of):
        used = fold_of[data.block] != fold
        sums = np.zeros((data.n_images, data.scores.shape[1]))
        np.add.at(sums, data.image[used], data.scores[used])
        count = np.bincount(data.image[used], minlength=data.n_images).astype(np.float64)
        predicted = np.zeros_like(sums)
        for left_out in range(FOLDS):
            fitted = (count > 0) & (image_fold != left_out)
            model = RidgeCV(alphas=np.logspace(-1, 6, 8), alpha_per_target=True)
            model.fit(x[fitted], sums[fitted] / count[fitted, None], sample_weight=count[fitted])
            rows = image_fold == left_out
            predicted[rows] = np.reshape(model.predict(x[rows]), predicted[rows].shape)
        by_fold[int(fold)] = predicted
    return [by_fold[int(fold_of[block])] for block in range(data.n_blocks)]


def feature_evidence(data: Reduced, predicted: list[Float64], block: int) -> Float64:
    """(n, n) evidence of one block from predictions that were fitted without it."""
    rows = data.rows(block)
    expected = predicted[block][data.image[rows]]
    return np.asarray(data.scores[rows] @ (expected - expected.mean(axis=0)).T)


def standardised(evidence: Float64) -> Float64:
    """Evidence with its off-diagonal at mean 0 and sd 1, so that two sources can be added."""
    off = ~np.eye(len(evidence), dtype=bool)
    spread = evidence[off].std() if len(evidence) > 1 else 0.0
    if spread <= 0:
        return np.zeros_like(evidence)
    return np.asarray((evidence - evidence[off].mean()) / spread)
