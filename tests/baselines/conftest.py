from __future__ import annotations

import numpy as np
import pytest

from synbrain.features.tokens import Pairs, TokenSet


@pytest.fixture
def make_pairs():
    """Pairs of a linear brain: two token layers, the first decides; ragged repeats, correlated noise."""

    def make(
        n_images: int = 80, n_voxels: int = 10, noise: float = 0.5, seed: int = 0, max_repeats: int = 3
    ) -> tuple[Pairs, Pairs, np.ndarray]:
        rng = np.random.default_rng(seed)
        n_all = n_images + 20
        layers = {
            "final": rng.normal(2, 1, (n_all, 3, 4)).astype(np.float16),
            "early": rng.normal(-1, 3, (n_all, 2, 5)).astype(np.float16),
        }
        weights = np.random.default_rng(99).normal(size=(12, n_voxels))
        centred = layers["final"].astype(np.float64).reshape(n_all, -1) - 2
        means = centred @ weights / 3 + np.linspace(1, 5, n_voxels)
        repeats = rng.integers(1, max_repeats + 1, n_all)
        image = rng.permutation(np.repeat(np.arange(n_all), repeats))
        loadings = np.random.default_rng(98).normal(size=(n_voxels, 1))
        eps = rng.normal(size=(len(image), 1)) @ loadings.T + rng.normal(size=(len(image), n_voxels))
        responses = (means[image] + noise * eps).astype(np.float32)
        tokens = TokenSet("toy", "abc", layers, np.arange(n_all))

        def part(images: np.ndarray) -> Pairs:
            trials = np.flatnonzero(np.isin(image, images))
            return Pairs(tokens.take(images), responses, trials, np.searchsorted(images, image[trials]))

        return part(np.arange(n_images)), part(np.arange(n_images, n_all)), means

    return make
