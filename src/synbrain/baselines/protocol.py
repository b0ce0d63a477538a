"""The one protocol that SynBrain and every baseline share."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from synbrain.features.tokens import Pairs, TokenSet


@runtime_checkable
class ResponseModel(Protocol):
    """Fitted on pairs of tokens and trials; predicts means and draws trials for tokens."""

    def fit(self, pairs: Pairs, *, seed: int = 0, show_progress: bool = False) -> ResponseModel:
        """Fit on training images only and return self; validation images come out of ``pairs``."""
        ...

    def predict(self, tokens: TokenSet) -> NDArray[np.float32]:
        """(n_images, n_voxels) float32, the expected response, in the dataset's unit."""
        ...

    def sample(self, tokens: TokenSet, n_samples: int, seed: int = 0) -> NDArray[np.float32]:
        """(n_samples, n_images, n_voxels) float32, synthetic trials.

        A deterministic model returns its mean ``n_samples`` times (a point mass).
        """
        ...


def point_mass(mean: NDArray[Any], n_samples: int) -> NDArray[np.float32]:
    """(n_images, n_voxels) repeated to (n_samples, n_images, n_voxels) float32; a read-only view."""
    return np.broadcast_to(np.asarray(mean, dtype=np.float32), (n_samples, *mean.shape))
