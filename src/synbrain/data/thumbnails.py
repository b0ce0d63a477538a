"""Small grey versions of pictures: one picture is known by them in another encoding or size.

A grey square of 32 pixels says which picture it is: JPEG keeps brightness and blurs colour. Two are of one
picture where they agree coarsely, on 16 x 16 pixels, and correlate on all 32 x 32.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from synbrain.arrays import Float32

SIDE, COARSE_SIDE = 32, 16
METHOD = "2"  # of :func:`thumbnail`; 1 took cells of whole pixels. Kept thumbnails of another are made again
ALIKE = 0.98  # correlation of two coarse squares from which they are taken for one picture
# Cosine of coarse squares without their mean. Versions of one picture lie above it, blurred ones too that are
# no copies; other photographs below. Lower than ALIKE: two pictures on one side of a split do no harm.
VERSIONS = 0.97
NEAR = 6.0  # mean difference of their grey levels up to which they are
FLAT = 4.0  # sd of grey levels below which a picture has no structure to go by
# A fine grating leaves coarse blobs on the 16 x 16 grid (aliasing), alike for gratings that differ. On the
# finer grid such pairs correlate at .71 at most, copies at .89 at least (48 pixels, JPEG of quality 30).
# Grey, as a copy of colour noise correlates at .63 in colour.
FINE_ALIKE = 0.8
BLOCK = 512
Thumbnails = NDArray[np.uint8]


def thumbnail(picture: Image.Image) -> Thumbnails:
    """(32, 32) uint8, the picture in grey: means over cells of one size, to which pixels count by their part.

    Whole pixels, as image libraries take them, shift cells where the sides are no multiple of 32: of
    pictures of 112 pixels and their copies of 40, up to 13 in 100 were then no longer one.
    """
    grey = np.asarray(picture.convert("L"), dtype=np.float32)
    rows, columns = (_cells(n) for n in grey.shape)
    return np.asarray(np.rint(rows @ grey @ columns.T), dtype=np.uint8)


@lru_cache(maxsize=64)
def _cells(n_pixels: int) -> Float32:
    """(32, n_pixels) float32, the part that each pixel of a side has in the mean of each cell."""
    ends, first = np.arange(SIDE + 1) * n_pixels / SIDE, np.arange(n_pixels)
    inside = np.minimum(ends[1:, None], first + 1) - np.maximum(ends[:-1, None], first)
    return np.asarray(inside.clip(min=0) * SIDE / n_pixels, dtype=np.float32)


def same_picture(one: Thumbnails, other: Thumbnails) -> bool:
    """Whether two thumbnails that are expected to be of one picture are."""
    return float(_fine(one) @ _fine(other)) >= FINE_ALIKE


def copies(first: Thumbnails, second: Thumbnails) -> Iterator[tuple[int, int]]:
    """Pairs (row of ``first``, row of ``second``) that show one picture.

    Args:
        first, second: (n, 32, 32) uint8.
    """
    for i, j in coarsely_alike(first, second):
        if same_picture(first[i], second[j]):
            yield i, j


def coarsely_alike(first: Thumbnails, second: Thumbnails) -> Iterator[tuple[int, int]]:
    """Pairs that agree on the 16 x 16 grid, among them gratings of other orientations."""
    one, two = _coarse(first), _coarse(second)
    (a, flat_a), (b, flat_b) = _standardised(one), _standardised(two)
    for start in range(0, len(a), BLOCK):
        alike = a[start : start + BLOCK] @ b.T >= ALIKE
        for i, j in np.argwhere(alike):
            row = start + int(i)
            if not flat_a[row] and not flat_b[j] and np.abs(one[row] - two[j]).mean() <= NEAR:
                yield row, int(j)


def _coarse(thumbnails: Thumbnails) -> Float32:
    """(n, 256) float32 grey levels, means over 2 x 2 pixels."""
    cells = thumbnails.reshape(len(thumbnails), COARSE_SIDE, 2, COARSE_SIDE, 2)
    return np.asarray(cells.mean(axis=(2, 4)).reshape(len(thumbnails), COARSE_SIDE**2), dtype=np.float32)


def _fine(small: Thumbnails) -> Float32:
    """(1024,) float32 without its mean, of length 1."""
    values = small.astype(np.float32).ravel()
    values -= values.mean()
    return np.asarray(values / max(float(np.linalg.norm(values)), 1e-6), dtype=np.float32)


def _standardised(coarse: Float32) -> tuple[Float32, NDArray[np.bool_]]:
    """Of mean 0 and length 1, and whether there is too little structure to go by."""
    centred = coarse - coarse.mean(axis=1, keepdims=True)
    sd = centred.std(axis=1)
    scale = np.maximum(sd, 1e-6)[:, None] * np.sqrt(coarse.shape[1])
    return np.asarray(centred / scale, dtype=np.float32), sd < FLAT
