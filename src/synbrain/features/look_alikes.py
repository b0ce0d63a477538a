"""Images that look alike, by their tokens: copies of one picture, blurred or masked or stored twice.

What is left out of a fit to be judged by must be new to it. An image whose copy stays in the fit is not:
cross-validation over single images then reports errors that no new picture will have. Families of images that
look alike therefore go into one fold, or to one side of a split.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from synbrain.arrays import Float32, Rows

# Cosines of centred tokens, mean over layers. Blurred copies are at .8 to 1; the nearest other photograph is
# at .3 to .5. Where a family at one of them would hold too many images, its pictures differ in little: they
# are told apart at the next. Other families stay, or one set of gratings would hide every copied photograph.
ALIKE = (0.8, 0.9, 0.97)
LARGEST = 0.1  # share of the images that a family may hold
GRID, A_CELL, CHANNELS, BLOCK = 4, 4, 128, 256


def coarse_grid(n_tokens: int) -> Float32:
    """(n_cells, n_tokens) mean over the cells of a coarse grid, or over all where there is no grid."""
    side = round(n_tokens**0.5)
    if side * side != n_tokens or side < 2:
        return np.full((1, n_tokens), 1.0 / n_tokens, dtype=np.float32)
    cells = min(GRID, side)
    of = np.arange(side) * cells // side
    cell = (of[:, None] * cells + of[None]).ravel()
    pool = (np.arange(cells * cells)[:, None] == cell).astype(np.float32)
    return np.asarray(pool / pool.sum(axis=1, keepdims=True), dtype=np.float32)


def families(layers: Mapping[str, NDArray[np.floating]], rows: Rows, alike: Sequence[float] = ALIKE) -> Rows:
    """(n_images,) number of each image's family; images that look like no other have one of their own.

    Two images are of one family where they look alike, or where others between them do. Families are numbered
    by their first image.

    Args:
        layers: layer -> (n_stored, n_tokens, dim) tokens, often memory maps, of which each is read once.
        rows: (n_images,) stored rows of the images.
        alike: least cosines; families that are too large at one are parted at the next, and after the last.

    >>> tokens = np.random.default_rng(0).standard_normal((40, 9, 8))
    >>> tokens[7] = 1.01 * tokens[3]
    >>> found = families({"final": tokens}, np.arange(40))
    >>> len(set(found.tolist())), int(found[7]) == int(found[3])
    (39, True)
    """
    n = len(rows)
    largest = int(LARGEST * n)
    family = np.arange(n, dtype=np.int64)
    if not layers or largest < 2:
        return family
    seen = torch.cat([_directions(tokens, rows) for tokens in layers.values()], dim=1) / len(layers) ** 0.5
    too_large = [family.copy()]
    for least in alike:
        groups, too_large = too_large, []
        for group in groups:
            part = _connected(seen if len(group) == n else seen[group], least)
            _, first, size = np.unique(part, return_index=True, return_counts=True)
            family[group] = group[first[part]]
            too_large += [group[part == k] for k in np.flatnonzero(size > largest)]
    for group in too_large:
        family[group] = group
    return np.unique(family, return_inverse=True)[1].astype(np.int64)


def _directions(tokens: NDArray[np.floating], rows: Rows) -> torch.Tensor:
    """(n_images, d) float32 of length 1: centred tokens, small; 0 for an image like the mean."""
    _, n_tokens, dim = tokens.shape
    at, pool = _some_tokens(coarse_grid(n_tokens))
    narrow = None
    if dim > CHANNELS:
        drawn = np.random.default_rng(0).standard_normal((dim, CHANNELS), dtype=np.float32)
        narrow = torch.from_numpy(drawn)
    parts = []
    for start in range(0, len(rows), BLOCK):
        read = np.stack([tokens[row][at] for row in rows[start : start + BLOCK]])
        small = torch.matmul(pool, torch.from_numpy(read).float())
        parts.append((small if narrow is None else small @ narrow).flatten(1))
    x = torch.cat(parts)
    x -= x.mean(dim=0)
    return torch.nn.functional.normalize(x, dim=1)


def _some_tokens(pool: Float32) -> tuple[Rows, torch.Tensor]:
    """Which tokens are read, a few of each cell, and means over those: most of a large file stays unread."""
    cells = [np.flatnonzero(cell) for cell in pool]
    chosen = [
        cell[np.linspace(0, len(cell) - 1, min(A_CELL, len(cell))).round().astype(int)] for cell in cells
    ]
    at = np.unique(np.concatenate(chosen))
    means = np.stack([np.isin(at, cell) / len(cell) for cell in chosen])
    return at.astype(np.int64), torch.from_numpy(means.astype(np.float32))


def _connected(seen: torch.Tensor, least: float) -> Rows:
    """(n_images,) number, from 0, of what each image is connected to at one cosine."""
    part = np.arange(len(seen), dtype=np.int64)
    for start in range(0, len(seen), BLOCK):
        of_block = part[start : start + BLOCK]
        alike = (seen[start : start + BLOCK] @ seen[start:].T > least).numpy()
        one, two = np.nonzero(alike & (of_block[:, None] != part[start:]))  # not connected as yet
        if len(one):
            pairs = of_block[one], part[start:][two]
            graph = coo_matrix((np.ones(len(one), dtype=bool), pairs), shape=(len(seen), len(seen)))
            part = connected_components(graph, directed=False)[1].astype(np.int64)[part]
    return np.unique(part, return_inverse=True)[1].astype(np.int64)


def n_alike(family: Rows) -> int:
    """How many images look like another one."""
    size = np.bincount(family)
    return int(size[size > 1].sum())


def about_families(family: Rows) -> dict[str, float | None]:
    """For a run's card: how many images share a fold with one that they look like, if any does."""
    n = n_alike(family)
    return {"images_that_look_like_another_and_share_its_fold": n} if n else {}


