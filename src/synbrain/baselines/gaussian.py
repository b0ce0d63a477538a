"""Trials as a mean plus Gaussian residuals: ridge with a full covariance, and isotropic noise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from synbrain.arrays import Float32, Float64
from synbrain.baselines.protocol import ResponseModel
from synbrain.baselines.ridge import Ridge
from synbrain.features.tokens import Pairs, TokenSet
from synbrain.metrics.distribution import energy_score
from synbrain.metrics.voxel import blocks

RANKS = (0, 1, 2, 5, 10, 20, 50)
EXACT_VOXELS = 2000  # up to here the correlation matrix is made; beyond, residuals are read in every round
SMALL_ROUNDS, LARGE_ROUNDS = 60, 12
LEAST_UNIQUE = 0.01  # of a voxel's variance, so that the covariance can be inverted


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

    def log_density(self, residuals: NDArray[Any]) -> float:
        """Mean log density of standardised residuals (n, n_voxels), constant left out (Woodbury)."""
        alive = self.sd > 0
        z = np.asarray(residuals, dtype=np.float64)[:, alive] / self.sd[alive]
        loadings, unique = self.loadings[alive], self.unique[alive]
        weighed = loadings / unique[:, None]
        factor = cho_factor(np.eye(loadings.shape[1]) + loadings.T @ weighed)
        projected = z @ weighed
        quadratic = np.sum(z**2 / unique, axis=1) - np.sum(
            projected * cho_solve(factor, projected.T).T, axis=1
        )
        log_det = np.sum(np.log(unique)) + 2 * np.sum(np.log(np.diag(factor[0])))
        return float(-0.5 * (quadratic.mean() + log_det))


def fit_low_rank(residuals: NDArray[Any], ranks: tuple[int, ...] = RANKS, seed: int = 0) -> LowRankGaussian:
    """Fit the Gaussian by principal axes; the rank makes held-out residuals most probable.

    Args:
        residuals: (n, n_voxels), mean near 0.
        ranks: tried; those of n / 4 and n_voxels / 2 on are left out.
        seed: of the split into four fifths to fit and one fifth to judge, and of the subspace iteration.
    """
    n, n_voxels = residuals.shape
    allowed = [rank for rank in ranks if rank < min(n / 4, n_voxels / 2)] or [0]
    order = np.random.default_rng(seed).permutation(n)
    held, fitted = np.sort(order[: n // 5]), np.sort(order[n // 5 :])
    best = allowed[0]
    if len(held) and len(allowed) > 1:
        tried = _at_ranks(residuals[fitted], allowed, seed)
        best = allowed[int(np.argmax([one.log_density(residuals[held]) for one in tried]))]
    return _at_ranks(residuals, [best], seed)[0]


def _at_ranks(residuals: NDArray[Any], ranks: list[int], seed: int) -> list[LowRankGaussian]:
    """Principal-axis factors of the correlation matrix of the residuals, for each rank.

    The diagonal of the matrix is replaced by what the factors explain of it, over and over, so that
    variance of a voxel's own does not end up in the factors.
    """
    n, n_voxels = residuals.shape
    sd = np.sqrt(np.mean(np.square(residuals, dtype=np.float64), axis=0))
    scale = np.where(sd > 0, sd, 1.0)

    def times(basis: Float64) -> Float64:  # correlation matrix times basis, a block of residuals at a time
        out = np.zeros((n_voxels, basis.shape[1]))
        for rows in blocks(n, n_voxels):
            z = residuals[rows] / scale
            out += z.T @ (z @ basis)
        return np.asarray(out / n)

    rounds = SMALL_ROUNDS
    apply = times
    if n_voxels <= EXACT_VOXELS:
        correlation = times(np.eye(n_voxels))

        def apply(basis: Float64) -> Float64:
            return np.asarray(correlation @ basis)
    else:
        rounds = LARGE_ROUNDS
    return [_principal_axes(apply, sd, rank, rounds, seed) for rank in ranks]


def _principal_axes(
    times: Callable[[Float64], Float64], sd: Float64, rank: int, rounds: int, seed: int
) -> LowRankGaussian:
    n_voxels = len(sd)
    if rank == 0:
        return LowRankGaussian(sd, np.zeros((n_voxels, 0)), np.ones(n_voxels))
    width = min(rank + 8, n_voxels)
    basis = np.linalg.qr(np.random.default_rng(seed).standard_normal((n_voxels, width)))[0]
    loadings, unique = np.zeros((n_voxels, rank)), np.full(n_voxels, 0.5)
    for _ in range(rounds):
        product = times(basis) - unique[:, None] * basis
        values, inner = np.linalg.eigh(basis.T @ product)
        vectors = (basis @ inner[:, ::-1])[:, :rank]
        loadings = vectors * np.sqrt(np.maximum(values[::-1][:rank], 0.0))
        explained = np.sum(loadings**2, axis=1)
        loadings *= np.sqrt(np.minimum(1.0, (1 - LEAST_UNIQUE) / np.maximum(explained, 1e-12)))[:, None]
        unique = 1 - np.sum(loadings**2, axis=1)
        basis = np.linalg.qr(product)[0]
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
        self.noise = fit_low_rank(residuals, seed=seed)
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
            rest, held = pairs.hold_out(self.fraction, seed)
            self.chosen = self._choose(self.model.fit(rest, seed=seed).predict(held.tokens), held, seed)
        self.model = self.model.fit(pairs, seed=seed, show_progress=show_progress)
        return self

    def _choose(self, predicted: Float32, held: Pairs, seed: int) -> float:
        images = np.arange(min(held.n_images, 200))
        held = held.take(images)
        predicted, trials = predicted[images], held.trial_responses()
        unit = float(np.sqrt(np.mean(np.square(trials - predicted[held.image_of_trial], dtype=np.float64))))
        sizes = unit * np.geomspace(0.05, 2, 16)
        eps = np.random.default_rng(seed).standard_normal((20, *predicted.shape), dtype=np.float32)
        scores = [
            float(np.mean(energy_score(predicted + size * eps, trials, held.image_of_trial)))
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
