"""Kernels between images from their token grids: blurred, seen through windows, summed over layers.

A voxel answers to a part of the image, smoothly over neighbouring positions. In a linear model with weights
w(position, channel) that is a prior covariance of the weights over positions: blurring the grid makes
neighbours share weights, a Gaussian window keeps the weights near one place.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from synbrain.arrays import Float32, Rows
from synbrain.errors import SynBrainError
from synbrain.features.tokens import TokenSet
from synbrain.linear.meter import Meter
from synbrain.linear.scratch import Scratch
from synbrain.linear.team import ALONE, Team

CHUNK_BYTES = 1 << 27  # float32 features that are in memory at a time
TILE = 256  # images a side of the tiles in which symmetric products are made


@dataclass(frozen=True)
class LayerGrid:
    """One layer's tokens on the grid of the kernels.

    Attributes:
        layer: the layer's name.
        blur: (n_positions, n_tokens) float32, from tokens to positions; None: every token as it is.
        features: (n_stored, n_positions, dim) float16 or float32.
        rows: (n_images,) rows of ``features``.
        scale: makes the layer's kernel, summed over all positions, of mean diagonal 1.
    """

    layer: str
    blur: Float32 | None
    features: NDArray[np.floating]
    rows: Rows
    scale: float = 1.0

    @property
    def n_positions(self) -> int:
        return int(self.features.shape[1])

    @property
    def dim(self) -> int:
        return int(self.features.shape[2])

    def stretches(self, device: torch.device, team: Team = ALONE) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Yield (first position, (n_images, some positions, dim) float32, their mean before scaling).

        Features are centred over images and scaled; the next stretch takes their memory. Neighbouring
        positions lie side by side in a row of the store: few, long reads. Of several processes each takes
        every so many stretches.
        """
        step = max(1, CHUNK_BYTES // (len(self.rows) * self.dim * 4))
        step = min(step, -(-self.n_positions // team.world))
        room = torch.empty(len(self.rows) * step * self.dim, device=device)
        for start in range(0, self.n_positions, step):
            if not team.takes(start // step):
                continue
            part = torch.from_numpy(np.ascontiguousarray(self.features[self.rows, start : start + step]))
            x = room[: part.numel()].view(part.shape)
            x.copy_(part)  # torch widens float16 several times faster than numpy
            del part
            mean = x.mean(dim=0)
            yield start, x.sub_(mean).mul_(self.scale), mean


def plain_grid(tokens: TokenSet, layer: str) -> LayerGrid:
    """The tokens as they are, read from where they lie."""
    return _scaled(LayerGrid(layer, None, tokens.layers[layer], tokens.rows))


def blurred_grid(
    tokens: TokenSet, layer: str, scratch: Scratch, *, side: int, blur: float, block: int = 64
) -> LayerGrid:
    """A layer on a grid of at most ``side`` x ``side`` positions, float16 where its tokens are.

    Args:
        tokens: the training images.
        layer: which layer.
        scratch: where the blurred tokens are kept.
        side: rows of the grid; smaller layers keep theirs.
        blur: sd of the Gaussian blur, as a share of the image's width.
        block: images at a time.
    """
    n_tokens, dim = tokens.shapes[layer]
    matrix = blur_matrix(n_tokens, side, blur)
    if matrix is None:
        return plain_grid(tokens, layer)
    name = f"blurred-{list(tokens.layers).index(layer)}"
    if scratch.finished(name) is not None:
        features = scratch.open(name)
    else:
        stored = tokens.layers[layer].dtype  # what float32 holds may be more than 65504, or less than 6e-8
        dtype = np.float16 if stored == np.float16 else np.float32
        features = scratch.empty((len(tokens), len(matrix), dim), dtype, name)
        for start in range(0, len(tokens), block):
            rows = slice(start, start + block)
            read = torch.from_numpy(np.ascontiguousarray(tokens.layers[layer][tokens.rows[rows]]))
            features[rows] = torch.matmul(torch.from_numpy(matrix), read.float()).numpy()
        scratch.finish(name, {})
    return _scaled(LayerGrid(layer, matrix, features, np.arange(len(tokens))))


def _scaled(grid: LayerGrid, most: int = 128) -> LayerGrid:
    """The grid with a scale from up to ``most`` images, evenly spaced: it need not be exact."""
    some = np.linspace(0, len(grid.rows) - 1, min(most, len(grid.rows))).astype(np.int64)
    sample = replace(grid, rows=grid.rows[some])
    power = sum(float(x.square().sum()) for _, x, _ in sample.stretches(torch.device("cpu"))) / len(some)
    return replace(grid, scale=float(1 / np.sqrt(max(power, 1e-30))))


def blur_matrix(n_tokens: int, side: int, blur: float) -> Float32 | None:
    """(n_positions, n_tokens) float32, rows sum to 1: Gaussian weights of tokens around each position.

    None where tokens form no square grid, or there is nothing to do.
    """
    rows = round(np.sqrt(n_tokens))
    if rows**2 != n_tokens or (blur <= 0 and rows <= side):
        return None
    kept = min(rows, side)
    sd = max(blur, 0.25 / kept)  # a coarser grid needs some blur, or it would skip tokens
    at, of = (np.arange(kept) + 0.5) / kept, (np.arange(rows) + 0.5) / rows
    weights = np.exp(-((at[:, None] - of[None]) ** 2) / (2 * sd**2))
    weights /= weights.sum(axis=1, keepdims=True)
    return np.kron(weights, weights).astype(np.float32)


NARROW = 1e-200  # of a window at the position nearest to its centre; float64 ends at 1e-308


@dataclass(frozen=True)
class Window:
    """A Gaussian over the image with its centre and sd as shares of the width; sd None: everything."""

    x: float = 0.5
    y: float = 0.5
    sd: float | None = None

    def weights(self, n_positions: int) -> Float32:
        """(n_positions,) float32, sum 1; even where positions form no square grid.

        Raises:
            SynBrainError: where the window is so narrow that no position is in it.
        """
        rows = round(np.sqrt(n_positions))
        if self.sd is None or rows**2 != n_positions:
            return np.full(n_positions, 1 / n_positions, dtype=np.float32)
        at = (np.arange(rows) + 0.5) / rows
        with np.errstate(over="ignore"):
            down, across = (np.exp(-(((at - c) / self.sd) ** 2) / 2) for c in (self.y, self.x))
        product = np.outer(down, across).ravel()
        if product.max() < NARROW:  # beyond it float64 has 0
            raise SynBrainError(
                f"windows of sd {self.sd:g} lie between the positions of a grid of {rows} x {rows}",
                f"give --linear.window-sd of at least {0.25 / rows:.2g}, or --linear.windows 0 for none",
            )
        product[product < 1e-3 * product.max()] = 0  # not worth the arithmetic
        return np.asarray(product / product.sum(), dtype=np.float32)


def window_lattice(n_side: int, sd: float) -> list[Window]:
    """Windows centred on a lattice of ``n_side`` x ``n_side`` in the inner 60 % of the image."""
    centres = np.linspace(0.2, 0.8, n_side) if n_side > 1 else np.full(n_side, 0.5)
    return [Window(float(x), float(y), sd) for y in centres for x in centres]


def window_kernels(
    grids: Sequence[LayerGrid],
    windows: Sequence[Window],
    device: torch.device,
    meter: Meter,
    team: Team = ALONE,
) -> tuple[Tensor, list[float]]:
    """``K_w = factor_w * sum over layers and positions p of w(p) X_p X_p'``, of mean diagonal 1.

    Every position is read once, and multiplied once for all windows.

    Returns:
        (n_windows, n_images, n_images) float32 on ``device``, and the factors.
    """
    n_images = len(grids[0].rows)
    kernels = torch.zeros((len(windows), n_images, n_images), device=device)
    for grid in grids:
        weights = np.stack([window.weights(grid.n_positions) for window in windows])
        for start, x, _ in grid.stretches(device, team):
            part = weights[:, start : start + x.shape[1]]
            if len(windows) == 1:  # sqrt(w(p)) on the features: all positions in one product
                flat = x.mul_(torch.from_numpy(np.sqrt(part[0])).to(device)[:, None]).flatten(1)
                add_gram(kernels, flat, np.ones(1), meter)
            else:
                for i in np.flatnonzero(part.any(axis=0)):
                    add_gram(kernels, x[:, i], part[:, i], meter)
    team.add_up(kernels)
    factors = []
    for kernel in kernels:
        mirror(kernel)
        factors.append(1 / mean_diagonal(kernel))
        kernel.mul_(factors[-1])
    return kernels, factors


def add_gram(kernels: Tensor, x: Tensor, weights: NDArray[np.floating], meter: Meter) -> None:
    """Add ``weights_w * x x'`` to each kernel, on and above the diagonal of tiles alone.

    Args:
        kernels: (n_windows, n, n) float32, changed in place.
        x: (n, d) float32.
        weights: (n_windows,).
        meter: counts.
    """
    n, d = x.shape
    seeing = np.flatnonzero(weights)
    for start in range(0, n, TILE):
        rows = slice(start, min(start + TILE, n))
        if len(weights) == 1:
            kernels[0, rows, start:].addmm_(x[rows], x[start:].T, alpha=float(weights[0]))
        else:
            product = x[rows] @ x[start:].T
            for w in seeing:
                kernels[w, rows, start:].add_(product, alpha=float(weights[w]))
        meter.product(rows.stop - rows.start, d, n - start)


def mirror(kernel: Tensor) -> None:
    """Copy what is above the diagonal of tiles to below it, in place."""
    for start in range(0, len(kernel), TILE):
        stop = start + TILE
        kernel[stop:, start:stop] = kernel[start:stop, stop:].T


def mean_diagonal(kernel: Tensor) -> float:
    """Mean diagonal of a kernel after centring over its images."""
    n_images = len(kernel)
    total = kernel.sum(dim=1, dtype=torch.float64).sum()
    centred = kernel.diagonal().sum(dtype=torch.float64) - total / n_images
    return max(float(centred) / n_images, 1e-30)


@dataclass(frozen=True)
class Dual:
    """Dual weights (n_images, r) float32 on the kernel of ``grids`` through ``window``, times ``factor``."""

    grids: Sequence[LayerGrid]
    window: Window
    factor: float
    weights: Tensor


def projection(
    duals: Sequence[Dual], device: torch.device, meter: Meter, scratch: Scratch
) -> dict[str, Tensor]:
    """Weights on the tokens from dual weights on the images.

    ``W_p = scale * X_p' sum over windows of factor_w w(p) dual_w`` at each position, then through the blur
    to tokens.

    Args:
        duals: all of one rank r.
        device: where products are made.
        meter: counts.
        scratch: where what is returned lies.

    Returns:
        layer -> (n_tokens * dim, r) float32, to be applied to tokens as they come from the encoder.
    """
    groups: dict[int, list[Dual]] = {}
    for dual in duals:
        groups.setdefault(id(dual.grids), []).append(dual)
    weights: dict[str, Tensor] = {}
    for members in groups.values():
        for grid in members[0].grids:
            r = members[0].weights.shape[1]
            on_positions = scratch.tensor((grid.n_positions, grid.dim, r), device)
            _fill_positions(on_positions, grid, members, meter)
            known = weights.get(grid.layer)
            if grid.blur is None:
                added = on_positions.flatten(0, 1)
                weights[grid.layer] = added if known is None else known.add_(added)
                continue
            n_tokens = grid.blur.shape[1]
            if known is None:
                known = weights[grid.layer] = scratch.tensor((n_tokens * grid.dim, r), device).zero_()
            blur = torch.from_numpy(grid.blur).to(device)
            known.view(n_tokens, -1).addmm_(blur.T, on_positions.flatten(1))
            meter.product(n_tokens, grid.n_positions, grid.dim * r)
    return weights


def _fill_positions(out: Tensor, grid: LayerGrid, duals: Sequence[Dual], meter: Meter) -> None:
    """Weights (n_positions, dim, r) float32."""
    n_images, r = duals[0].weights.shape
    seen = [dual.window.weights(grid.n_positions) * dual.factor for dual in duals]
    for start, x, _ in grid.stretches(out.device):
        for i in range(x.shape[1]):
            here = [
                (dual.weights, float(weights[start + i]) * grid.scale)
                for dual, weights in zip(duals, seen, strict=True)
                if weights[start + i]
            ]
            if len(here) == 1:  # the plain kernel's at every token: nothing to sum
                (total, factor), *_ = here
            else:
                total, factor = torch.zeros((n_images, r), device=out.device), 1.0
                for weights, share in here:
                    total.add_(weights, alpha=share)
            torch.addmm(out[start + i], x[:, i].T, total, beta=0, alpha=factor, out=out[start + i])
            meter.product(grid.dim, n_images, r)
