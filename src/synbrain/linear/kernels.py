"""Kernels between images from their token grids: blurred, seen through windows, summed over layers.

A voxel answers to a part of the image, smoothly over neighbouring positions. In a linear model with weights
w(position, channel) that is a prior covariance of the weights over positions: blurring the grid makes
neighbours share weights, a Gaussian window keeps the weights near one place.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from synbrain.arrays import Float32
from synbrain.features.tokens import TokenSet

CHUNK_BYTES = 1 << 28


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
    rows: NDArray[np.int64]
    scale: float = 1.0

    @property
    def n_positions(self) -> int:
        return int(self.features.shape[1])

    def positions(self, which: NDArray[np.int64] | None = None) -> Iterator[tuple[int, Float32]]:
        """Yield (position, (n_images, dim) float32), centred over images and scaled."""
        wanted = np.arange(self.n_positions) if which is None else which
        per_position = len(self.rows) * self.features.shape[2] * 4
        step = max(1, CHUNK_BYTES // per_position)
        for start in range(0, len(wanted), step):
            at = wanted[start : start + step]
            span = slice(int(at[0]), int(at[-1]) + 1)  # one stretch of each row: few, long reads
            part = _widened(self.features[self.rows, span])
            for position in at:
                x = part[:, position - span.start]
                yield int(position), (x - x.mean(axis=0)) * np.float32(self.scale)


def plain_grid(tokens: TokenSet, layer: str) -> LayerGrid:
    """The tokens as they are, read from where they lie."""
    return _scaled(LayerGrid(layer, None, tokens.layers[layer], tokens.rows))


def blurred_grid(tokens: TokenSet, layer: str, *, side: int, blur: float, block: int = 64) -> LayerGrid:
    """A layer on a grid of at most ``side`` x ``side`` positions, float16, in memory.

    Args:
        tokens: the training images.
        layer: which layer.
        side: rows of the grid; smaller layers keep theirs.
        blur: sd of the Gaussian blur, as a share of the image's width.
        block: images at a time.
    """
    n_tokens, dim = tokens.shapes[layer]
    matrix = blur_matrix(n_tokens, side, blur)
    if matrix is None:
        return plain_grid(tokens, layer)
    features = np.empty((len(tokens), len(matrix), dim), dtype=np.float16)
    for start in range(0, len(tokens), block):
        rows = np.arange(start, min(start + block, len(tokens)))
        blurred = torch.matmul(torch.from_numpy(matrix), torch.from_numpy(tokens.read(layer, rows)))
        features[rows] = blurred.half().numpy()
    return _scaled(LayerGrid(layer, matrix, features, np.arange(len(tokens))))


def _scaled(grid: LayerGrid, most: int = 128) -> LayerGrid:
    """The grid with a scale from up to ``most`` images, evenly spaced: it need not be exact."""
    some = np.linspace(0, len(grid.rows) - 1, min(most, len(grid.rows))).astype(np.int64)
    sample = LayerGrid(grid.layer, grid.blur, grid.features, grid.rows[some])
    power = sum(float(np.vdot(x, x)) for _, x in sample.positions()) / len(some)
    scale = 1 / np.sqrt(max(power, 1e-30))
    return LayerGrid(grid.layer, grid.blur, grid.features, grid.rows, float(scale))


def _widened(values: NDArray[np.floating]) -> Float32:
    # torch widens float16 several times faster than numpy
    return np.asarray(torch.from_numpy(np.ascontiguousarray(values)).float().numpy())


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


@dataclass(frozen=True)
class Window:
    """A Gaussian over the image with its centre and sd as shares of the width; sd None: everything."""

    x: float = 0.5
    y: float = 0.5
    sd: float | None = None

    def weights(self, n_positions: int) -> Float32:
        """(n_positions,) float32, sum 1; even where positions form no square grid."""
        rows = round(np.sqrt(n_positions))
        if self.sd is None or rows**2 != n_positions:
            return np.full(n_positions, 1 / n_positions, dtype=np.float32)
        at = (np.arange(rows) + 0.5) / rows
        down, across = (np.exp(-((at - c) ** 2) / (2 * self.sd**2)) for c in (self.y, self.x))
        product = np.outer(down, across).ravel()
        product[product < 1e-3 * product.max()] = 0  # not worth the arithmetic
        return np.asarray(product / product.sum(), dtype=np.float32)


def window_lattice(n_side: int, sd: float) -> list[Window]:
    """Windows centred on a lattice of ``n_side`` x ``n_side`` in the inner 60 % of the image."""
    centres = np.linspace(0.2, 0.8, n_side) if n_side > 1 else np.full(n_side, 0.5)
    return [Window(float(x), float(y), sd) for y in centres for x in centres]


def position_kernels(grids: list[LayerGrid]) -> dict[int, Float32]:
    """Kernels of single positions over all images, summed over the layers that have as many positions.

    Returns:
        number of positions -> (n_positions, n_images, n_images) float32.
    """
    kernels: dict[int, Float32] = {}
    for grid in grids:
        n_images = len(grid.rows)
        shape = (grid.n_positions, n_images, n_images)
        held = kernels.setdefault(grid.n_positions, np.zeros(shape, dtype=np.float32))
        for position, x in grid.positions():
            held[position] += x @ x.T
    return kernels


def seen_through(kernels: dict[int, Float32], window: Window) -> tuple[Float32, float]:
    """What :func:`window_kernel` gives, from kernels of single positions."""
    total = np.asarray(sum(np.tensordot(window.weights(n), held, axes=1) for n, held in kernels.items()))
    factor = 1 / mean_diagonal(total)
    return total * np.float32(factor), factor


def window_kernel(grids: list[LayerGrid], window: Window) -> tuple[Float32, float]:
    """Kernel over all images through one window, mean diagonal 1, and the factor that made it so.

    Args:
        grids: layers.
        window: what is seen.

    Returns:
        (n_images, n_images) float32, and the factor.
    """
    n_images = len(grids[0].rows)
    kernel = np.zeros((n_images, n_images), dtype=np.float32)
    for grid in grids:
        weights = window.weights(grid.n_positions)
        for position, x in grid.positions(np.flatnonzero(weights)):
            seen = x * np.sqrt(weights[position])
            kernel += seen @ seen.T
    factor = 1 / mean_diagonal(kernel)
    return kernel * np.float32(factor), factor


def mean_diagonal(kernel: Float32) -> float:
    """Mean diagonal of a kernel after centring over its images."""
    n_images = len(kernel)
    centred = float(np.trace(kernel, dtype=np.float64)) - float(kernel.sum(dtype=np.float64)) / n_images
    return max(centred / n_images, 1e-30)


def projection(
    grids: list[LayerGrid], windows: Sequence[tuple[Window, float, NDArray[np.floating]]]
) -> dict[str, NDArray[np.float64]]:
    """Weights on the tokens from dual weights on the images.

    Args:
        grids: layers of the kernels.
        windows: window, its kernel's factor, and dual weights (n_images, r).

    Returns:
        layer -> (n_tokens, dim, r) float64, to be applied to tokens as they come from the encoder.
    """
    found = {}
    for grid in grids:
        seen = np.stack([window.weights(grid.n_positions) * factor for window, factor, _ in windows])
        weights = np.empty((grid.n_positions, grid.features.shape[2], windows[0][2].shape[1]))
        for position, x in grid.positions():
            dual = sum(seen[i, position] * held for i, (_, _, held) in enumerate(windows))
            weights[position] = grid.scale * (x.T @ np.asarray(dual, dtype=np.float32))
        if grid.blur is not None:
            weights = np.einsum("pt,pdr->tdr", grid.blur, weights, optimize=True)
        found[grid.layer] = weights
    return found
