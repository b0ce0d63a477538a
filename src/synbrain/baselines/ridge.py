"""Kernel ridge from tokens to repeat means, with a cross-validated penalty for every voxel (himalaya)."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import torch
from himalaya.kernel_ridge import (
    solve_kernel_ridge_cv_eigenvalues,
    solve_multiple_kernel_ridge_random_search,
)
from numpy.typing import NDArray
from scipy.linalg import eigh
from sklearn.model_selection import BaseCrossValidator, KFold, PredefinedSplit
from threadpoolctl import threadpool_limits

from synbrain.arrays import Float32, Float64, Rows
from synbrain.baselines.kernels import TokenKernels
from synbrain.baselines.large_ridge import chosen_ridge
from synbrain.baselines.protocol import point_mass
from synbrain.features.look_alikes import folds_of, n_alike
from synbrain.features.tokens import Pairs, TokenSet
from synbrain.linear.plain import MANY_IMAGES
from synbrain.linear.scratch import Scratch
from synbrain.metrics.device import with_float64
from synbrain.metrics.voxel import power_of_two

ALPHAS: Float64 = np.logspace(-4, 6, 31)  # for kernels of mean diagonal 1
TARGETS_AT_ONCE, ALPHAS_AT_ONCE = 1024, 8
# Up to so many images one thread of BLAS takes seconds. Several wait for each other busily: on a machine that
# others use too, 13 times the CPU time and the time by the clock (600 images, load 8).
FEW_IMAGES = 1000


def folds(families: Rows, n_folds: int, seed: int) -> BaseCrossValidator:
    """Random folds over images; those that look alike stay together, few images give fewer folds."""
    n_folds = min(n_folds, len(np.unique(families)))
    if n_alike(families):
        return PredefinedSplit(folds_of(families, n_folds, seed))
    return KFold(n_folds, shuffle=True, random_state=seed)


def unit_of(centred: Float64) -> Float64:
    """(n_voxels,) power of two near the sd of centred targets (n_images, n_voxels); 1 for a constant voxel.

    himalaya takes squared errors that differ by less than some 1e-10 for a draw and the largest penalty then:
    responses in volts would all be predicted by their mean. Powers of two round nothing.
    """
    return power_of_two(centred.std(axis=0))


class Ridge:
    """Linear encoding model in dual form: every layer of the tokens in one sum of kernels.

    Args:
        n_folds: of the cross-validation over training images that picks each voxel's penalty.
        alphas: the grid of penalties, for kernels of mean diagonal 1.
        device: where kernels are made, and weights of many images are fitted; those of few are himalaya's, in
            float64 on the CPU.

    >>> from synbrain.features.store import open_tokens
    >>> from synbrain.features.tokens import split_pairs
    >>> from synbrain.simulate.example import toy_dataset
    >>> train, test = split_pairs(toy_dataset(), open_tokens(toy_dataset(), "pixels"))
    >>> Ridge().fit(train).predict(test.tokens).shape
    (20, 12)
    """

    def __init__(
        self, n_folds: int = 5, alphas: Float64 = ALPHAS, device: str | torch.device = "cpu"
    ) -> None:
        self.n_folds, self.alphas = n_folds, alphas
        self.device = with_float64(device)
        self.kernels: TokenKernels | None = None
        self.weights: NDArray[Any] = np.empty((0, 0))
        self.offset: Float64 = np.empty(0)
        self.best_alphas: Float64 = np.empty(0)
        self.gram: NDArray[Any] = np.empty((0, 0))
        self.gram_scale = 1.0  # of a gram that is not of mean diagonal 1

    def fit(self, pairs: Pairs, *, seed: int = 0, show_progress: bool = False) -> Self:
        """Fit on repeat means; one Gram matrix of the training images stays in memory.

        Of many images whose kernel is kept on disk, it is read from there.
        """
        if pairs.n_images >= MANY_IMAGES:
            return self._fit_many(pairs, seed, show_progress)
        self.kernels, grams = TokenKernels.fit(pairs.tokens, self.device, show_progress=show_progress)
        self.gram = grams[0] if len(grams) == 1 else grams.mean(axis=0)
        targets = pairs.repeat_means()
        self.offset = targets.mean(axis=0, dtype=np.float64)
        if pairs.n_images < 2:
            self.weights = np.zeros((pairs.n_images, pairs.n_voxels))
            self.best_alphas = np.full(pairs.n_voxels, self.alphas[-1])
            return self
        centred = targets - self.offset
        unit = unit_of(centred)
        with threadpool_limits(1 if pairs.n_images <= FEW_IMAGES else None, user_api="blas"):
            self.best_alphas, weights, _ = solve_kernel_ridge_cv_eigenvalues(
                self.gram,
                centred / unit,
                alphas=self.alphas,
                cv=folds(pairs.tokens.families, self.n_folds, seed),
                n_targets_batch=TARGETS_AT_ONCE,
                n_targets_batch_refit=TARGETS_AT_ONCE,
                n_alphas_batch=ALPHAS_AT_ONCE,
            )
        self.weights = weights * unit
        return self

    def _fit_many(self, pairs: Pairs, seed: int, show_progress: bool) -> Self:
        """In float32, with little in memory at a time: at 9,000 images x 15,724 voxels every array counts."""
        self.kernels, kernels = TokenKernels.unscaled(pairs.tokens, self.device, show_progress=show_progress)
        scales = list(self.kernels.scales.values())
        # one kernel on disk would be copied into memory to be scaled
        self.gram, self.gram_scale = kernels[0], scales[0]
        if len(kernels) > 1:
            self.gram, self.gram_scale = np.zeros_like(kernels[0]), float(len(kernels))
            for kernel, scale in zip(kernels, scales, strict=True):
                self.gram += kernel / scale
        fold = np.empty(pairs.n_images, dtype=np.int64)
        for number, (_, left_out) in enumerate(folds(pairs.tokens.families, self.n_folds, seed).split(fold)):
            fold[left_out] = number
        with Scratch(memory_bytes=0) as scratch:
            targets = scratch.put(pairs.repeat_means())
            self.offset = targets.mean(axis=0, dtype=np.float64)
            targets -= self.offset
            self.best_alphas, self.weights = chosen_ridge(
                self.gram,
                targets,
                self.alphas,
                fold,
                scale=self.gram_scale,
                device=self.device,
                show_progress=show_progress,
            )
        return self

    def predict(self, tokens: TokenSet) -> Float32:
        """(n_images, n_voxels) float32, the dataset's unit."""
        assert self.kernels is not None, "fit first"
        kernel = self.kernels.against(tokens).mean(axis=0).astype(self.weights.dtype)
        return np.asarray(kernel @ self.weights + self.offset, dtype=np.float32)

    def sample(self, tokens: TokenSet, n_samples: int, seed: int = 0) -> Float32:
        """(n_samples, n_images, n_voxels) float32, a point mass."""
        return point_mass(self.predict(tokens), n_samples)

    def sample_around(self, mean: Float32, n_samples: int, seed: int = 0) -> Float32:
        """As :meth:`sample`, given the predictions."""
        return point_mass(mean, n_samples)

    def cross_fitted(self, pairs: Pairs, seed: int = 0) -> Float32:
        """Out-of-fold predictions of the training images, (n_images, n_voxels) float32.

        Each fold is predicted by weights that never saw its images, with the penalties that the whole
        training set chose.
        """
        gram = self.gram if self.gram_scale == 1 else self.gram / self.gram_scale
        return cross_fit(
            gram, pairs.repeat_means(), self.best_alphas, folds(pairs.tokens.families, self.n_folds, seed)
        )


