"""A model bound to one of its subjects, as scores and comparisons take it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from synbrain.arrays import Float32
from synbrain.features.tokens import Pairs, TokenSet
from synbrain.model.synbrain import SynBrain


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
        noise = self.model.subject(self.subject).noise
        if noise is None:
            return np.broadcast_to(mean, (n_samples, *mean.shape))
        return noise.sample(mean, n_samples, seed)

    def predictive_around(self, mean: Float32, tokens: TokenSet, n_samples: int, seed: int = 0) -> Float32:
        """(n_samples, n_images, n_voxels) float32, draws of what may be measured, given the predictions."""
        noise = self.model.subject(self.subject).noise
        if noise is None:
            return np.broadcast_to(mean, (n_samples, *mean.shape))
        return noise.predictive(mean, tokens).sample(n_samples, seed)
