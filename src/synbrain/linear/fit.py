"""Fit the linear path of the mean: ridge through windows over the token grid, averaged per voxel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from synbrain.arrays import Float32, Float64, Rows
from synbrain.describe import counted
from synbrain.errors import SynBrainError
from synbrain.features.look_alikes import about_families, folds_of, most_folds
from synbrain.features.tokens import Pairs, TokenSet
from synbrain.files import digest_of, open_array, save_array
from synbrain.linear.candidates import Choice, Problem, candidate_kernels, choose
from synbrain.linear.components import component_gains, component_scores, fit_duals
from synbrain.linear.config import LinearPathConfig
from synbrain.linear.cost import linear_path_cost
from synbrain.linear.kernels import Dual, projection
from synbrain.linear.meter import Meter
from synbrain.linear.noise_units import no_units, noise_units
from synbrain.linear.path import LinearPath
from synbrain.linear.patterns import Patterns, SharedMap, fold_patterns, share_voxels
from synbrain.linear.responses import Responses
from synbrain.linear.ridge import FoldLayout
from synbrain.linear.scratch import Scratch
from synbrain.linear.stacking import stacked
from synbrain.linear.storing import as_stored, column_sizes, require_kept, some_images, voxel_sd
from synbrain.linear.team import ALONE, Team
from synbrain.linear.voxels import fit_voxels, outer_folds
from synbrain.metrics.ceiling import signal_and_noise

LEAST_IMAGES = 3  # for cross-validation
WEIGHED_TRIALS = 4000  # from which the weights of images are estimated at most


@dataclass(frozen=True)
class LinearFit:
    """A fitted path and what it predicts for training images that it has not seen.

    Attributes:
        path: fitted on all training images.
        out_of_fold: (n_images, n_voxels) float32, each image predicted by a fit without its fold, with
            candidates weighed by the errors in other folds alone.
        folds: (n_images,) the fold of each image.
        gflop: arithmetic that the fit took.
    """

    path: LinearPath
    out_of_fold: Float32
    folds: Rows
    gflop: float = 0.0

    def save(self, folder: Path) -> None:
        """Write path and predictions into ``folder``."""
        self.path.save(folder)
        save_array(folder / "out_of_fold.npy", self.out_of_fold)
        save_array(folder / "folds.npy", self.folds)

    @classmethod
    def load(cls, folder: Path) -> LinearFit:
        """Read what :meth:`save` wrote; predictions stay on disk until they are read."""
        out_of_fold, folds = (open_array(folder / f"{name}.npy") for name in ("out_of_fold", "folds"))
        return cls(LinearPath.load(folder), out_of_fold, folds)


@dataclass(frozen=True)
class _Fitted:
    """What is predicted of images that no fit has seen, and the map that is fitted on all.

    Attributes:
        predicted: (n_images, n_voxels) float32, in the responses' unit.
        duals: kernel -> (n_places, r) float32.
        mixing: (r, n_voxels) float32, in the responses' unit; None: r columns are the voxels.
        about: figures for ``LinearPath.about``.
    """

    predicted: Float32
    duals: Mapping[int, Tensor]
    mixing: Float32 | None
    about: Mapping[str, float | None]


def fit_linear_path(
    pairs: Pairs,
    config: LinearPathConfig,
    *,
    seed: int = 0,
    device: str | torch.device = "cpu",
    team: Team = ALONE,
    folder: Path | None = None,
    show_progress: bool = False,
) -> LinearFit:
    """Fit ridge to voxels and to patterns of voxels, plain and through windows, and average by voxel.

    Kernels are made once and kept in a scratch folder below ``TMPDIR`` where they are large. Arithmetic is
    float32, with float64 factorisations where a penalty is small beside the kernel.

    Args:
        pairs: training images with their trials; the repeat means are fitted.
        config: candidates, folds and size of what is stored.
        seed: of the folds.
        device: where arithmetic is done.
        team: processes that share the voxels; all must call with the same pairs, and get the same fit.
        folder: where the passes are kept, so that the same call goes on after an interruption; it stays.
            None: in memory and in temporary files.
        show_progress: show a bar, in GFLOP.

    Raises:
        SynBrainError: fewer than 3 images, the same tokens for all, or a response that is not finite.
    """
    y = pairs.repeat_means()
    tokens = pairs.tokens if config.layers is None else pairs.tokens.only(*config.layers)
    _check(y, tokens)
    config = config.model_copy(update={"n_folds": min(config.n_folds, most_folds(tokens.families))})
    folds = folds_of(tokens.families, config.n_folds, seed)
    expected = linear_path_cost(len(y), y.shape[1], tokens.shapes, config).total
    meter = Meter(expected / team.world, show=show_progress)
    own = None if folder is None else folder / f"process-{team.rank}"
    drawn: list[object] = [seed, folds.tolist()]
    identity = "" if own is None else _identity(pairs, tokens, config, drawn, team)
    with Scratch(folder=own, identity=identity) as scratch:
        y = scratch.put(y)
        problem = _problem(
            pairs, tokens, folds, config, seed, scratch, Place(torch.device(device), meter, team)
        )
        fitted = _fit(problem, pairs, y, folds, scratch, seed)
        path = _path(tokens, fitted, problem, scratch)
        scores = path.scores(tokens)
        some = some_images(len(y))
        require_kept(scores[some] @ path.mixing, _in_sample(fitted, problem, some), voxel_sd(y))
        path = replace(path, intercept=_intercept(path, scores, y, image_weights(pairs)))
    meter.close()
    about = {"n_images": len(y), **about_families(tokens.families), **fitted.about, "rank": len(path.mixing)}
    return LinearFit(replace(path, about=about), fitted.predicted, folds, meter.gflop)


@dataclass(frozen=True)
class Place:
    """Where a fit works: device, what counts its arithmetic, and the processes that share it."""

    device: torch.device
    meter: Meter
    team: Team


def _identity(
    pairs: Pairs, tokens: TokenSet, config: LinearPathConfig, drawn: list[object], team: Team
) -> str:
    """Of everything that the passes of a fit depend on."""
    about = [tokens.encoder, {name: list(shape) for name, shape in tokens.shapes.items()}]
    return digest_of([pairs.digest, about, config.model_dump(mode="json"), drawn, team.world])


def _check(y: Float32, tokens: TokenSet) -> None:
    if len(y) < LEAST_IMAGES:
        raise SynBrainError(
            counted(len(y), "training image"), f"give at least {LEAST_IMAGES} for cross-validation"
        )
    if not np.isfinite(y).all():
        raise SynBrainError(
            f"{counted(int((~np.isfinite(y)).any(axis=0).sum()), 'voxel has', 'voxels have')} responses that "
            "are not finite",
            "prepare the dataset again, which lists them",
        )
    looks = (tokens.read(layer, some_images(len(y))) for layer in tokens.layers)
    if not any((look != look[0]).any() for look in looks):
        raise SynBrainError(
            f"all images have the same tokens of {tokens.encoder}",
            "look at the pictures with `synbrain check`, and encode them again",
        )


def image_weights(pairs: Pairs) -> Float64:
    """(n_images,) weights of repeat means, mean 1: 1 / (misfit + 1 / repeats), in units of trial noise.

    The misfit of any linear model is taken as half the signal variance (median voxel): averaging more
    repeats cannot make an image count more than that.
    """
    repeats = pairs.repeats()
    if repeats.min() == repeats.max():
        return np.ones(len(repeats))
    rows = pairs.some_trials(WEIGHED_TRIALS, (0,))
    signal, noise = signal_and_noise(pairs.trial_responses(rows), pairs.image_of_trial[rows])
    varies = noise > 0  # not a voxel that is constant
    misfit = 0.5 * float(np.median(signal[varies] / noise[varies])) if varies.any() else 0.5
    weights = 1 / (misfit + 1 / np.maximum(repeats, 1))
    return np.asarray(weights / weights.mean(), dtype=np.float64)


def _problem(
    pairs: Pairs,
    tokens: TokenSet,
    folds: Rows,
    config: LinearPathConfig,
    seed: int,
    scratch: Scratch,
    place: Place,
) -> Problem:
    device, meter, team = place.device, place.meter, place.team
    weights, n_folds = image_weights(pairs), config.n_folds
    layout = FoldLayout.of(folds, weights, n_folds, device)
    rng = np.random.default_rng([seed, 1])
    selected = np.sort(rng.permutation(len(folds))[: config.select_images])
    return Problem(
        kernels=candidate_kernels(tokens, layout, config, scratch, meter, team),
        layout=layout,
        selected=layout.place[torch.from_numpy(selected).to(device)],
        selected_layout=FoldLayout.of(folds[selected], weights[selected], n_folds, device),
        config=config,
        device=device,
        meter=meter,
        team=team,
    )


@dataclass(frozen=True)
class _Unseen:
    """Single voxels' predictions without folds, and what is shared among voxels because of them.

    Attributes:
        predicted: (n_images, n_voxels) float32 in the responses' unit: of single voxels, or those shared and
            those as they are.
        r: cross-validated, before sharing.
        shared: map of what is shared; None: nothing is.
        bases: patterns without each outer fold and of all images.
        inverses: candidate -> inverse blocks of folds.
    """

    predicted: Sequence[Float32]
    r: float | None
    shared: SharedMap | None = None
    bases: list[Patterns] = field(default_factory=list)
    inverses: dict[int, NDArray[np.float32]] = field(default_factory=dict)


def _fit(problem: Problem, pairs: Pairs, y: Float32, folds: Rows, scratch: Scratch, seed: int) -> _Fitted:
    """Choose, predict without folds, share among voxels, and solve on all images."""
    n_outer = outer_folds(y.shape[1], problem)
    # voxels that share nothing need no units in common
    units = noise_units(pairs, y, seed=seed) if n_outer else no_units(y.shape[1])
    responses = Responses.of(y, folds, problem.layout, units)
    choice = _chosen(problem, responses, scratch)
    unseen = _predict_unseen(problem, responses, choice, n_outer, scratch)
    fitted = _fit_on_all(problem, responses, choice, unseen)
    n_alphas = len(problem.config.alphas)
    of_plain = choice.weight[-1][choice.candidate[-1] < n_alphas].sum()
    about = {
        "kernels_used": len({c // n_alphas for c in choice.used()}),
        "candidates_used": len(choice.used()),
        "candidates_a_voxel": float((choice.weight > 0).any(dim=0).sum()) / y.shape[1],
        "weight_of_plain_ridge": float(of_plain) / y.shape[1],
        "noise_patterns": len(units.factors),
        "cross_validated_r_of_single_voxels": unseen.r,
        "cross_validated_r": responses.r(fitted.predicted),
    }
    return replace(fitted, about={**about, **fitted.about})


def _chosen(problem: Problem, responses: Responses, scratch: Scratch) -> Choice:
    """Candidates of every voxel, as an earlier process left them or new."""
    known = scratch.finished("choice")
    if known is not None:
        problem.meter.catch_up(known["gflop"])
        stored = scratch.tensors("choice")
        return Choice(stored["candidate"].to(problem.device), stored["weight"].to(problem.device))
    choice = choose(problem, responses.laid)
    tensors = {"candidate": choice.candidate, "weight": choice.weight}
    scratch.finish("choice", {"gflop": problem.meter.gflop}, tensors)
    return choice


def _predict_unseen(
    problem: Problem, responses: Responses, choice: Choice, n_outer: int, scratch: Scratch
) -> _Unseen:
    """Predictions of every fold without it; the large arrays that they come from end with this call."""
    laid, layout = responses.laid, problem.layout
    voxels = fit_voxels(problem, laid, choice, n_outer, scratch)
    unseen, inverses = voxels.unseen, voxels.inverses
    alone = responses.back(unseen)
    r = responses.r(alone)
    if n_outer == 0:
        return _Unseen([alone], r)
    del alone
    rank, rest = problem.config.rank, problem.config.rest
    bases = fold_patterns(unseen, voxels.outer, laid, layout, rank, rest, problem.meter)
    del voxels  # predictions without two folds, up to 3 GB, have told the patterns
    shared, *ways = share_voxels(unseen, laid, bases, layout)
    del unseen
    return _Unseen([responses.back(way) for way in ways], r, shared, bases, inverses)


def _fit_on_all(problem: Problem, responses: Responses, choice: Choice, unseen: _Unseen) -> _Fitted:
    """Solve on all images; voxels shared, voxels as they are and patterns alone are averaged by voxel."""
    laid, config, shared = responses.laid, problem.config, unseen.shared
    if shared is None:
        duals, _ = fit_duals(problem, laid, choice, None, None, unseen.inverses)
        in_columns = {k: dual.shared for k, dual in duals.items()}
        return _Fitted(unseen.predicted[0], in_columns, responses.voxels_back(), {})
    components = component_scores(problem, laid, unseen.bases) if config.components else None
    duals, scores = fit_duals(problem, laid, choice, shared.reduce, components, unseen.inverses)
    ways, maps = list(unseen.predicted), [shared.expand, shared.reduce.T]
    if components is not None:
        kept, by_components = component_gains(components, scores, problem.layout, len(laid))
        ways.append(responses.back(by_components))
        maps.append(kept.expand)
    weights, predicted = stacked(ways, responses.measured, responses.folds)
    each = [responses.patterns_back(m) * w for m, w in zip(maps, weights.astype(np.float32), strict=True)]
    mixing = np.concatenate([each[0] + each[1], *each[2:]])
    n_shared = len(each[0])
    in_columns = {
        k: torch.cat([d.shared, d.components[:, : len(mixing) - n_shared]], dim=1) for k, d in duals.items()
    }
    about = {
        "patterns": shared.basis.n_single,
        "directions_beyond_patterns": n_shared - shared.basis.n_single,
        "weight_of_voxels_as_they_are": float(weights[1].mean()),
    }
    if components is not None:
        about["components"] = int(torch.count_nonzero(kept.gains))
        about["weight_of_components"] = float(weights[2].mean())
    return _Fitted(predicted, in_columns, mixing, about)


def _path(tokens: TokenSet, fitted: _Fitted, problem: Problem, scratch: Scratch) -> LinearPath:
    """Dual weights to projections of tokens; the intercept is still 0."""
    mixing, place = fitted.mixing, problem.layout.place
    n_voxels = fitted.predicted.shape[1]
    duals = []
    for k, weights in fitted.duals.items():
        kernel, on_images = problem.kernels[k], weights[place]
        if mixing is not None and len(mixing) >= n_voxels:  # one column a voxel is less
            on_images = on_images @ torch.from_numpy(mixing).to(problem.device)
        duals.append(Dual(kernel.grids, kernel.window, kernel.factor, on_images))
    if mixing is None or len(mixing) >= n_voxels:
        mixing = np.eye(n_voxels, dtype=np.float32)
    weights_of = projection(duals, problem.device, problem.meter, scratch)
    size = column_sizes(weights_of)
    # mapped where they are large: such a file lives as long as the array, in a folder that is gone
    projections = {
        layer: as_stored(of, size, problem.config.dtype, scratch.empty) for layer, of in weights_of.items()
    }
    return LinearPath(
        projections=projections,
        mixing=mixing * size.cpu().numpy()[:, None],
        intercept=np.zeros(n_voxels, dtype=np.float32),
        shapes={layer: tokens.shapes[layer] for layer in weights_of},
        about={},
    )


def _in_sample(fitted: _Fitted, problem: Problem, images: Rows) -> Float32:
    """(len(images), n_voxels) that the fit predicts of some of its images, but for a constant: K @ dual."""
    places = problem.layout.place[torch.from_numpy(images).to(problem.device)]
    scores: Tensor | None = None
    for k, weights in fitted.duals.items():
        rows = np.asarray(problem.kernels[k].values[places.cpu().numpy()])
        of_kernel = torch.from_numpy(rows).to(problem.device) @ weights
        scores = of_kernel if scores is None else scores.add_(of_kernel)
    assert scores is not None
    on_columns = scores.cpu().numpy()
    return on_columns if fitted.mixing is None else on_columns @ fitted.mixing


def _intercept(path: LinearPath, scores: Float32, y: Float32, weights: Float64) -> Float32:
    """(n_voxels,) that makes weighted residuals of the stored map, which gives ``scores``, sum to zero."""
    share = (weights / weights.sum()).astype(np.float32)
    return np.asarray(share @ y - (share @ scores) @ path.mixing)
