"""Image features for the label checks: stored tokens made small, or plain statistics of the pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from synbrain.data.dataset import Dataset
from synbrain.features.look_alikes import GRID, coarse_grid
from synbrain.progress import track

N_FEATURES, SIDE = 100, 64
PROJECTED = 64  # channels that tokens are projected to before their principal components
BLOCK = 256


def few_features(values: NDArray[np.floating], n_features: int = N_FEATURES) -> NDArray[np.float32]:
    """(n, d) -> (n, at most ``n_features``) principal components, fewer where images are few.

    No more than a fifth as many as images: ridge on few images needs few features.
    """
    centred = np.asarray(values, dtype=np.float32)
    centred = centred - centred.mean(axis=0)
    k = int(min(n_features, centred.shape[1], max(1, len(centred) // 5)))
    if len(centred) < centred.shape[1]:  # the smaller of the two products has the same eigenvalues
        values, vectors = np.linalg.eigh(np.asarray(centred @ centred.T, dtype=np.float64))
        scores = vectors * np.sqrt(np.maximum(values, 0.0))
        return np.asarray(scores[:, ::-1][:, :k], dtype=np.float32)
    _, vectors = np.linalg.eigh(np.asarray(centred.T @ centred, dtype=np.float64))
    return np.asarray(centred @ vectors[:, ::-1][:, :k].astype(np.float32))


def summarise_tokens(
    tokens: NDArray[np.floating], rows: NDArray[np.int64], seed: int = 0, show_progress: bool = False
) -> NDArray[np.float32]:
    """Tokens as few features: a coarse grid of means, channels projected at random, principal components.

    Args:
        tokens: (n_stored, n_tokens, dim), often a memory map; a square number of tokens is a square grid.
        rows: (n_images,) the stored rows of the images.
        seed: of the projection.
        show_progress: show a bar.

    Returns:
        (n_images, at most ``N_FEATURES``) float32.
    """
    _, n_tokens, dim = tokens.shape
    projection = np.random.default_rng(seed).standard_normal((dim, min(PROJECTED, dim)))
    projection = (
        (projection / np.sqrt(dim)).astype(np.float32) if dim > PROJECTED else np.eye(dim, dtype="f4")
    )
    pool = coarse_grid(n_tokens)
    parts = []
    for start in track(range(0, len(rows), BLOCK), "read tokens", unit="block", show=show_progress):
        block = np.asarray(tokens[rows[start : start + BLOCK]], dtype=np.float32)
        pooled = np.einsum("gt,ntd->ngd", pool, block, optimize=True)
        parts.append((pooled @ projection).reshape(len(block), -1))
    return few_features(np.concatenate(parts))


def image_statistics(dataset: Dataset, show_progress: bool = False) -> NDArray[np.float32]:
    """Plain statistics of every image: colour and contrast energy at three scales on a coarse grid.

    They predict early visual responses well enough to see whether images and responses go together, and
    need no encoder.

    Returns:
        (n_images, at most ``N_FEATURES``) float32.

    Raises:
        SynBrainError: where an image cannot be read.
    """
    rows = track(range(dataset.n_images), "look at images", unit="image", show=show_progress)
    return few_features(np.stack([_statistics(dataset.load_image(row)) for row in rows]))


def _statistics(image: Image.Image) -> NDArray[np.float32]:
    pixels = np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BOX), dtype=np.float32) / 255
    cells = [_cells(pixels)]
    grey = pixels.mean(axis=2)
    for _ in range(3):
        right, down = np.diff(grey, axis=1)[:-1], np.diff(grey, axis=0)[:, :-1]
        slopes = np.stack([right, down, (right + down) / 2, (right - down) / 2], axis=2)
        # Log contrast energy in four orientations, as simple models of V1 have it.
        cells.append(np.log(_cells(np.abs(slopes)) + 1e-3))
        grey = (grey[::2, ::2] + grey[1::2, ::2] + grey[::2, 1::2] + grey[1::2, 1::2]) / 4
    return np.concatenate([part.ravel() for part in cells])


def _cells(maps: NDArray[np.floating]) -> NDArray[np.float32]:
    """(h, w, c) -> (GRID, GRID, c) means."""
    edges = [np.linspace(0, n, GRID + 1).astype(int)[:-1] for n in maps.shape[:2]]
    counts = np.outer(*[np.diff([*edge, n]) for edge, n in zip(edges, maps.shape[:2], strict=True)])
    sums = np.add.reduceat(np.add.reduceat(maps, edges[0], axis=0), edges[1], axis=1)
    return np.asarray(sums / counts[:, :, None], dtype=np.float32)
