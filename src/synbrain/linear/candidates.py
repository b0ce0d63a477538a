"""What the linear path chooses from: ridge regressions through windows, compared by cross-validation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from synbrain.features.tokens import TokenSet
from synbrain.linear.config import LinearPathConfig
from synbrain.linear.kernels import (
    LayerGrid,
    Window,
    blurred_grid,
    plain_grid,
    window_kernels,
    window_lattice,
)
from synbrain.linear.meter import Meter
from synbrain.linear.plain import is_kept, plain_kernel
from synbrain.linear.ridge import FoldInverses, FoldLayout, Ridge, largest_eigenvalue, residuals
from synbrain.linear.scratch import Scratch
from synbrain.linear.team import ALONE, Team

BLOCK_BYTES = 1 << 28  # what one block of voxels may take on its way
LEAST_WEIGHT = 1e-3  # of a candidate, relative to the best
# Exponent on the prior odds, in which the plain kernel weighs as much as all windows together. With a few
# tens of images the best of 26 windows is the luckiest; with hundreds this is a per cent of error.
PRIOR_TEMPER = 0.25


@dataclass(frozen=True)
class Kernel:
    """A kernel over all images.

    Attributes:
        grids, window: layers on their grids, and what is seen of them.
        factor: makes its mean diagonal 1.
        values: (n_places, n_places) float32 laid out by folds, often a memory map.
        largest: eigenvalue of ``values``.
    """

    grids: Sequence[LayerGrid]
    window: Window
    factor: float
    values: NDArray[np.float32]
    largest: float


@dataclass(frozen=True)
class Problem:
    """Ridge regressions from images to responses, and how they are compared.

    Attributes:
        kernels: candidates.
        layout: of all images.
        selected: (n_selected,) places of the images on which candidates are compared.
        selected_layout: of these.
        config: of the linear path; its ``n_folds`` is the number of folds there are.
        device: where arithmetic is done.
        meter: counts it.
        team: processes that share the voxels.
    """

    kernels: Sequence[Kernel]
    layout: FoldLayout
    selected: Tensor
    selected_layout: FoldLayout
    config: LinearPathConfig
    device: torch.device
    meter: Meter
    team: Team = ALONE

    def kernel(self, k: int) -> Tensor:
        """(n_places, n_places) float32 on the device."""
        return torch.from_numpy(np.asarray(self.kernels[k].values)).to(self.device)

    def ridge(self, k: int, alpha: float, kernel: Tensor) -> Ridge:
        """Ridge on all images with ``kernel`` of :meth:`kernel`."""
        return Ridge.fit(kernel, self.kernels[k].largest, alpha, self.layout, self.meter)


def candidate_windows(n_images: int, config: LinearPathConfig) -> list[Window]:
    """What is seen of the blurred tokens; none where there is nothing beside plain ridge on the tokens."""
    n_side = config.windows if config.windows is not None else (5 if n_images <= 600 else 3)
    if n_side == 0 and config.blur == 0:
        return []
    windows = [Window(), *window_lattice(n_side, config.window_sd)]
    for window in windows:  # too narrow ones are told before the work
        window.weights(config.side**2)
    return windows


def candidate_kernels(
    tokens: TokenSet,
    layout: FoldLayout,
    config: LinearPathConfig,
    scratch: Scratch,
    meter: Meter,
    team: Team = ALONE,
) -> list[Kernel]:
    """Plain ridge on the tokens first, then blurred tokens, whole and through each window."""
    device = layout.place.device
    plain = [plain_grid(tokens, layer) for layer in tokens.layers]
    room = _Room("plain", layout, scratch, meter, team)
    if team.world == 1 and is_kept(tokens):
        kernels = _laid_out(plain, [Window()], room, lambda: plain_kernel(tokens, plain, device, meter))
    else:
        kernels = _laid_out(plain, [Window()], room)
    windows = candidate_windows(len(tokens), config)
    if windows:
        side, blur = config.side, config.blur
        blurred = [blurred_grid(tokens, layer, scratch, side=side, blur=blur) for layer in tokens.layers]
        kernels += _laid_out(blurred, windows, replace(room, name="windows"))
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return kernels


@dataclass(frozen=True)
class _Room:
    """Where kernels of one kind go, and who makes them."""

    name: str
    layout: FoldLayout
    scratch: Scratch
    meter: Meter
    team: Team


def _laid_out(
    grids: Sequence[LayerGrid],
    windows: Sequence[Window],
    room: _Room,
    make: Callable[[], tuple[Tensor, list[float]]] | None = None,
) -> list[Kernel]:
    """The kernels, as an earlier process left them or new; ``make`` is another way to the same ones."""
    layout, scratch, name = room.layout, room.scratch, room.name
    known = scratch.finished(name)
    if known is not None:
        room.meter.catch_up(known["gflop"])
        stored = zip(windows, known["factors"], known["largest"], strict=True)
        return [
            Kernel(grids, window, factor, scratch.open(f"{name}-{i}"), largest)
            for i, (window, factor, largest) in enumerate(stored)
        ]
    if make is None:
        made, factors = window_kernels(grids, windows, layout.place.device, room.meter, room.team)
    else:
        made, factors = make()
    kernels = []
    for i, (window, factor, kernel) in enumerate(zip(windows, factors, made, strict=True)):
        laid = layout.lay_kernel(kernel)
        values = scratch.empty((layout.n_places, layout.n_places), np.float32, f"{name}-{i}")
        values[:] = laid.cpu().numpy()
        kernels.append(Kernel(grids, window, factor, values, largest_eigenvalue(laid)))
    largest = [kernel.largest for kernel in kernels]
    scratch.finish(name, {"factors": factors, "largest": largest, "gflop": room.meter.gflop})
    return kernels


@dataclass(frozen=True)
class Choice:
    """Candidates of each response with their weights, once from all folds and once without each.

    Attributes:
        candidate: (n_folds + 1, keep, n) int16, kernel times the number of penalties plus penalty. Row f
            leaves fold f's errors out, the last row none.
        weight: (n_folds + 1, keep, n) float32, sum 1 over candidates; 0 where fewer are kept.
    """

    candidate: Tensor
    weight: Tensor

    def used(self) -> list[int]:
        """Candidates that any response has a weight on, in order."""
        return [int(c) for c in torch.unique(self.candidate[self.weight > 0])]

    def of(self, candidate: int) -> tuple[Tensor, Tensor]:
        """Responses (k,) with a weight on it, and their weights (n_folds + 1, k)."""
        weights = torch.where(self.candidate == candidate, self.weight, 0).sum(dim=1)
        at = torch.nonzero(weights.any(dim=0))[:, 0]
        return at, weights[:, at]

    def row(self, fold: int, responses: slice) -> Choice:
        """Some responses with the candidates that one row gives them, as a choice of one row."""
        at = slice(fold, fold + 1) if fold >= 0 else slice(-1, None)
        return Choice(self.candidate[at, :, responses], self.weight[at, :, responses])


def choose(problem: Problem, responses: Tensor) -> Choice:
    """Compare all candidates on the selected images.

    Alphas that no response comes near to choosing with the first kernel are left out of the others.

    Args:
        problem: kernels, images and folds.
        responses: (n, n_places) float32.
    """
    n, config = len(responses), problem.config
    n_kernels, n_alphas, n_folds = len(problem.kernels), len(config.alphas), config.n_folds
    first = list(range(n_alphas))
    mine = problem.team.share(n)
    plain = torch.empty((n_folds, n_alphas, n), device=problem.device)
    for part in parts_of(mine.stop, problem.selected_layout.n_places * 4, mine.start):
        for a, errors in _errors(problem, responses[part], [0], first):
            plain[:, a, part] = errors
    problem.team.bring_together(plain, dim=2)
    tried = near_choice(plain.sum(dim=0))
    numbers = [*first, *(k * n_alphas + a for k in range(1, n_kernels) for a in tried)]
    candidates = torch.tensor(numbers, device=problem.device)
    keep = min(config.keep, len(candidates))
    index = torch.empty((n_folds + 1, keep, n), dtype=torch.int16, device=problem.device)
    weight = torch.empty((n_folds + 1, keep, n), device=problem.device)
    floats = problem.selected_layout.n_places * 4 + 3 * n_folds * len(candidates)
    for part in parts_of(mine.stop, floats, mine.start):
        errors = torch.empty((n_folds, len(candidates), part.stop - part.start), device=problem.device)
        errors[:, :n_alphas] = plain[:, :, part]
        for i, (_, of_window) in enumerate(_errors(problem, responses[part], range(1, n_kernels), tried)):
            errors[:, n_alphas + i] = of_window
        chosen = _choice(errors, problem)
        index[:, :, part], weight[:, :, part] = chosen.candidate, chosen.weight
    problem.team.bring_together(index, dim=2)
    problem.team.bring_together(weight, dim=2)
    return Choice(candidates[index.long()].to(torch.int16), weight)


def parts_of(stop: int, floats: int, start: int = 0) -> Iterator[slice]:
    """Blocks of the responses from ``start`` on, of which each takes ``floats`` values on its way."""
    step = max(64, BLOCK_BYTES // (4 * floats))
    return (slice(first, min(first + step, stop)) for first in range(start, stop, step))


def _errors(
    problem: Problem, responses: Tensor, kernels: Sequence[int], alphas: Sequence[int]
) -> Iterator[tuple[int, Tensor]]:
    """Yield (alpha's number, (n_folds, n) weighted squared errors of each fold), kernel by kernel."""
    layout, meter = problem.selected_layout, problem.meter
    y = layout.lay_columns(responses[:, problem.selected])
    for k in kernels:
        # the laid-out kernel of the selected images, read from the one of all images
        values = problem.kernels[k].values
        rows = problem.selected.cpu().numpy()
        kernel = layout.lay_kernel(torch.from_numpy(values[rows][:, rows]).to(problem.device))
        for a in alphas:
            ridge = Ridge.fit(kernel, problem.kernels[k].largest, problem.config.alphas[a], layout, meter)
            matrix = ridge.into_matrix(meter)
            inverses = FoldInverses.of(matrix, layout, 0, meter)
            meter.product(len(y), len(matrix), len(matrix))
            off = residuals(y @ matrix.float(), inverses.one, meter)
            squared = (off.square_() * layout.weights).view(len(y), layout.n_folds, layout.size)
            yield a, squared.sum(dim=2).T


def near_choice(errors: Tensor) -> list[int]:
    """Which rows of ``errors`` (n_alphas, n) 96 % of the columns choose from, and these rows' neighbours."""
    best = errors.argmin(dim=0).cpu().numpy()
    low, high = np.quantile(best, [0.02, 0.98]).round().astype(int)
    return list(range(max(0, low - 1), min(len(errors), high + 2)))


def _choice(errors: Tensor, problem: Problem) -> Choice:
    """From errors (n_folds, n_candidates, n); candidates are numbered as in ``errors``."""
    config, layout = problem.config, problem.selected_layout
    in_fold = layout.filled.view(layout.n_folds, layout.size).sum(dim=1)
    every = torch.arange(len(errors), device=errors.device)
    candidates, weights = [], []
    for left_out in range(len(errors) + 1):
        kept = every[every != left_out]
        n_images = int(in_fold[kept].sum())
        best, weight = candidate_weights(errors[kept].sum(dim=0), n_images, config, len(problem.kernels))
        candidates.append(best.to(torch.int16))
        weights.append(weight)
    return Choice(torch.stack(candidates), torch.stack(weights))


def candidate_weights(
    errors: Tensor, n_images: int, config: LinearPathConfig, n_kernels: int
) -> tuple[Tensor, Tensor]:
    """The best candidates, (keep, n), and their weights, which sum to 1.

    Pseudo-Bayesian averaging (Yao et al. 2018) with a tempered Gaussian pseudo-likelihood, and tempered prior
    odds of the plain kernel against each of the windows:
    ``weight ~ odds * exp(-temper * n_images / 2 * (error / least error - 1))``.

    Args:
        errors: (n_candidates, n); the plain kernel's come first, one for each penalty.
        n_images: that they were summed over.
        config: ``alphas``, ``temper`` and ``keep``.
        n_kernels: the plain one and the windows.
    """
    least = errors.amin(dim=0).clamp_min(1e-30)
    log_weight = -config.temper * n_images / 2 * (errors / least - 1)
    log_weight[: len(config.alphas)] += PRIOR_TEMPER * np.log(max(1, n_kernels - 1))
    best, index = torch.topk(log_weight, min(config.keep, len(errors)), dim=0)
    weight = torch.exp(best - best[:1])
    weight = torch.where(weight >= LEAST_WEIGHT, weight, 0)
    return index, weight / weight.sum(dim=0)
