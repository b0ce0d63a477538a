"""Trials as a mean plus Gaussian residuals: ridge with a full covariance, and isotropic noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from synbrain.arrays import Float32, Float64, Rows
from synbrain.baselines.protocol import ResponseModel
from synbrain.baselines.ridge import Ridge
from synbrain.features.tokens import Pairs, TokenSet, some_of
from synbrain.metrics.distribution import energy_score
from synbrain.metrics.voxel import blocks
from synbrain.noise.factors import fit_factors

RANKS = (0, 1, 2, 5, 10, 20, 50)
MOST_TRIALS = 20_000  # from which factors are fitted, as for the trial noise of SynBrain


@dataclass(frozen=True)
class LowRankGaussian:
    """Zero-mean Gaussian over voxels with covariance ``sd (L L^T + diag(unique)) sd``.

    Attributes:
        sd: (n_voxels,) standard deviation of each voxel, kept exactly whatever the rank.
        loadings: (n_voxels, rank), of the correlation matrix.
        unique: (n_voxels,), what the loadings leave of each voxel's unit variance.
    """

    sd: Float64
    loadings: Float64
    unique: Float64

    def draw(self, shape: tuple[int, int], seed: int) -> Float32:
        """(n_samples, n_images, n_voxels) float32 for ``shape`` = (n_samples, n_images)."""
        generator = np.random.default_rng(seed)
        factors = generator.standard_normal((*shape, self.loadings.shape[1]), dtype=np.float32)
        out = generator.standard_normal((*shape, len(self.sd)), dtype=np.float32)
        out *= np.sqrt(self.unique).astype(np.float32)
        out += factors @ self.loadings.T.astype(np.float32)
        out *= self.sd.astype(np.float32)
        return out


def fit_low_rank(residuals: NDArray[Any], image: Rows, seed: int = 0) -> LowRankGaussian:
    """Fit the Gaussian by factor analysis; the rank makes residuals of held-out images most probable.

    Args:
        residuals: (n_trials, n_voxels), mean near 0.
        image: (n_trials,) image of each trial.
        seed: of the split of images, and of which trials are looked at where there are many.
    """
    sd = np.sqrt(np.mean(np.square(residuals, dtype=np.float64), axis=0))
    some = some_of(np.arange(len(residuals)), MOST_TRIALS, (seed,))
    z = residuals[some] / np.where(sd > 0, sd, 1.0)
    loadings, unique, _ = fit_factors(z, image[some], RANKS, seed)
    return LowRankGaussian(sd, loadings, unique)


class RidgeGaussian(Ridge):
    """Ridge plus Gaussian residuals with low-rank-plus-diagonal covariance: the distribution to beat.

    Residuals are single trials minus cross-fitted predictions, so that they hold the trial noise and what
    ridge gets wrong on images that it has not seen.
    """

    noise: LowRankGaussian

    def fit(self, pairs: Pairs, *, seed: int = 0, show_progress: bool = False) -> Self:
        super().fit(pairs, seed=seed, show_progress=show_progress)
        predicted = self.cross_fitted(pairs, seed)
        residuals = np.empty((pairs.n_trials, pairs.n_voxels), dtype=np.float32)
        for rows in blocks(pairs.n_trials, pairs.n_voxels):
            which = np.arange(rows.start, rows.stop)
            residuals[rows] = pairs.trial_responses(which) - predicted[pairs.image_of_trial[rows]]
        self.noise = fit_low_rank(residuals, pairs.image_of_trial, seed)
        return self

    def sample(self, tokens: TokenSet, n_samples: int, seed: int = 0) -> Float32:
        """(n_samples, n_images, n_voxels) float32, predictions plus residual draws."""
        return self.sample_around(self.predict(tokens), n_samples, seed)

    def sample_around(self, mean: Float32, n_samples: int, seed: int = 0) -> Float32:
        """As :meth:`sample`, given the predictions."""
        return self.noise.draw((n_samples, len(mean)), seed) + mean


class Isotropic:
    """Any model's mean plus isotropic noise of one size, ``y + nf * eps`` (SynBrain, appendix E).

    The paper adds it to the latent and does not say which size. Here it is added to the responses, and its
    size is the one with the best energy score on held-out training images, unless it is given.

    Args:
        model: unfitted; gives the mean.
        size: sd of the noise in the dataset's unit; None to choose it on validation images.
        fraction: of the training images held out to choose it.
    """

    def __init__(self, model: ResponseModel | None = None, size: float | None = None, fraction: float = 0.2):
        self.model: ResponseModel = Ridge() if model is None else model
        self.size, self.fraction = size, fraction
        self.chosen: float = 0.0 if size is None else size

    def fit(self, pairs: Pairs, *, seed: int = 0, show_progress: bool = False) -> Self:
        if self.size is None:
            training, validation = pairs.hold_out(self.fraction, seed)
            self.chosen = self._choose(
                self.model.fit(training, seed=seed).predict(validation.tokens), validation, seed
            )
        self.model = self.model.fit(pairs, seed=seed, show_progress=show_progress)
        return self

    def _choose(self, predicted: Float32, validation: Pairs, seed: int) -> float:
        images = np.arange(min(validation.n_images, 200))
        validation = validation.take(images)
        predicted, trials = predicted[images], validation.trial_responses()
        unit = float(
            np.sqrt(np.mean(np.square(trials - predicted[validation.image_of_trial], dtype=np.float64)))
        )
        sizes = unit * np.geomspace(0.05, 2, 16)
        eps = np.random.default_rng(seed).standard_normal((20, *predicted.shape), dtype=np.float32)
        scores = [
            float(np.mean(energy_score(predicted + size * eps, trials, validation.image_of_trial)))
            for size in sizes
        ]
        return float(sizes[int(np.argmin(scores))])

    def predict(self, tokens: TokenSet) -> Float32:
        """(n_images, n_voxels) float32, the wrapped model's mean."""
        return self.model.predict(tokens)

    def sample(self, tokens: TokenSet, n_samples: int, seed: int = 0) -> Float32:
        """(n_samples, n_images, n_voxels) float32."""
        return self.sample_around(self.predict(tokens), n_samples, seed)

    def sample_around(self, mean: Float32, n_samples: int, seed: int = 0) -> Float32:
        """As :meth:`sample`, given the predictions."""
        eps = np.random.default_rng(seed).standard_normal((n_samples, *mean.shape), dtype=np.float32)
        return np.asarray(mean + np.float32(self.chosen) * eps)
