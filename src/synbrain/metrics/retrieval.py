"""Top-1 retrieval among n candidates, with the side that is ranked said in the name of the argument.

A *query* is compared with *candidates*; the candidates are ranked. "Images for each brain response" and
"brain responses for each image" are two directions with different scores: :func:`both_directions`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from synbrain.arrays import Float64
from synbrain.metrics.device import Device, host, on
from synbrain.metrics.voxel import blocks

N_WAY, N_SUBSETS = 300, 30  # the published protocol


def cosine_matrix(
    queries: NDArray[Any], candidates: NDArray[Any], *, centre: bool = False, device: Device = "cpu"
) -> Float64:
    """Cosine similarity (Pearson with ``centre``) of every query with every candidate.

    Args:
        queries: (n, ...) values, flattened per item and read in blocks of values.
        candidates: (m, ...) values of the same size per item.
        centre: subtract each item's own mean first.
        device: where products are made.

    Returns:
        (n, m) float64; 0 where an item is all zero (or constant, with ``centre``).
    """
    left, right = queries.reshape(len(queries), -1), candidates.reshape(len(candidates), -1)
    width = left.shape[1]
    if right.shape[1] != width:
        raise ValueError(f"items of different size: {queries.shape} and {candidates.shape}")
    products: Any = on(np.zeros((len(left), len(right))), device)
    sums, squares = [np.zeros(len(left)), np.zeros(len(right))], [np.zeros(len(left)), np.zeros(len(right))]
    for columns in blocks(width, len(left) + len(right)):
        sides = [on(side[:, columns], device) for side in (left, right)]
        products += sides[0] @ sides[1].T
        for k, side in enumerate(sides):
            sums[k] += host(side.sum(1))
            squares[k] += host((side**2).sum(1))
    products = host(products)
    centred = [square.copy() for square in squares]
    if centre:
        products -= np.outer(sums[0], sums[1]) / width
        centred = [square - total**2 / width for square, total in zip(squares, sums, strict=True)]
    # a variance below rounding of the squares it is the difference of is none
    scale = [
        np.where(o > 1e-12 * s, 1 / np.sqrt(np.where(o > 1e-12 * s, o, 1.0)), 0.0)
        for o, s in zip(centred, squares, strict=True)
    ]
    return np.asarray(products * scale[0][:, None] * scale[1], dtype=np.float64)


def top1(similarity: Float64, *, n_way: int = N_WAY, n_subsets: int = N_SUBSETS, seed: int = 0) -> float:
    """Share of queries whose own candidate is the most similar of ``n_way``, over random subsets.

    Args:
        similarity: (n, n), row i is query i, column j candidate j; i belongs to i.
        n_way: size of a subset of items; all items, once, where there are no more than that.
        n_subsets: number of random subsets, each without replacement.
        seed: of the subsets.

    Returns:
        In [0, 1]; chance is 1 / (candidates per subset). A tie between k candidates counts 1 / k, so that
        a constant prediction scores exactly chance.
    """
    n = len(similarity)
    if similarity.shape != (n, n):
        raise ValueError(f"one candidate per query, got a similarity of shape {similarity.shape}")
    if n <= n_way:
        return float(np.mean(_hits(similarity)))
    generator = np.random.default_rng(seed)
    shares = []
    for _ in range(n_subsets):
        subset = generator.choice(n, size=n_way, replace=False)
        shares.append(np.mean(_hits(similarity[np.ix_(subset, subset)])))
    return float(np.mean(shares))


def _hits(similarity: Float64) -> Float64:
    best = similarity.max(axis=1, keepdims=True)
    tied = similarity >= best - 1e-12
    return np.asarray(np.diagonal(tied) / tied.sum(axis=1), dtype=np.float64)


def both_directions(
    similarity: Float64, *, n_way: int = N_WAY, n_subsets: int = N_SUBSETS, seed: int = 0
) -> tuple[float, float]:
    """(columns ranked for each row, rows ranked for each column), each as :func:`top1`."""
    forward = top1(similarity, n_way=n_way, n_subsets=n_subsets, seed=seed)
    backward = top1(similarity.T, n_way=n_way, n_subsets=n_subsets, seed=seed)
    return forward, backward


def response_similarity(
    synthetic: NDArray[Any],
    measured: NDArray[Any],
    mean: NDArray[Any],
    sd: NDArray[Any],
    device: Device = "cpu",
) -> Float64:
    """Pearson across z-scored voxels between every synthetic and every measured response.

    Both sides are z-scored with the *training* mean and sd of each voxel, so that neither the static mean
    map nor the loudest voxels decide. Not circular: no model stands between the two sides.

    Args:
        synthetic, measured: (n_images, n_voxels), one unit.
        mean, sd: (n_voxels,) of the training trials; voxels of zero sd are left out.
        device: where products are made.

    Returns:
        (n_images, n_images) float64; rows are synthetic, columns measured.
    """
    used = np.asarray(sd) > 0
    scale = np.asarray(sd, dtype=np.float64)[used]
    offset = np.asarray(mean, dtype=np.float64)[used]
    sides = [((side[:, used] - offset) / scale).astype(np.float32) for side in (synthetic, measured)]
    return cosine_matrix(sides[0], sides[1], centre=True, device=device)


def response_retrieval(
    synthetic: NDArray[Any],
    measured: NDArray[Any],
    mean: NDArray[Any],
    sd: NDArray[Any],
    device: Device = "cpu",
) -> tuple[float, float]:
    """Top-1 among all test images, in both directions; arguments as :func:`response_similarity`.

    Returns:
        (measured responses ranked for each synthetic one, synthetic ranked for each measured one).
    """
    similarity = response_similarity(synthetic, measured, mean, sd, device)
    return both_directions(similarity, n_way=len(similarity))
