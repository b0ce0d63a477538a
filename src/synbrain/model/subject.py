"""A model bound to one of its subjects, as scores and comparisons take it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

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
