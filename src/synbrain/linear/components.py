"""Response patterns that the images explain, fitted as responses of their own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from synbrain.linear.candidates import Choice, Problem, choose, parts_of
from synbrain.linear.meter import Meter
from synbrain.linear.patterns import Patterns, SharedMap, Slopes
from synbrain.linear.ridge import FoldInverses, FoldLayout, Ridge, residuals


@dataclass(frozen=True)
class ComponentScores:
    """Scores of all images on the patterns of each outer fold and, last, of all images.

    Attributes:
        bases: patterns, the first ``k`` of each.
        scores: (n_blocks * k, n_places) float32, measured, block by block.
        choice: candidates of all scores.
    """

    bases: list[Patterns]
    scores: Tensor
    choice: Choice

    @property
    def k(self) -> int:
        return self.bases[0].patterns.shape[1]

    @property
    def n_outer(self) -> int:
        return len(self.bases) - 1

    def block(self, fold: int) -> slice:
        """Rows of the scores whose patterns did not see a fold; of all images where there are none."""
        b = fold if fold < self.n_outer else self.n_outer
        return slice(b * self.k, (b + 1) * self.k)

    def used(self) -> list[int]:
        """Candidates that are needed: each block's as they are chosen without its fold."""
        rows = [
            self.choice.row(f if f < self.n_outer else -1, self.block(f)) for f in range(self.n_outer + 1)
        ]
        return sorted({c for row in rows for c in row.used()})

    def needs(self, candidate: int) -> Tensor:
        """(n_blocks * k,) bool: scores that have a weight on a candidate, for any fold or for all images."""
        needed = torch.zeros(len(self.scores), dtype=torch.bool, device=self.scores.device)
        for fold in range(self.n_outer + 1):
            needed[self.block(fold)] = self.weights(candidate, fold) > 0
        return needed

    def weights(self, candidate: int, fold: int) -> Tensor:
        """(k,) weights of a block's scores on a candidate, by the errors in other folds than ``fold``."""
        row = self.choice.row(fold if fold < self.n_outer else -1, self.block(fold))
        return torch.where(row.candidate[0] == candidate, row.weight[0], 0).sum(dim=0)


def component_scores(problem: Problem, y: Tensor, bases: list[Patterns]) -> ComponentScores:
    """Scores on patterns, and the candidates for each.

    Fits that are judged on fold g have seen the fold that the block left out: that fold's predictions are
    weighed without its errors, not without any trace of it. Fits without both folds cost 45 solutions a
    candidate and gave the same cross-validated r to four digits.

    Args:
        problem: kernels, images and folds.
        y: (n_voxels, n_places) float32.
        bases: of :func:`synbrain.linear.patterns.fold_patterns`.
    """
    k = min(problem.config.components, bases[0].n_single)
    first = [basis.first(k) for basis in bases]
    scores = torch.cat([basis.patterns.T @ y for basis in first])
    return ComponentScores(first, scores, choose(problem, scores))


@dataclass(frozen=True)
class DualWeights:
    """Dual weights of one kernel, in columns.

    Attributes:
        shared: (n_places, r) of the voxels' ridge regressions, reduced to r columns.
        components: (n_places, k) of the components' scores; no columns where there are none.
    """

    shared: Tensor
    components: Tensor


