"""Baselines that do not model the image: the mean map, shuffled images, the nearest training image."""

from __future__ import annotations

from dataclasses import replace
from typing import Self

import numpy as np

from synbrain.arrays import Float32, Float64
from synbrain.baselines.kernels import TokenKernels
from synbrain.baselines.protocol import point_mass
from synbrain.baselines.ridge import Ridge
from synbrain.features.tokens import Pairs, TokenSet


class MeanMap:
    """The mean of the training trials, whatever the image: what any score must be read against."""

    mean: Float32

    def fit(self, pairs: Pairs, *, seed: int = 0, show_progress: bool = False) -> Self:
        total = np.zeros(pairs.n_voxels, dtype=np.float64)
        for start in range(0, pairs.n_trials, 2048):
            which = np.arange(start, min(start + 2048, pairs.n_trials))
            total += pairs.trial_responses(which).sum(axis=0, dtype=np.float64)
        self.mean = (total / pairs.n_trials).astype(np.float32)
        return self

    def predict(self, tokens: TokenSet) -> Float32:
        """(n_images, n_voxels) float32, the same map for every image."""
        return np.repeat(self.mean[None], len(tokens), axis=0)

    def sample(self, tokens: TokenSet, n_samples: int, seed: int = 0) -> Float32:
        """(n_samples, n_images, n_voxels) float32, a point mass."""
        return point_mass(self.predict(tokens), n_samples)

    def sample_around(self, mean: Float32, n_samples: int, seed: int = 0) -> Float32:
        """As :meth:`sample`, given the predictions."""
        return point_mass(mean, n_samples)


class Nearest:
    """The mean response to the training image whose tokens are nearest (Euclidean, layers weighed alike)."""

    kernels: TokenKernels
    norms: Float64
    responses: Float32

    def fit(self, pairs: Pairs, *, seed: int = 0, show_progress: bool = False) -> Self:
        self.kernels, grams = TokenKernels.fit(pairs.tokens, show_progress=show_progress)
        self.norms = np.asarray(np.einsum("kii->i", grams))
        self.responses = pairs.repeat_means()
        return self

    def predict(self, tokens: TokenSet) -> Float32:
        """(n_images, n_voxels) float32; the squared distance is taken without the new image's own norm."""
        distance = self.norms - 2 * self.kernels.against(tokens).sum(axis=0)
        return np.asarray(self.responses[np.argmin(distance, axis=1)])

    def sample(self, tokens: TokenSet, n_samples: int, seed: int = 0) -> Float32:
        """(n_samples, n_images, n_voxels) float32, a point mass."""
        return point_mass(self.predict(tokens), n_samples)

    def sample_around(self, mean: Float32, n_samples: int, seed: int = 0) -> Float32:
        """As :meth:`sample`, given the predictions."""
        return point_mass(mean, n_samples)


class Shuffled(Ridge):
    """Ridge on images that were permuted against the responses: what chance looks like after fitting."""

    def fit(self, pairs: Pairs, *, seed: int = 0, show_progress: bool = False) -> Self:
        order = np.random.default_rng(seed).permutation(pairs.n_images)
        shuffled = replace(pairs, tokens=pairs.tokens.take(order))
        return super().fit(shuffled, seed=seed, show_progress=show_progress)