def cross_fit(gram: Float64, targets: NDArray[Any], alphas: Float64, cv: BaseCrossValidator) -> Float32:
    """Out-of-fold kernel ridge predictions with given penalties.

    Args:
        gram: (n_images, n_images), centred kernel.
        targets: (n_images, n_voxels).
        alphas: (n_voxels,) penalty of each voxel.
        cv: of :func:`folds`.

    Returns:
        (n_images, n_voxels) float32.
    """
    out = np.empty(targets.shape, dtype=np.float32)
    if len(gram) < 2:
        out[:] = targets
        return out
    for train, left_out in cv.split(gram):
        offset = targets[train].mean(axis=0, dtype=np.float64)
        # by eigenvectors: himalaya's solver holds (voxels, images, images) where every voxel has its penalty
        values, vectors = eigh(gram[np.ix_(train, train)])
        projected = vectors.T @ (targets[train] - offset)
        weights = vectors @ (projected / (np.maximum(values, 0)[:, None] + alphas))
        out[left_out] = gram[np.ix_(left_out, train)] @ weights + offset
    return out


class BandedRidge:
    """Ridge with a penalty of its own for every layer and voxel (himalaya's random search).

    With one layer it is the same model as :class:`Ridge`.

    Args:
        n_iter: number of random layer weightings tried, beside each layer alone and all alike.
        n_folds: of the cross-validation over training images.
        alphas: the grid of penalties.
    """

    def __init__(self, n_iter: int = 30, n_folds: int = 5, alphas: Float64 = ALPHAS) -> None:
        self.n_iter, self.n_folds, self.alphas = n_iter, n_folds, alphas
        self.kernels: TokenKernels | None = None
        self.deltas: Float64 = np.empty((0, 0))
        self.weights: Float64 = np.empty((0, 0))
        self.offset: Float64 = np.empty(0)

    def fit(self, pairs: Pairs, *, seed: int = 0, show_progress: bool = False) -> Self:
        """Fit on repeat means; one Gram matrix per layer stays in memory while fitting."""
        self.kernels, grams = TokenKernels.fit(pairs.tokens, show_progress=show_progress)
        targets = pairs.repeat_means()
        self.offset = targets.mean(axis=0, dtype=np.float64)
        centred = targets - self.offset
        unit = unit_of(centred)
        self.deltas, weights, _ = solve_multiple_kernel_ridge_random_search(
            grams,
            centred / unit,
            n_iter=self._candidates(len(grams), seed),
            alphas=self.alphas,
            cv=folds(pairs.tokens.families, self.n_folds, seed),
            return_weights="dual",
            n_targets_batch=TARGETS_AT_ONCE,
            n_targets_batch_refit=TARGETS_AT_ONCE,
            n_alphas_batch=ALPHAS_AT_ONCE,
            random_state=seed,
            progress_bar=False,
        )
        self.weights = weights * unit
        return self

    def _candidates(self, n_layers: int, seed: int) -> Float64:
        """(n, n_layers) layer weights that sum to 1: alike, each alone, and random ones."""
        fixed = np.vstack([np.full((1, n_layers), 1 / n_layers), np.eye(n_layers)])
        if n_layers == 1:
            return np.ones((1, 1))
        generator = np.random.default_rng(seed)
        drawn = generator.dirichlet(np.ones(n_layers), size=self.n_iter)
        return np.vstack([np.clip(fixed, 1e-6, None), drawn])

    def predict(self, tokens: TokenSet) -> Float32:
        """(n_images, n_voxels) float32, the dataset's unit."""
        assert self.kernels is not None, "fit first"
        crossed = self.kernels.against(tokens)
        out: Float64 = np.zeros((len(tokens), len(self.offset)))
        for kernel, delta in zip(crossed, np.exp(self.deltas), strict=True):
            out += kernel @ (self.weights * delta)
        return np.asarray(out + self.offset, dtype=np.float32)

    def sample(self, tokens: TokenSet, n_samples: int, seed: int = 0) -> Float32:
        """(n_samples, n_images, n_voxels) float32, a point mass."""
        return point_mass(self.predict(tokens), n_samples)

    def sample_around(self, mean: Float32, n_samples: int, seed: int = 0) -> Float32:
        """As :meth:`sample`, given the predictions."""
        return point_mass(mean, n_samples)
