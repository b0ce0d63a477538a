"""Decoded pictures beside the seen ones: a column an image, a row each way of decoding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from synbrain.figures.style import new_figure

CELL = 1.15  # inches


def decoded_figure(
    rows: Mapping[str, Sequence[NDArray[np.uint8]]], names: Sequence[str] | None = None
) -> Figure:
    """A grid of pictures.

    Args:
        rows: title of a row -> one picture (h, w, 3) uint8 an image; all rows are equally long. The first
            is best the seen pictures.
        names: of the images, above the columns.

    Raises:
        ValueError: for rows of different length.
    """
    lengths = {len(pictures) for pictures in rows.values()}
    if len(lengths) != 1:
        raise ValueError(f"rows of different length: { {title: len(p) for title, p in rows.items()} }")
    (n,) = lengths
    figure = new_figure(CELL * n + 1.4, CELL * len(rows) + 0.3)
    grid: Any = figure.subplots(len(rows), n, squeeze=False)
    for axes_of_row, (title, pictures) in zip(grid, rows.items(), strict=True):
        for axes, picture in zip(axes_of_row, pictures, strict=True):
            axes.imshow(picture, interpolation="nearest")
            axes.set_xticks([])
            axes.set_yticks([])
        axes_of_row[0].set_ylabel(title, rotation=0, ha="right", va="center", fontsize=9)
    for axes, name in zip(grid[0], names or [], strict=False):
        axes.set_title(name, fontsize=8)
    return figure
