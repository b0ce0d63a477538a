"""Voxel maps on the inflated cortex of fsaverage5."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PolyCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from synbrain.data.fsaverage import SIDES, Side, mesh, on_surface, sulcal_depth
from synbrain.data.space import VoxelSpace
from synbrain.figures.style import DIVERGING, new_figure

TURN_DEGREES, TILT_DEGREES = 4.0, -38.0  # how far the viewer stands to the side and below


def surface_maps(space: VoxelSpace, rows: dict[str, NDArray[Any]], titles: list[str], unit: str) -> Figure:
    """One inflated cortex per map: a row a source (measured, synthetic), a column an image.

    Args:
        space: where the voxels lie.
        rows: row name -> (n_columns, n_voxels); all rows share one symmetric colour scale.
        titles: (n_columns,) column titles.
        unit: of the values, for the colour bar.
    """
    maps = np.concatenate(list(rows.values()))
    projected = on_surface(space, maps, in_mni=True)
    limit = float(np.quantile(np.abs(maps), 0.98)) or 1.0
    n_columns = len(titles)
    figure = new_figure(3.3 * n_columns + 0.6, 2.0 * len(rows) + 0.2)
    grid = figure.subplots(len(rows), n_columns, squeeze=False)
    painted = None
    for r, name in enumerate(rows):
        for c in range(n_columns):
            axes = grid[r][c]
            values: dict[Side, NDArray[Any]] = {side: projected[side][r * n_columns + c] for side in SIDES}
            painted = draw_brain(axes, values, limit)
            if r == 0:
                axes.set_title(titles[c], fontsize=10)
        grid[r][0].text(
            -0.02, 0.5, name, transform=grid[r][0].transAxes, rotation=90, va="center", ha="right"
        )
    if painted is not None:
        figure.colorbar(painted, ax=grid, fraction=0.02, pad=0.01, label=unit)
    return figure


def draw_brain(axes: Any, values: dict[Side, NDArray[Any]], limit: float) -> Any:
    """Draw both inflated hemispheres from behind and below, where visual cortex shows.

    Faces that look away are dropped and the rest painted from far to near.

    Args:
        axes: matplotlib axes.
        values: hemisphere -> (n_vertices,), NaN where there is no data.
        limit: the colour scale runs from -limit to limit.
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
        sulci = sulcal_depth(side)
        grey = np.where(sulci[faces].mean(axis=1) > 0, 0.62, 0.8)
        colours = np.stack([grey, grey, grey, np.ones_like(grey)], axis=1)
        face_values = values[side][faces].mean(axis=1)
        known = np.isfinite(face_values)
        colours[known] = scale.to_rgba(face_values[known])
        light = 0.55 + 0.45 * normal[:, 2] / np.linalg.norm(normal, axis=1)
        colours[:, :3] *= light[:, None]
        order = np.argsort(corners[:, :, 2].mean(axis=1))
        flat = corners[order, :, :2] - [seen[:, 0].mean() - shift, 0.0]
        axes.add_collection(
            PolyCollection(flat, facecolors=colours[order], edgecolors="face", linewidths=0.2)
        )
    axes.autoscale_view()
    axes.set_aspect("equal")
    axes.set_axis_off()
    return scale


def _view(turn: float, tilt: float = TILT_DEGREES) -> NDArray[np.float64]:
    """(3, 3) rotation: x to the right, y up, z towards the viewer, who stands behind and below."""
    a, b = np.deg2rad(turn), np.deg2rad(tilt)
    around = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    upright = np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]], dtype=float)  # look along +y: back of the head
    nod = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    return np.asarray(nod @ upright @ around)


def scatter_maps(space: VoxelSpace, rows: dict[str, NDArray[Any]], titles: list[str], unit: str) -> Figure:
    """The same grid of maps for a volume that is not in MNI space: voxels seen from below, as dots.

    Args: as :func:`surface_maps`.
    """
    places = space.coordinates()
    maps = np.concatenate(list(rows.values()))
    limit = float(np.quantile(np.abs(maps), 0.98)) or 1.0
    figure = new_figure(2.8 * len(titles) + 0.6, 2.6 * len(rows) + 0.2)
    grid = figure.subplots(len(rows), len(titles), squeeze=False)
    order = np.argsort(-places[:, 2])
    painted = None
    for r, (name, values) in enumerate(rows.items()):
        for c, title in enumerate(titles):
            axes = grid[r][c]
            painted = axes.scatter(
                *places[order, :2].T, c=values[c][order], s=5, cmap=DIVERGING, vmin=-limit, vmax=limit
            )
            axes.set_aspect("equal")
            axes.set_axis_off()
            if r == 0:
                axes.set_title(title, fontsize=10)
        grid[r][0].text(
            -0.02, 0.5, name, transform=grid[r][0].transAxes, rotation=90, va="center", ha="right"
        )
    if painted is not None:
        figure.colorbar(painted, ax=grid, fraction=0.02, pad=0.01, label=unit)
    return figure
