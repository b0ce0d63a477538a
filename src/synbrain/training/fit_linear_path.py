"""Fit the linear path of the mean: ridge through windows over the token grid, averaged per voxel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from synbrain.errors import SynBrainError
from synbrain.features.tokens import Pairs, TokenSet
from synbrain.metrics.ceiling import signal_and_noise
from synbrain.metrics.voxel import mean_defined, voxel_r
from synbrain.models.linear_path import LinearPath
from synbrain.progress import bar
from synbrain.training.kernel_ridge import out_of_fold, out_of_two_folds, ridge_inverse
from synbrain.training.share_voxels import Nested, SharedMap, share_voxels
from synbrain.training.token_kernels import (
    StageGrid,
    Window,
    blurred_grid,
    plain_grid,
    position_kernels,
    projection,
    seen_through,
    window_kernel,
    window_lattice,
)

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]
POSITION_BYTES = 1 << 30  # what kernels of single positions may take
NESTED_BYTES = 1 << 30  # what predictions without two folds may take


class LinearPathConfig(BaseModel):
    """How the linear path is fitted; nothing here looks at test images."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    stages: tuple[str, ...] | None = Field(None, description="token stages; none: all that the tokens hold")
    side: int = Field(7, ge=1, description="rows of the grid that stages are brought to")
    blur: float = Field(0.085, ge=0, description="sd of the blur over positions, share of the image's width")
    windows: int | None = Field(
        None, ge=0, description="windows a side; 0: none; none: 5 up to 600 images, else 3"
    )
    window_sd: float = Field(0.12, gt=0, description="sd of the windows, share of the image's width")
    alphas: tuple[float, ...] = Field((0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0), min_length=1)
    n_folds: int = Field(10, ge=2, description="folds by image; fewer where images are fewer")
    temper: float = Field(0.25, gt=0, description="exponent on the pseudo-likelihood of a candidate")
    keep: int = Field(8, ge=1, description="candidates that a voxel averages at most")
    select_images: int = Field(800, ge=10, description="images on which candidates are compared at most")
    share: bool = Field(True, description="share among voxels through the patterns of their predictions")
    rank: int = Field(256, ge=1, description="patterns that are shared, and rank of the stored map, at most")
    dtype: str = Field("float16", pattern="^float(16|32)$", description="of the stored projections")


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
class _Kernel:
    """Stages on their grids, seen through one window; ``full`` gives the kernel over all images."""

    grids: list[StageGrid]
    window: Window
    full: Callable[[], tuple[NDArray[np.float32], float]]


