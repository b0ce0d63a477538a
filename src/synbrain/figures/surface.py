"""Voxel maps on the inflated cortex of fsaverage5."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PolyCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from synbrain.data.fsaverage import SIDES, Side, mesh, on_surface, sulcal_depth, surface_weights
from synbrain.data.space import STRUCTURE, VoxelSpace
from synbrain.figures.style import DIVERGING, new_figure

TURN_DEGREES, TILT_DEGREES = 4.0, -38.0  # how far the viewer stands to the side and below


def surface_maps(
    space: VoxelSpace,
    rows: dict[str, NDArray[Any]],
    titles: list[str],
    unit: str,
    stimuli: Sequence[Image.Image] | None = None,
) -> Figure:
    """One inflated cortex per map: a row a source (measured, synthetic), a column an image.

    Args:
        space: where the voxels lie.
        rows: row name -> (n_columns, n_voxels); all rows share one symmetric colour scale.
        titles: (n_columns,) column titles.
        unit: of the values, for the colour bar.
        stimuli: (n_columns,) pictures that were looked at, drawn above the maps.
    """
    maps = np.concatenate(list(rows.values()))
    projected = on_surface(space, maps, in_mni=True)
    limit = float(np.quantile(np.abs(maps), 0.98)) or 1.0
    n_columns = len(titles)
    figure, grid = _grid(len(rows), titles, (3.3, 2.0), stimuli)
    outlines = _label_edges(space)
    painted = None
    for r, name in enumerate(rows):
        for c in range(n_columns):
            axes = grid[r][c]
            values: dict[Side, NDArray[Any]] = {side: projected[side][r * n_columns + c] for side in SIDES}
            painted = draw_brain(axes, values, limit, outlines)
        grid[r][0].text(-0.1, 0.5, name, transform=grid[r][0].transAxes, rotation=90, va="center", ha="right")
    if painted is not None:
        figure.colorbar(
            painted, ax=figure.axes, fraction=0.02, pad=0.01, shrink=0.6, label=unit, panchor=False
        )
    return figure


def draw_brain(
    axes: Any,
    values: dict[Side, NDArray[Any]],
    limit: float,
    outlines: dict[Side, NDArray[np.bool_]] | None = None,
) -> Any:
    """Draw both inflated hemispheres from behind and below, where visual cortex shows.

    Faces that look away are dropped and the rest painted from far to near.

    Args:
        axes: matplotlib axes.
        values: hemisphere -> (n_vertices,), NaN where there is no data.
        limit: the colour scale runs from -limit to limit.
        outlines: hemisphere -> (n_faces,), triangles in which an ROI ends.
    """
    scale = ScalarMappable(Normalize(-limit, limit), DIVERGING)
    sides: tuple[tuple[Side, float, float], ...] = (
        ("left", TURN_DEGREES, -50.0),
        ("right", -TURN_DEGREES, 50.0),
    )
    for side, turn, shift in sides:
        vertices, faces = mesh(side, "infl")
        seen = vertices @ _view(turn).T
        corners = seen[faces]
        normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        shown = normal[:, 2] > 0
        faces, corners, normal = faces[shown], corners[shown], normal[shown]
        edge = np.zeros(len(faces), bool) if outlines is None else outlines[side][shown]
        sulci = sulcal_depth(side)
        grey = np.where(sulci[faces].mean(axis=1) > 0, 0.62, 0.8)
        colours = np.stack([grey, grey, grey, np.ones_like(grey)], axis=1)
        face_values = values[side][faces].mean(axis=1)
        known = np.isfinite(face_values)
        colours[known] = scale.to_rgba(face_values[known])
        colours[edge, :3] = 0.12
        light = 0.55 + 0.45 * normal[:, 2] / np.linalg.norm(normal, axis=1)
        colours[:, :3] *= light[:, None]
        order = np.argsort(corners[:, :, 2].mean(axis=1))
        flat = corners[order, :, :2] - [seen[:, 0].mean() - shift, 0.0]
        axes.add_collection(
            PolyCollection(flat, facecolors=colours[order], edgecolors="face", linewidths=0.2)
        )
        axes.text(2.2 * shift, 40, side[0].upper(), fontsize=8, color="#4b5563", ha="center")
    axes.autoscale_view()
    axes.set_aspect("equal")
    axes.set_axis_off()
    return scale


def _grid(
    n_rows: int, titles: list[str], size: tuple[float, float], stimuli: Sequence[Image.Image] | None
) -> tuple[Figure, Any]:
    """A figure and its (n_rows, n_columns) axes, below a row of titles, and stimuli where there are."""
    above = 0 if stimuli is None else 1
    figure = new_figure(size[0] * len(titles) + 0.6, size[1] * n_rows + 1.3 * above + 0.2)
    heights = [1.3] * above + [size[1]] * n_rows
    grid = figure.subplots(n_rows + above, len(titles), squeeze=False, height_ratios=heights)
    for c, title in enumerate(titles):
        grid[0][c].set_title(title, fontsize=10)
        if stimuli is not None:
            grid[0][c].imshow(np.asarray(stimuli[c]))
            grid[0][c].set_axis_off()
    return figure, grid[above:]


def _label_edges(space: VoxelSpace) -> dict[Side, NDArray[np.bool_]] | None:
    """Triangles whose corners lie in different ROIs of the first atlas that is no hemisphere or stream."""
    names = [name for name in space.atlases if name not in ("hemisphere", "streams", STRUCTURE)]
    if not names:
        return None
    weights = surface_weights(space, in_mni=True)
    first = "prf-visualrois" if "prf-visualrois" in names else names[0]
    atlas = space.atlases[first]
    # the label of the voxel with the largest part in each vertex; 0 where there is none
    labels = np.zeros(weights.shape[0], dtype=np.int64)
    known = np.diff(weights.indptr) > 0
    best = np.asarray(weights[known].argmax(axis=1)).ravel()
    labels[known] = np.where(np.isin(atlas.values[best], list(atlas.labels)), atlas.values[best], 0)
    edges: dict[Side, NDArray[np.bool_]] = {}
    for side, of_side in zip(SIDES, np.split(labels, 2), strict=True):
        corners = of_side[mesh(side, "infl")[1]]
        edges[side] = corners.min(axis=1) != corners.max(axis=1)
    return edges


def _view(turn: float) -> NDArray[np.float64]:
    """(3, 3) rotation: x to the right, y up, z towards the viewer, who stands behind and below."""
    a, b = np.deg2rad(turn), np.deg2rad(TILT_DEGREES)
    around = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    upright = np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]], dtype=float)  # look along +y: back of the head
    nod = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    return np.asarray(nod @ upright @ around)


def scatter_maps(
    space: VoxelSpace,
    rows: dict[str, NDArray[Any]],
    titles: list[str],
    unit: str,
    stimuli: Sequence[Image.Image] | None = None,
) -> Figure:
    """The same grid for a volume without a known surface: its voxels in space, seen from behind and below.

    Args: as :func:`surface_maps`.
    """
    places = space.coordinates() @ _view(0.0).T  # x to the right, y up, z towards the viewer
    maps = np.concatenate(list(rows.values()))
    limit = float(np.quantile(np.abs(maps), 0.98)) or 1.0
    figure, grid = _grid(len(rows), titles, (2.8, 2.6), stimuli)
    order = np.argsort(places[:, 2])  # the near ones are painted last
    near = np.ptp(places[:, 2]) or 1.0
    size = 3 + 8 * (places[order, 2] - places[:, 2].min()) / near
    painted = None
    for r, (name, values) in enumerate(rows.items()):
        for c in range(len(titles)):
            axes = grid[r][c]
            painted = axes.scatter(
                *places[order, :2].T, c=values[c][order], s=size, cmap=DIVERGING, vmin=-limit, vmax=limit
            )
            axes.set_aspect("equal")
            axes.set_axis_off()
        grid[r][0].text(-0.1, 0.5, name, transform=grid[r][0].transAxes, rotation=90, va="center", ha="right")
    if painted is not None:
        figure.colorbar(
            painted, ax=figure.axes, fraction=0.02, pad=0.01, shrink=0.6, label=unit, panchor=False
        )
    return figure
