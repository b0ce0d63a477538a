"""Fit the linear path of the mean: ridge through windows over the token grid, averaged per voxel."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from synbrain.arrays import Float64, Rows
from synbrain.errors import SynBrainError
from synbrain.features.tokens import Pairs, TokenSet
from synbrain.linear.candidates import (
    Dual,
    Task,
    candidate_kernels,
    fold_shares,
    stacked,
)
from synbrain.linear.components import fit_components
from synbrain.linear.config import LinearPathConfig
from synbrain.linear.kernels import projection
from synbrain.linear.noise_units import NoiseUnits, no_units, noise_units
from synbrain.linear.path import LinearPath
from synbrain.linear.patterns import Nested, share_voxels
from synbrain.linear.ridge import out_of_fold, out_of_two_folds, ridge_inverse
from synbrain.metrics.ceiling import signal_and_noise
from synbrain.metrics.voxel import mean_defined, voxel_r
from synbrain.progress import bar

NESTED_BYTES = 1 << 30  # what predictions without two folds may take


@dataclass(frozen=True)
class LinearFit:
    """A fitted path and what it predicts for training images that it has not seen.

    Attributes:
        path: fitted on all training images.
        out_of_fold: (n_images, n_voxels) float32, each image predicted by a fit without its fold, with
            candidates weighed by the errors in other folds alone.
        folds: (n_images,) the fold of each image.
    """

    path: LinearPath
    out_of_fold: NDArray[np.float32]
    folds: Rows


@dataclass(frozen=True)
class _Part:
    """One part of the path: dual weights on kernels, reduced to r columns, and what these mean to voxels.

    Attributes:
        duals: on kernels, (n_images, n) each.
        reduce: (n, r).
        expand: (r, n_voxels), in the responses' unit.
    """

    duals: list[Dual]
    reduce: Float64
    expand: Float64


def fit_linear_path(
    pairs: Pairs, config: LinearPathConfig, *, seed: int = 0, show_progress: bool = False
) -> LinearFit:
    """Fit ridge to voxels and to patterns of voxels, plain and through windows, and average by voxel.

    Args:
        pairs: training images with their trials; the repeat means are fitted.
        config: candidates, folds and size of what is stored.
        seed: of the folds.
        show_progress: show a bar.

    Raises:
        SynBrainError: where there are fewer than 3 images, or a response is not finite.
    """
    y = pairs.repeat_means().astype(np.float64)
    _check(y)
    config = config.model_copy(update={"n_folds": min(config.n_folds, len(y))})
    tokens = pairs.tokens if config.layers is None else pairs.tokens.only(*config.layers)
    nested = _outer_folds(y, config)
    # voxels that share nothing need no units in common
    units = noise_units(pairs, y, seed=seed) if nested else no_units(y.shape[1])
    kernels = candidate_kernels(tokens, len(y), config)
    passes = 4 if nested and config.components else 2
    moving = bar("fit linear path", total=passes * len(kernels), unit="kernel", show=show_progress)
    task = Task(
        kernels=kernels,
        y=units.into(y),
        weights=image_weights(pairs),
        folds=assign_folds(len(y), config.n_folds, seed),
        selected=np.sort(np.random.default_rng([seed, 1]).permutation(len(y))[: config.select_images]),
        config=config,
        done=moving.update,
    )
    shares = fold_shares(task)
    unseen, duals = _fit_voxels(task, shares, nested)
    predicted = units.back(unseen)
    about: dict[str, float | None] = {
        "n_images": len(y),
        "kernels_used": len(duals),
        "mean_share_of_plain_ridge": float(shares[-1, 0].sum(axis=0).mean()),
        "cross_validated_r_of_single_voxels": mean_defined(voxel_r(predicted, y))[0],
    }
    if nested:
        parts, predicted, of_patterns = _share(task, y, units, duals, unseen, nested)
        about |= of_patterns
    else:
        parts = [_Part(duals, np.eye(y.shape[1]), np.eye(y.shape[1]))]
    moving.close()
    path = _path(tokens, parts, y, task)
    about |= {"cross_validated_r": mean_defined(voxel_r(predicted, y))[0], "rank": len(path.mixing)}
    return LinearFit(replace(path, about=about), predicted.astype(np.float32), task.folds)


def _check(y: Float64) -> None:
    if len(y) < 3:
        raise SynBrainError(f"{len(y)} training images", "give at least 3 for cross-validation")
    if not np.isfinite(y).all():
        raise SynBrainError(
            f"{int((~np.isfinite(y)).any(axis=0).sum())} voxels have responses that are not finite",
            "prepare the dataset again, which lists them",
        )


def assign_folds(n_images: int, n_folds: int, seed: int) -> Rows:
    """(n_images,) fold of each image, sizes equal to one."""
    folds = np.empty(n_images, dtype=np.int64)
    folds[np.random.default_rng(seed).permutation(n_images)] = np.arange(n_images) % n_folds
    return folds


def image_weights(pairs: Pairs) -> Float64:
    """(n_images,) weights of repeat means, mean 1: 1 / (misfit + 1 / repeats), in units of trial noise.

    The misfit of any linear model is taken as half the signal variance (median voxel): averaging more
    repeats cannot make an image count more than that.
    """
    repeats = pairs.repeats()
    if repeats.min() == repeats.max():
        return np.ones(len(repeats))
    rows = np.arange(min(pairs.n_trials, 4000))
    signal, noise = signal_and_noise(pairs.trial_responses(rows), pairs.image_of_trial[rows])
    ratio = np.median(np.maximum(signal, 0) / np.maximum(noise, 1e-30))
    misfit = 0.5 * float(ratio) if np.isfinite(ratio) else 0.5
    weights = 1 / (misfit + 1 / np.maximum(repeats, 1))
    return np.asarray(weights / weights.mean(), dtype=np.float64)


def _fit_voxels(task: Task, shares: Float64, nested: Nested) -> tuple[Float64, list[Dual]]:
    """Fit what was selected for each voxel on all images.

    Returns:
        (n_images, n_voxels) predictions out of fold, and duals (n_images, n_voxels). ``nested`` is filled.
    """
    y, folds = task.y, task.folds
    unseen = np.zeros_like(y)
    duals: list[Dual] = []
    for k, kernel in enumerate(task.kernels):
        if shares[:, k].any():
            full, factor = kernel.full()
            dual = np.zeros(y.shape, dtype=np.float32)
            for a in np.flatnonzero((shares[:, k] > 0).any(axis=(0, 2))):
                solution = ridge_inverse(full, task.weights, task.config.alphas[a], folds)
                at = np.flatnonzero((shares[:, k, a] > 0).any(axis=0))
                share = shares[:, k, a][:, at]
                own = solution.matrix @ y[:, at]
                unseen[:, at] += share[folds] * out_of_fold(solution, y[:, at], own)
                for first, second in _pairs(nested, task.config.n_folds):
                    both = out_of_two_folds(solution, y[:, at], own, first, second)
                    for fold, other, predicted in ((second, first, both[0]), (first, second, both[1])):
                        if fold in nested:
                            nested[fold][np.ix_(folds == other, at)] += share[fold] * predicted
                dual[:, at] += share[-1] * own
            if shares[-1, k].any():
                duals.append(Dual(kernel, factor, dual))
        task.done()
    return unseen, duals


def _share(
    task: Task, y: Float64, units: NoiseUnits, duals: list[Dual], unseen: Float64, nested: Nested
) -> tuple[list[_Part], Float64, dict[str, float | None]]:
    """Two ways to share among voxels, averaged: single voxels drawn to patterns, and patterns alone.

    Returns:
        Parts of the path, predictions out of fold in the responses' unit, and what to tell of them.
    """
    weights, folds, config = task.weights, task.folds, task.config
    shared, drawn = share_voxels(unseen, nested, task.y, weights, folds, config.rank)
    parts = [_Part(duals, shared.reduce, units.back(shared.expand))]
    predicted = units.back(drawn)
    about: dict[str, float | None] = {
        "noise_patterns": len(units.factors),
        "patterns": shared.reduce.shape[1],
    }
    n_components = min(config.components, y.shape[1])
    if n_components:
        found = fit_components(task, unseen, nested, n_components)
        parts.append(_Part(found.duals, np.diag(found.gains), units.back(found.patterns)))
        share, predicted = stacked(np.stack([predicted, units.back(found.out_of_fold)]), y, folds)
        parts = [replace(part, expand=part.expand * own) for part, own in zip(parts, share, strict=True)]
        about |= {
            "components": int(np.count_nonzero(found.gains)),
            "share_of_components": float(share[1].mean()),
        }
    return parts, predicted, about


def _outer_folds(y: Float64, config: LinearPathConfig) -> Nested:
    """Room for predictions without two folds, for as many folds as memory allows, but two at least.

    Empty where nothing is shared: not asked for, or fewer than three folds (a fit without two needs a third).
    """
    if not config.share or config.n_folds < 3:
        return {}
    most = max(2, min(config.n_folds, NESTED_BYTES // (4 * y.size)))
    return {fold: np.zeros(y.shape, dtype=np.float32) for fold in range(most)}


def _pairs(nested: Nested, n_folds: int) -> list[tuple[int, int]]:
    """Pairs of folds of which one at least is in ``nested``."""
    return [(a, b) for a, b in combinations(range(n_folds), 2) if a in nested]


def _path(tokens: TokenSet, parts: list[_Part], y: Float64, task: Task) -> LinearPath:
    """Dual weights to projections of tokens; the intercept makes weighted residuals sum to zero."""
    n_voxels = y.shape[1]
    mixing = np.concatenate([part.expand for part in parts])
    one_column_a_voxel = len(mixing) >= n_voxels
    if one_column_a_voxel:
        parts = [_Part(part.duals, part.reduce @ part.expand, np.eye(n_voxels)) for part in parts]
        mixing = np.eye(n_voxels)
    groups: dict[int, list[Dual]] = {}
    start = 0
    for part in parts:
        width = part.reduce.shape[1]
        for dual in part.duals:
            reduced = np.zeros((len(y), len(mixing)))
            at = slice(None) if one_column_a_voxel else slice(start, start + width)
            reduced[:, at] = dual.weights @ part.reduce
            groups.setdefault(id(dual.kernel.grids), []).append(replace(dual, weights=reduced))
        start += width
    weights_of: dict[str, Float64] = {}
    for members in groups.values():
        windows = [(dual.kernel.window, dual.factor, dual.weights) for dual in members]
        for layer, held in projection(members[0].kernel.grids, windows).items():
            flat = held.reshape(-1, held.shape[-1])
            weights_of[layer] = weights_of[layer] + flat if layer in weights_of else flat
    # float16 holds 6e-8 to 65504: each column of a layer is brought to at most 1, the mixing takes the rest
    size = np.max([np.abs(held).max(axis=0) for held in weights_of.values()], axis=0)
    size = np.where(size > 0, size, 1)
    path = LinearPath(
        projections={layer: (held / size).astype(task.config.dtype) for layer, held in weights_of.items()},
        mixing=(mixing * size[:, None]).astype(np.float32),
        intercept=np.zeros(n_voxels, dtype=np.float32),
        shapes={layer: tokens.shapes[layer] for layer in weights_of},
        about={},
    )
    share = (task.weights / task.weights.sum())[:, None]
    intercept = np.sum(share * (y - path.predict(tokens)), axis=0)
    return replace(path, intercept=intercept.astype(np.float32))
