"""What the linear path chooses from: ridge regressions through windows, compared by cross-validation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
from numpy.typing import NDArray

from synbrain.arrays import Float64, Rows
from synbrain.features.tokens import TokenSet
from synbrain.linear.config import LinearPathConfig
from synbrain.linear.kernels import (
    LayerGrid,
    Window,
    blurred_grid,
    plain_grid,
    position_kernels,
    seen_through,
    window_kernel,
    window_lattice,
)
from synbrain.linear.ridge import out_of_fold, ridge_inverse

POSITION_BYTES = 1 << 30  # what kernels of single positions may take


@dataclass(frozen=True)
class Kernel:
    """Layers on their grids, seen through one window; ``full`` gives the kernel over all images."""

    grids: list[LayerGrid]
    window: Window
    full: Callable[[], tuple[NDArray[np.float32], float]]


@dataclass(frozen=True)
class Dual:
    """Dual weights (n_images, n) on one kernel that was multiplied by ``factor``."""

    kernel: Kernel
    factor: float
    weights: NDArray[np.floating]


@dataclass(frozen=True)
class Task:
    """What ridge regressions are fitted on, and how.

    Attributes:
        kernels: candidates.
        y: (n_images, n_voxels) repeat means, in units in which voxels may be compared.
        weights, folds: (n_images,).
        selected: images on which candidates are compared.
        config: of the linear path; its ``n_folds`` is the number of folds there are.
        done: called each time that a kernel is done with.
    """

    kernels: list[Kernel]
    y: Float64
    weights: Float64
    folds: Rows
    selected: Rows
    config: LinearPathConfig
    done: Callable[[], object]


def candidate_kernels(tokens: TokenSet, n_images: int, config: LinearPathConfig) -> list[Kernel]:
    """Plain ridge on the tokens first, then blurred tokens, whole and through each window."""
    n_side = config.windows if config.windows is not None else (5 if n_images <= 600 else 3)
    plain = [plain_grid(tokens, layer) for layer in tokens.layers]
    kernels = [Kernel(plain, Window(), cache(partial(window_kernel, plain, Window())))]
    if n_side == 0 and config.blur == 0:
        return kernels
    blurred = [blurred_grid(tokens, layer, side=config.side, blur=config.blur) for layer in tokens.layers]
    seen = [Window(), *window_lattice(n_side, config.window_sd)]
    held = None
    if 4 * n_images**2 * sum({grid.n_positions for grid in blurred}) <= POSITION_BYTES:
        held = position_kernels(blurred)
    for window in seen:
        full = partial(window_kernel, blurred) if held is None else partial(seen_through, held)
        kernels.append(Kernel(blurred, window, partial(full, window)))
    return kernels


def candidate_errors(task: Task) -> Float64:
    """(n_folds, n_kernels, n_alphas, n_voxels): weighted squared error in each fold, among ``selected``.

    Alphas that no voxel comes near to choosing with the first kernel are left out of the others (infinity).
    """
    selected, n_folds, alphas = task.selected, task.config.n_folds, task.config.alphas
    y, weights, folds = task.y[selected], task.weights[selected], task.folds[selected]
    errors = np.full((n_folds, len(task.kernels), len(alphas), y.shape[1]), np.inf)
    tried = list(range(len(alphas)))
    for k, kernel in enumerate(task.kernels):
        full = kernel.full()[0][np.ix_(selected, selected)]
        for a in tried:
            solution = ridge_inverse(full, weights, alphas[a], folds)
            squared = (out_of_fold(solution, y, solution.matrix @ y) - y) ** 2
            for fold in range(n_folds):
                rows = folds == fold
                errors[fold, k, a] = weights[rows] @ squared[rows]
        if k == 0:
            tried = near_choice(errors[:, 0].sum(axis=0))
        task.done()
    return errors


def near_choice(errors: Float64) -> list[int]:
    """Which rows of ``errors`` (n_alphas, n) 96 % of the columns choose from, and these rows' neighbours."""
    best = np.argmin(errors, axis=0)
    low, high = np.quantile(best, [0.02, 0.98]).round().astype(int)
    return list(range(max(0, low - 1), min(len(errors), high + 2)))


def shares_of(errors: Float64, n_images: int, config: LinearPathConfig) -> Float64:
    """Shares of candidates, shaped as ``errors`` (n_kernels, n_alphas, n), with sum 1 for each column.

    Pseudo-Bayesian averaging (Yao et al. 2018) with a tempered Gaussian pseudo-likelihood:
    ``share ~ exp(-temper * n_images / 2 * (error / least error - 1))``.
    """
    flat = errors.reshape(-1, errors.shape[-1])
    least = np.maximum(flat.min(axis=0), 1e-30)
    log_share = -config.temper * n_images / 2 * (flat / least - 1)
    last = np.sort(log_share, axis=0)[-min(config.keep, len(log_share))]
    share = np.where(log_share >= np.maximum(last, np.log(1e-3)), np.exp(log_share), 0)
    return np.asarray((share / share.sum(axis=0)).reshape(errors.shape))


def fold_shares(task: Task) -> Float64:
    """(n_folds + 1, n_kernels, n_alphas, n_voxels): row f leaves fold f's errors out, the last row none."""
    errors, folds = candidate_errors(task), task.folds[task.selected]
    every = np.arange(len(errors) + 1)
    kept = [np.flatnonzero(every[:-1] != left_out) for left_out in every]
    return np.stack(
        [shares_of(errors[k].sum(axis=0), int(np.isin(folds, k).sum()), task.config) for k in kept]
    )


def stacking_weights(unseen: Float64, y: Float64, temper: float = 0.25) -> Float64:
    """(k, n_voxels) weights that sum to 1 over k predictions, from their errors on images not seen.

    As for candidates within a path (pseudo-Bayesian averaging, Yao et al. 2018), with half of each voxel's
    log likelihood ratio replaced by the mean over voxels: single voxels tell little from few images.

    Args:
        unseen: (k, n_images, n_voxels), out-of-fold predictions.
        y: (n_images, n_voxels), repeat means.
        temper: exponent on the likelihood.
    """
    errors = np.sum((unseen - y) ** 2, axis=1)
    least = np.maximum(errors.min(axis=0), 1e-30)
    log_share = -temper * len(y) / 2 * (errors / least - 1)
    log_share = 0.5 * log_share + 0.5 * log_share.mean(axis=1, keepdims=True)
    share = np.exp(log_share - log_share.max(axis=0))
    return np.asarray(share / share.sum(axis=0))


def stacked(unseen: Float64, y: Float64, folds: Rows) -> tuple[Float64, Float64]:
    """Weights (k, n_voxels) from all images, and the weighted predictions (n_images, n_voxels).

    What is predicted of a fold is weighed by the errors in the others alone.
    """
    average = np.empty_like(y)
    for fold in np.unique(folds):
        held = folds == fold
        rest = stacking_weights(unseen[:, ~held], y[~held])
        average[held] = np.einsum("kv,knv->nv", rest, unseen[:, held])
    return stacking_weights(unseen, y), average
