"""Response patterns that the images explain, fitted as responses of their own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from synbrain.arrays import Float64
from synbrain.linear.candidates import Dual, Task, near_choice, shares_of
from synbrain.linear.patterns import Nested, explained_patterns, falling_gains, gains_of_others
from synbrain.linear.ridge import out_of_fold, ridge_inverse


@dataclass(frozen=True)
class Components:
    """Predictions ``scores @ (gains * patterns)`` of all voxels from those of a few patterns.

    Attributes:
        patterns: (k, n_voxels) orthonormal.
        gains: (k,) in [0, 1.5], falling.
        duals: of the scores' ridge regressions, (n_images, k) on each kernel that one of them uses.
        out_of_fold: (n_images, n_voxels), with patterns, candidates and gains of the other folds.
    """

    patterns: Float64
    gains: Float64
    duals: list[Dual]
    out_of_fold: Float64


@dataclass(frozen=True)
class _Block:
    """Patterns that were found without one fold, and the scores of all images on them.

    Attributes:
        fold: that was left out; none was for the last block.
        patterns: (n_voxels, k).
        mean: (n_voxels,) of the responses that were looked at.
        scores: (n_images, k) measured.
    """

    fold: int | None
    patterns: Float64
    mean: Float64
    scores: Float64


def fit_components(task: Task, unseen: Float64, nested: Nested, n_components: int) -> Components:
    """Fit ridge from the images to scores on response patterns; voxels follow from these.

    A pattern averages the noise of many voxels away, so its ridge regression can see more through its own
    penalty and windows than any voxel's can: reduced-rank regression with as many penalties as ranks. How
    much of a pattern is more than noise is told by the slope of measured on predicted scores of images that
    had no part in pattern or fit. For that, patterns are found once more without each fold.

    Args:
        task: what is fitted; ``done`` is called twice for each kernel.
        unseen: (n_images, n_voxels) out-of-fold predictions of single voxels.
        nested: as for :func:`synbrain.linear.patterns.share_voxels`.
        n_components: how many patterns, at most as many as voxels.
    """
    y, weights, folds, k = task.y, task.weights, task.folds, n_components
    blocks = [_block(f, nested[f], task, folds != f, k) for f in nested]
    blocks.append(_block(None, unseen, task, folds >= 0, k))
    shares = _shares(task, blocks)
    predicted, duals = _fit(task, blocks, shares)
    products, powers = np.zeros((2, len(nested), k))
    for place, block in enumerate(blocks[:-1]):
        held = folds == block.fold
        centre = block.mean @ block.patterns
        ahead, measured = predicted[held] - centre, block.scores[held] - centre
        products[place] = weights[held] @ (ahead * measured)
        powers[place] = weights[held] @ ahead**2
    gains = falling_gains(products.sum(axis=0), powers.sum(axis=0))
    voxels = np.empty_like(y)
    place_of = {block.fold: place for place, block in enumerate(blocks[:-1])}
    for number in np.unique(folds):
        held, at = folds == number, place_of.get(int(number))
        block, own = blocks[-1], gains  # where memory did not allow the fold's own patterns (many images)
        if at is not None:
            block, own = blocks[at], gains_of_others(products, powers, at)
        scores = predicted[held] - block.mean @ block.patterns
        voxels[held] = block.mean + (scores * own) @ block.patterns.T
    return Components(blocks[-1].patterns.T, gains, duals, voxels)


def _block(
    fold: int | None, predictions: NDArray[np.floating], task: Task, rest: NDArray[np.bool_], k: int
) -> _Block:
    y, weights = task.y[rest], task.weights[rest]
    patterns = explained_patterns(predictions[rest].astype(np.float64), y, weights, k)
    return _Block(fold, patterns, weights @ y / weights.sum(), task.y @ patterns)


def _columns(blocks: list[_Block]) -> list[slice]:
    k = blocks[0].scores.shape[1]
    return [slice(b * k, (b + 1) * k) for b in range(len(blocks))]


def _shares(task: Task, blocks: list[_Block]) -> list[Float64]:
    """Shares of candidates (n_kernels, n_alphas, k) for each block, by errors in the folds it has seen.

    Fits that are judged on fold g have seen the fold that the block left out: that fold's predictions are
    weighed without its errors, not without any trace of it. Fits without both folds cost 45 solutions a
    candidate and gave the same cross-validated r to four digits.
    """
    selected, config = task.selected, task.config
    targets = np.concatenate([block.scores for block in blocks], axis=1)[selected]
    weights, folds = task.weights[selected], task.folds[selected]
    seen = np.array([folds != (-1 if block.fold is None else block.fold) for block in blocks])
    counted = np.repeat(seen * weights, blocks[0].scores.shape[1], axis=0).T
    errors = np.full((len(task.kernels), len(config.alphas), targets.shape[1]), np.inf)
    tried = list(range(len(config.alphas)))
    for i, kernel in enumerate(task.kernels):
        full = kernel.full()[0][np.ix_(selected, selected)]
        for a in tried:
            solution = ridge_inverse(full, weights, config.alphas[a], folds)
            off = out_of_fold(solution, targets, solution.matrix @ targets) - targets
            errors[i, a] = np.sum(counted * off**2, axis=0)
        if i == 0:
            tried = near_choice(errors[0])
        task.done()
    return [
        shares_of(errors[:, :, at], int(kept.sum()), config)
        for at, kept in zip(_columns(blocks), seen, strict=True)
    ]


def _fit(task: Task, blocks: list[_Block], shares: list[Float64]) -> tuple[Float64, list[Dual]]:
    """Scores of each image, on its fold's patterns by fits without the fold; duals of the last block."""
    targets = np.concatenate([block.scores for block in blocks], axis=1)
    columns, whole = _columns(blocks), blocks[-1].scores
    place_of = {block.fold: place for place, block in enumerate(blocks)}
    predicted = np.zeros_like(whole)
    duals: list[Dual] = []
    for i, kernel in enumerate(task.kernels):
        used = [a for a in range(len(task.config.alphas)) if any(share[i, a].any() for share in shares)]
        if used:
            full, factor = kernel.full()
            dual = np.zeros_like(whole)
            for a in used:
                solution = ridge_inverse(full, task.weights, task.config.alphas[a], task.folds)
                own = solution.matrix @ targets
                for fold, (rows, inverse) in enumerate(solution.blocks):
                    place = place_of.get(fold, -1)
                    at, share = columns[place], shares[place][i, a]
                    predicted[rows] += share * (targets[rows][:, at] - inverse @ own[rows][:, at])
                dual += shares[-1][i, a] * own[:, columns[-1]]
            duals.append(Dual(kernel, factor, dual))
        task.done()
    return predicted, duals