def fit_duals(
    problem: Problem,
    y: Tensor,
    choice: Choice,
    reduce: Tensor | None,
    components: ComponentScores | None,
    inverses: dict[int, NDArray[np.float32]],
) -> tuple[dict[int, DualWeights], Tensor]:
    """Dual weights on all images, voxels reduced to a few columns.

    ``S (y * weights) @ reduce = S ((y * weights) @ reduce)``: whichever side has fewer columns is solved, so
    that dual weights of all single voxels are never made.

    Args:
        problem: kernels, images and folds.
        y: (n_voxels, n_places) float32.
        choice: candidates of the voxels.
        reduce: (n_voxels, r) float32; None: every voxel keeps a column of its own.
        components: scores that are fitted beside the voxels.
        inverses: candidate -> :attr:`FoldInverses.one`, where they are known.

    Returns:
        Kernel -> dual weights, and (k, n_places) predicted scores of each image, on its fold's patterns by
        fits without the fold.
    """
    layout, meter = problem.layout, problem.meter
    r = len(y) if reduce is None else reduce.shape[1]
    k = 0 if components is None else components.k
    predicted = torch.zeros((k, layout.n_places), device=y.device)
    duals: dict[int, DualWeights] = {}
    candidates = sorted({*choice.used(), *(components.used() if components else [])})
    for which in dict.fromkeys(candidate // len(problem.config.alphas) for candidate in candidates):
        room = (torch.zeros((layout.n_places, n), device=y.device) for n in (r, k))
        duals[which] = DualWeights(*room)
    kernel, at_kernel = None, -1
    mine = problem.team.share(len(candidates))
    for candidate in candidates[mine]:
        which, a = divmod(candidate, len(problem.config.alphas))
        if which != at_kernel:
            kernel, at_kernel = problem.kernel(which), which
        assert kernel is not None
        rows = None if components is None else torch.nonzero(components.needs(candidate))[:, 0]
        some = _seen_by_all(choice, candidate)
        if len(some[0]) == 0 and (rows is None or len(rows) == 0):
            continue
        ridge = problem.ridge(which, problem.config.alphas[a], kernel)
        columns = _columns(problem, y, some, reduce)
        width = columns.shape[1]
        if components is None or rows is None:
            _add(duals[which].shared, ridge.solve(columns, meter), some[0], reduce, meter)
            continue
        solved = ridge.solve(torch.cat([columns, components.scores[rows].T], dim=1), meter)
        _add(duals[which].shared, solved[:, :width], some[0], reduce, meter)
        scores = torch.zeros_like(components.scores)
        scores[rows] = solved[:, width:].T
        last = components.block(components.n_outer)
        duals[which].components.add_(
            (components.weights(candidate, components.n_outer)[:, None] * scores[last]).T
        )
        one = _inverses(ridge, inverses.get(candidate), problem)
        _predict(problem, components, candidate, scores, one, predicted)
    if len(candidates) >= problem.team.world:  # else every process did all of it
        for dual in duals.values():
            problem.team.add_up(dual.shared)
            problem.team.add_up(dual.components)
        problem.team.add_up(predicted)
    return duals, predicted


def _inverses(ridge: Ridge, known: NDArray[np.float32] | None, problem: Problem) -> Tensor:
    if known is not None:
        return torch.from_numpy(np.asarray(known)).to(problem.device)
    return FoldInverses.of(ridge.into_matrix(problem.meter), problem.layout, 0, problem.meter).one


def _seen_by_all(choice: Choice, candidate: int) -> tuple[Tensor, Tensor]:
    """Voxels (k,) that have a weight on a candidate from all folds, and the weights."""
    voxels, weights = choice.of(candidate)
    some = torch.nonzero(weights[-1])[:, 0]
    return voxels[some], weights[-1][some]


def _columns(problem: Problem, y: Tensor, weighted: tuple[Tensor, Tensor], reduce: Tensor | None) -> Tensor:
    """(n_places, k) what is solved for a candidate's voxels: few of them one by one, many as r columns."""
    voxels, weights = weighted
    if reduce is None or len(voxels) < reduce.shape[1]:
        return (y[voxels] * weights[:, None]).T
    columns = torch.zeros((y.shape[1], reduce.shape[1]), device=y.device)
    for part in parts_of(len(voxels), y.shape[1]):
        problem.meter.product(y.shape[1], part.stop - part.start, reduce.shape[1])
        columns.addmm_(y[voxels[part]].T, weights[part, None] * reduce[voxels[part]])
    return columns


def _add(total: Tensor, solved: Tensor, voxels: Tensor, reduce: Tensor | None, meter: Meter) -> None:
    """Add the solution for :func:`_columns` to ``total`` (n_places, r)."""
    if reduce is None:
        total.index_add_(1, voxels, solved)
    elif len(voxels) < reduce.shape[1]:
        meter.product(len(solved), len(voxels), reduce.shape[1])
        total.addmm_(solved, reduce[voxels])
    else:
        total.add_(solved)


def _predict(
    problem: Problem,
    components: ComponentScores,
    candidate: int,
    scores: Tensor,
    inverses: Tensor,
    predicted: Tensor,
) -> None:
    """Add a candidate's weighted predictions of each fold's images, on patterns that did not see the fold."""
    size = problem.layout.size
    for f in range(problem.layout.n_folds):
        fold, block = slice(f * size, (f + 1) * size), components.block(f)
        weights = components.weights(candidate, f)
        if weights.any():
            left = residuals(scores[block, fold], inverses[f : f + 1], problem.meter)
            predicted[:, fold] += weights[:, None] * (components.scores[block, fold] - left)


def component_gains(
    components: ComponentScores, predicted: Tensor, layout: FoldLayout, n_voxels: int
) -> tuple[SharedMap, Tensor]:
    """Gains of the components, and what they predict of voxels out of fold.

    A pattern averages the noise of many voxels away, so its ridge regression can see more through its own
    penalty and windows than any voxel's can: reduced-rank regression with as many penalties as ranks. How
    much of a pattern is more than noise shows in the slope of measured on predicted scores of images that
    had no part in pattern or fit.

    Returns:
        Patterns with the gains of those that are kept, and (n_voxels, n_places) float32.
    """
    size, bases = layout.size, components.bases
    slopes = Slopes.none(components.n_outer, components.k)
    centres = [basis.response_mean @ basis.patterns for basis in bases]
    for f in range(components.n_outer):
        fold = slice(f * size, (f + 1) * size)
        measured = components.scores[components.block(f), fold] - centres[f][:, None]
        slopes.measure(f, predicted[:, fold] - centres[f][:, None], measured, layout.weights[fold])
    gains = slopes.gains()
    device = predicted.device
    voxels = torch.empty((n_voxels, layout.n_places), device=device)
    for f in range(layout.n_folds):
        fold, b = slice(f * size, (f + 1) * size), min(f, components.n_outer)
        of_fold = slopes.gains(without=f) if f < components.n_outer else gains
        factors = torch.from_numpy(of_fold.astype(np.float32)).to(device)
        scores = (predicted[:, fold] - centres[b][:, None]) * factors[:, None]
        voxels[:, fold] = torch.addmm(bases[b].response_mean[:, None], bases[b].patterns, scores)
    return SharedMap.of(bases[-1], gains), voxels