def least_marks(marks: Sequence[bytes], family: Rows) -> dict[bytes, bytes]:
    """Mark of each image -> the least mark of its family, which stands for all of it on any machine."""
    numbers = dict(zip(marks, family.tolist(), strict=True))
    least: dict[int, bytes] = {}
    for mark in sorted(marks):
        least.setdefault(numbers[mark], mark)
    return {mark: least[number] for mark, number in numbers.items()}


def most_folds(family: Rows) -> int:
    """Folds that are about even: none need be smaller than the largest family, nor is any empty."""
    size = np.bincount(family)
    return max(len(family) // int(size.max()), min(2, int(np.count_nonzero(size))))


def folds_of(family: Rows, n_folds: int, seed: int) -> Rows:
    """(n_images,) fold of each image; sizes are equal to one where every image is a family of its own.

    Args:
        family: (n_images,) of :func:`families`; a family is never parted.
        n_folds: at most the number of families.
        seed: of the draw.
    """
    order = np.random.default_rng(seed).permutation(len(family))
    size = np.bincount(family)
    first = order[np.sort(np.unique(family[order], return_index=True)[1])]  # of each family, as drawn
    fold, filled = np.zeros(len(size), dtype=np.int64), np.zeros(n_folds, dtype=np.int64)
    for image in first[np.argsort(-size[family[first]], kind="stable")]:  # large ones first: even folds
        to = int(np.argmin(filled))
        fold[family[image]] = to
        filled[to] += size[family[image]]
    return fold[family]


def held_out(family: Rows, n_held: int, seed: int) -> Rows:
    """Rows of ``n_held`` images or a few more, ascending, drawn by whole families.

    Args:
        family: (n_images,) of :func:`families`.
        n_held: at least 1, fewer than there are images.
        seed: of the draw.
    """
    drawn = family[np.random.default_rng(seed).permutation(len(family))]
    _, firsts, counts = np.unique(drawn, return_index=True, return_counts=True)
    in_turn = np.argsort(firsts)
    n_families = 1 + int(np.searchsorted(np.cumsum(counts[in_turn]), n_held))
    chosen = drawn[firsts[in_turn[:n_families]]]
    return np.flatnonzero(np.isin(family, chosen)).astype(np.int64)