def fit_linear_path(
    pairs: Pairs, config: LinearPathConfig, *, seed: int = 0, show_progress: bool = False
) -> LinearFit:
    """Fit per voxel a weighted average of ridge regressions, plain and through windows.

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
    tokens = pairs.tokens if config.stages is None else pairs.tokens.only(*config.stages)
    weights = image_weights(pairs)
    folds = assign_folds(len(y), config.n_folds, seed)
    kernels = _kernels(tokens, len(y), config)
    selected = np.sort(np.random.default_rng([seed, 1]).permutation(len(y))[: config.select_images])
    moving = bar("fit linear path", total=2 * len(kernels), unit="kernel", show=show_progress)
    errors = _errors(kernels, y, weights, folds, selected, config, moving.update)
    sizes = [int(np.sum(folds[selected] == fold)) for fold in range(config.n_folds)]
    shares = _shares(errors, sizes, config)
    fit = _fit(tokens, kernels, y, weights, folds, shares, config, moving.update)
    moving.close()
    return fit


def _check(y: Floats) -> None:
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


def image_weights(pairs: Pairs) -> Floats:
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


def _kernels(tokens: TokenSet, n_images: int, config: LinearPathConfig) -> list[_Kernel]:
    """Plain ridge on the tokens first, then blurred tokens, whole and through each window."""
    n_side = config.windows if config.windows is not None else (5 if n_images <= 600 else 3)
    plain = [plain_grid(tokens, stage) for stage in tokens.stages]
    kernels = [_Kernel(plain, Window(), cache(partial(window_kernel, plain, Window())))]
    if n_side == 0 and config.blur == 0:
        return kernels
    blurred = [blurred_grid(tokens, stage, side=config.side, blur=config.blur) for stage in tokens.stages]
    seen = [Window(), *window_lattice(n_side, config.window_sd)]
    held = None
    if 4 * n_images**2 * sum({grid.n_positions for grid in blurred}) <= POSITION_BYTES:
        held = position_kernels(blurred)
    for window in seen:
        full = partial(window_kernel, blurred) if held is None else partial(seen_through, held)
        kernels.append(_Kernel(blurred, window, partial(full, window)))
    return kernels


def _errors(
    kernels: list[_Kernel],
    y: Floats,
    weights: Floats,
    folds: Rows,
    selected: Rows,
    config: LinearPathConfig,
    done: Callable[[], object],
) -> Floats:
    """(n_folds, n_kernels, n_alphas, n_voxels): weighted squared error in each fold, among ``selected``.

    Alphas that no voxel comes near to choosing with the first kernel are left out of the others (infinity).
    """
    y, weights, folds = y[selected], weights[selected], folds[selected]
    errors = np.full((config.n_folds, len(kernels), len(config.alphas), y.shape[1]), np.inf)
    alphas = list(range(len(config.alphas)))
    for k, kernel in enumerate(kernels):
        full = kernel.full()[0][np.ix_(selected, selected)]
        for a in alphas:
            solution = ridge_inverse(full, weights, config.alphas[a], folds)
            squared = (out_of_fold(solution, y, solution.matrix @ y) - y) ** 2
            for fold in range(config.n_folds):
                rows = folds == fold
                errors[fold, k, a] = weights[rows] @ squared[rows]
        if k == 0:
            best = np.argmin(errors[:, 0].sum(axis=0), axis=0)
            low, high = np.quantile(best, [0.02, 0.98]).round().astype(int)
            alphas = list(range(max(0, low - 1), min(len(config.alphas), high + 2)))
        done()
    return errors


def _shares(errors: Floats, fold_sizes: list[int], config: LinearPathConfig) -> Floats:
    """(n_folds + 1, n_kernels, n_alphas, n_voxels) shares of candidates; row f leaves fold f's errors out.

    Pseudo-Bayesian averaging (Yao et al. 2018) with a tempered Gaussian pseudo-likelihood:
    ``share ~ exp(-temper * n / 2 * (error / least error - 1))``; the last row uses every fold.
    """
    total = errors.sum(axis=0)
    n_folds, n_voxels = len(errors), errors.shape[-1]
    shares = np.zeros((n_folds + 1, *errors.shape[1:]))
    for left_out in range(n_folds + 1):
        n_images = sum(fold_sizes) - (fold_sizes[left_out] if left_out < n_folds else 0)
        rest = np.delete(errors, left_out, axis=0).sum(axis=0) if left_out < n_folds else total
        rest = rest.reshape(-1, n_voxels)
        least = np.maximum(rest.min(axis=0), 1e-30)
        log_share = -config.temper * n_images / 2 * (rest / least - 1)
        last = np.sort(log_share, axis=0)[-min(config.keep, len(log_share))]
        share = np.where(log_share >= np.maximum(last, np.log(1e-3)), np.exp(log_share), 0)
        shares[left_out] = (share / share.sum(axis=0)).reshape(errors.shape[1:])
    return shares


def _fit(
    tokens: TokenSet,
    kernels: list[_Kernel],
    y: Floats,
    weights: Floats,
    folds: Rows,
    shares: Floats,
    config: LinearPathConfig,
    done: Callable[[], object],
) -> LinearFit:
    """Fit what was selected on all images, with predictions out of fold, and fold it into one path."""
    unseen = np.zeros_like(y)
    nested = _outer_folds(y, config)
    duals: list[tuple[_Kernel, float, Rows, NDArray[np.float32]]] = []
    for k, kernel in enumerate(kernels):
        used = np.flatnonzero((shares[:, k] > 0).any(axis=(0, 1)))
        if len(used):
            full, factor = kernel.full()
            dual = np.zeros((len(y), len(used)))
            for a in np.flatnonzero((shares[:, k] > 0).any(axis=(0, 2))):
                solution = ridge_inverse(full, weights, config.alphas[a], folds)
                share = shares[:, k, a][:, used]
                mine = (share > 0).any(axis=0)
                at, share = used[mine], share[:, mine]
                own = solution.matrix @ y[:, at]
                unseen[:, at] += share[folds] * out_of_fold(solution, y[:, at], own)
                for first, second in _pairs(nested, config.n_folds):
                    both = out_of_two_folds(solution, y[:, at], own, first, second)
                    for fold, other, predicted in ((second, first, both[0]), (first, second, both[1])):
                        if fold in nested:
                            nested[fold][np.ix_(folds == other, at)] += share[fold] * predicted
                dual[:, mine] += share[-1] * own
            if shares[-1, k].any():
                duals.append((kernel, factor, used, dual.astype(np.float32)))
        done()
    before = mean_defined(voxel_r(unseen, y))[0]
    shared = None
    if nested:
        shared, unseen = share_voxels(unseen, nested, y, weights, folds, config.rank)
    path = _path(tokens, duals, y, weights, shared, config)
    about = {
        "n_images": len(y),
        "kernels_used": len(duals),
        "mean_share_of_plain_ridge": float(shares[-1, 0].sum(axis=0).mean()),
        "cross_validated_r_of_single_voxels": before,
        "cross_validated_r": mean_defined(voxel_r(unseen, y))[0],
        "rank": len(path.mixing),
    }
    return LinearFit(replace(path, about=about), unseen.astype(np.float32), folds)


def _outer_folds(y: Floats, config: LinearPathConfig) -> Nested:
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


def _path(
    tokens: TokenSet,
    duals: list[tuple[_Kernel, float, Rows, NDArray[np.float32]]],
    y: Floats,
    weights: Floats,
    shared: SharedMap | None,
    config: LinearPathConfig,
) -> LinearPath:
    """Dual weights to projections of tokens; the intercept makes weighted residuals sum to zero."""
    n_voxels = y.shape[1]
    basis = np.eye(n_voxels) if shared is None else shared.reduce
    mixing = np.eye(n_voxels) if shared is None else shared.expand
    groups: dict[int, list[tuple[_Kernel, float, Floats]]] = {}
    for kernel, factor, used, dual in duals:
        groups.setdefault(id(kernel.grids), []).append((kernel, factor, dual @ basis[used]))
    weights_of: dict[str, Floats] = {}
    for members in groups.values():
        found = projection(members[0][0].grids, [(kernel.window, f, dual) for kernel, f, dual in members])
        for stage, held in found.items():
            flat = held.reshape(-1, held.shape[-1])
            weights_of[stage] = weights_of[stage] + flat if stage in weights_of else flat
    # float16 holds 6e-8 to 65504: each column of a stage is brought to at most 1, the mixing takes the rest
    size = np.max([np.abs(held).max(axis=0) for held in weights_of.values()], axis=0)
    size = np.where(size > 0, size, 1)
    path = LinearPath(
        projections={stage: (held / size).astype(config.dtype) for stage, held in weights_of.items()},
        mixing=(mixing * size[:, None]).astype(np.float32),
        intercept=np.zeros(n_voxels, dtype=np.float32),
        shapes={stage: tokens.shapes[stage] for stage in weights_of},
        about={},
    )
    share = (weights / weights.sum())[:, None]
    intercept = np.sum(share * (y - path.predict(tokens)), axis=0)
    return replace(path, intercept=intercept.astype(np.float32))
