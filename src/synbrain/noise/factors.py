"""Factor analysis of standardised residuals: a correlation matrix as ``L L' + diag(u)``, L of few columns."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from sklearn.decomposition import FactorAnalysis
from sklearn.exceptions import ConvergenceWarning

from synbrain.arrays import Float64, Rows
from synbrain.metrics.device import Device, host, like, namespace, on
from synbrain.metrics.low_rank import log_density_of

LEAST_UNIQUE = 0.02  # of a voxel's variance, so that the covariance can be inverted
MANY_VOXELS, ROUNDS = 2000, 15  # beyond, principal axes take the place of maximum likelihood, which is slower


def fit_factors(
    z: Float64, image: Rows, choices: tuple[int, ...], seed: int, device: Device = "cpu"
) -> tuple[Float64, Float64, dict[str, float]]:
    """Loadings and unique variances of correlated standard normals.

    The number of factors is the one of highest log density on the images that a fit on the other half has
    not seen.

    Args:
        z: (n_trials, n_voxels), about standard normal.
        image: (n_trials,) image of each trial; halves are split by image.
        choices: numbers of factors; more than a third of trials or voxels are left out.
        seed: of the halves.
        device: where principal axes and densities are computed; maximum likelihood is scikit-learn's.

    Returns:
        loadings (n_voxels, k), unique (n_voxels,) with row sums of squares + unique = 1, and the held-out
        log density per trial and voxel by number of factors.
    """
    n_voxels = z.shape[1]
    images = np.unique(image)
    half = np.isin(image, np.random.default_rng([seed, 3]).permutation(images)[: len(images) // 2])
    possible = sorted({k for k in choices if k <= min(n_voxels, half.sum(), (~half).sum()) // 3} | {0})
    scores: dict[int, float] = {}
    there = on(z, device)
    parts = [there[np.flatnonzero(side)] for side in (half, ~half)]
    for k in possible:
        both = []
        for train, rest in (parts, parts[::-1]):
            loadings, unique = _factors(train, k, seed)
            both.append(float(log_density_of(rest, loadings, unique).mean()) / n_voxels)
        scores[k] = float(np.mean(both))
        if scores[k] < max(scores.values()) - 0.01:
            break  # more factors only fit more noise
    del parts
    best = max(scores, key=lambda k: scores[k])
    loadings, unique = (host(part) for part in _factors(there, best, seed))
    return loadings, unique, {str(k): round(value, 5) for k, value in scores.items()}


def _factors(z: Any, k: int, seed: int) -> tuple[Any, Any]:
    """Loadings and unique variances where z is: numpy's arrays or tensors."""
    n_voxels = z.shape[1]
    if k == 0:
        return like(z, np.zeros((n_voxels, 0))), like(z, np.ones(n_voxels))
    if n_voxels > MANY_VOXELS:
        return _principal_axes(z, k, seed)
    scaled = z / ((z**2).mean(0) ** 0.5).clip(1e-12)
    with warnings.catch_warnings():  # 30 iterations are meant to be enough, converged or not
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted = FactorAnalysis(k, max_iter=30, tol=1e-3, random_state=seed).fit(host(scaled))
    return bounded(like(z, fitted.components_.T))


def _principal_axes(z: Any, k: int, seed: int) -> tuple[Any, Any]:
    """Leading axes of ``C - diag(u)``, with u refreshed in every round of a subspace iteration.

    C, the second moments of z in units of their sizes, is never made, nor another array of z's size: a round
    costs two products of z with k + 8 columns.
    """
    (n, n_voxels), xp = z.shape, namespace(z)
    linalg, unit = xp.linalg, 1 / ((xp.einsum("ij,ij->j", z, z) / n) ** 0.5).clip(1e-12)[:, None]
    width = min(k + 8, n_voxels)
    start = np.random.default_rng(seed).standard_normal((n_voxels, width))
    basis = linalg.qr(like(z, start))[0]
    leading = list(range(width - 1, width - 1 - k, -1))  # eigenvalues rise
    loadings, unique = basis[:, :k], like(z, np.full(n_voxels, 0.5))
    for _ in range(ROUNDS):
        product = unit * (z.T @ (z @ (unit * basis))) / n - unique[:, None] * basis
        values, inner = linalg.eigh(basis.T @ product)
        vectors = basis @ inner[:, leading]
        loadings, unique = bounded(vectors * values[leading].clip(0) ** 0.5)
        basis = linalg.qr(product)[0]
    return loadings, unique


def bounded(loadings: Any) -> tuple[Any, Any]:
    """Loadings with row sums of squares of at most ``1 - LEAST_UNIQUE``, and what they leave of 1."""
    shared = (loadings**2).sum(1)
    shrink = (((1 - LEAST_UNIQUE) / shared.clip(1e-12)) ** 0.5).clip(None, 1)
    loadings = loadings * shrink[:, None]
    return loadings, 1 - (loadings**2).sum(1)


def without(
    loadings: Float64, of_all: Float64, subtracted: Float64, of_subtracted: Float64
) -> tuple[Float64, Float64]:
    """Correlation that is left when a part with known correlation is taken out of a sum.

    A sum of two independent parts has the correlation ``C = W R W + N Q N``; given are the factors L of C and
    M of Q, the wanted ones of R. L L' - N M M' N lives in the span of [L, N M]: its positive eigenvalues,
    divided by W, are the factors of R.

    Args:
        loadings: (n_voxels, k) of the sum.
        of_all: (n_voxels,) W^2, the fraction of variance of the wanted part.
        subtracted: (n_voxels, m) of the part to take out.
        of_subtracted: (n_voxels,) N^2.
    """
    minus = subtracted * np.sqrt(of_subtracted)[:, None]
    both = np.concatenate([loadings, minus], axis=1)
    if not both.shape[1]:
        return bounded(loadings)
    basis, coordinates = np.linalg.qr(both)
    sign = np.repeat([1.0, -1.0], [loadings.shape[1], minus.shape[1]])
    values, vectors = np.linalg.eigh((coordinates * sign) @ coordinates.T)
    kept = np.argsort(values)[::-1][: loadings.shape[1]]
    kept = kept[values[kept] > 1e-8]
    left = (basis @ vectors[:, kept]) * np.sqrt(values[kept])
    # where next to nothing of the variance is the wanted part's, its correlation is not known
    return bounded(left / np.sqrt(np.maximum(of_all, 0.05))[:, None])
