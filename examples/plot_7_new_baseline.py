"""
Add a baseline
==============

Whatever has ``fit``, ``predict`` and ``sample`` stands in the same table as SynBrain, on the same pictures.
"""

# %%
# A baseline
# ----------
#
# Partial least squares from scikit-learn on the mean over tokens; its trials are its mean plus residuals that were
# seen in training, drawn with replacement.

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.cross_decomposition import PLSRegression

from shared import example_dataset, example_model
from synbrain.baselines.registry import BASELINES
from synbrain.features.tokens import Pairs, TokenSet


class PartialLeastSquares:
    """PLS on pooled tokens; ``pairs`` holds training images only."""

    def fit(self, pairs: Pairs, *, seed: int = 0, show_progress: bool = False) -> PartialLeastSquares:
        self.regression = PLSRegression(n_components=10).fit(pooled(pairs.tokens), pairs.repeat_means())
        fitted = self.predict(pairs.tokens)
        self.residuals = pairs.trial_responses() - fitted[pairs.image_of_trial]
        return self

    def predict(self, tokens: TokenSet) -> NDArray[np.float32]:
        return self.regression.predict(pooled(tokens)).astype(np.float32)

    def sample(self, tokens: TokenSet, n_samples: int, seed: int = 0) -> NDArray[np.float32]:
        mean = self.predict(tokens)
        drawn = np.random.default_rng(seed).integers(len(self.residuals), size=(n_samples, len(mean)))
        return (mean + self.residuals[drawn]).astype(np.float32)


def pooled(tokens: TokenSet) -> NDArray[np.float32]:
    """(n_images, dim) mean over places of the last layer."""
    return tokens.read(list(tokens.layers)[-1]).mean(axis=1)


# %%
# In the table
# ------------
#
# ``EvaluateOptions(rows=...)`` names it like any other row.

from synbrain import evaluate
from synbrain.evaluation.options import EvaluateOptions
from synbrain.evaluation.table import terminal

BASELINES["pls"] = PartialLeastSquares
rows = ["mean_map", "ridge", "pls", "ceiling"]
print(terminal(evaluate(example_model(), example_dataset(), EvaluateOptions(samples=20, rows=rows))))
