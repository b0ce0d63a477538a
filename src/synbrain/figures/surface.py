"""Voxel maps on the inflated cortex: fsaverage5, which comes with nilearn; nothing is downloaded."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PolyCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from nilearn import datasets, surface
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.spatial import cKDTree

from synbrain.data.space import VoxelSpace
from synbrain.figures.style import DIVERGING, new_figure

HEMISPHERES = ("left", "right")
TURN_DEGREES, TILT_DEGREES = 4.0, -38.0  # how far the viewer stands to the side and below
BALL_MM = 4.0  # a vertex shows the mean of the voxels within this distance of it


@lru_cache(maxsize=1)
def _meshes() -> dict[str, Any]:
    found: dict[str, Any] = dict(datasets.fetch_surf_fsaverage("fsaverage5"))
    return found


def on_surface(space: VoxelSpace, maps: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
    """Project voxel maps onto both hemispheres of fsaverage5.

    Args:
        space: a volume in MNI space, or a surface space of fsaverage5 vertices.
        maps: (n_maps, n_voxels).

    Returns:
        hemisphere -> (n_maps, n_vertices) float32, NaN where no voxel is near.
    """
    meshes = _meshes()
    if space.kind == "surface":
        vertices = space.to_volume(maps).T.astype(np.float32)
        n_left = space.shape[0] if space.shape else 0
        return {"left": vertices[:, :n_left], "right": vertices[:, n_left:]}
    voxels = cKDTree(space.coordinates())
    projected = {}
    for side in HEMISPHERES:
        sheets = [
            surface.load_surf_mesh(meshes[f"{sheet}_{side}"]).coordinates for sheet in ("pial", "white")
        ]
        near = voxels.query_ball_point(np.mean(sheets, axis=0), r=BALL_MM)
        counts = np.array([len(found) for found in near])
        # a sparse average: vol_to_surf would blend in the zeros that lie outside the mask
        rows = np.repeat(np.arange(len(near)), counts)
        weights = csr_matrix(
            (1.0 / counts[rows], (rows, np.concatenate(near).astype(int))), shape=(len(near), space.n_voxels)
        )
        values = np.asarray((weights @ maps.T).T, dtype=np.float32)
        values[:, counts == 0] = np.nan
        projected[side] = values
    return projected


def surface_maps(space: VoxelSpace, rows: dict[str, NDArray[Any]], titles: list[str], unit: str) -> Figure:
    """One inflated cortex per map: a row a source (measured, synthetic), a column an image.

    Args:
        space: where the voxels lie, see :func:`on_surface`.
        rows: row name -> (n_columns, n_voxels); all rows share one symmetric colour scale.
        titles: (n_columns,) column titles.
        unit: of the values, for the colour bar.
    """
    maps = np.concatenate(list(rows.values()))
    projected = on_surface(space, maps)
    limit = float(np.quantile(np.abs(maps), 0.98)) or 1.0
    n_columns = len(titles)
    figure = new_figure(3.3 * n_columns + 0.6, 2.0 * len(rows) + 0.2)
    grid = figure.subplots(len(rows), n_columns, squeeze=False)
    painted = None
    for r, name in enumerate(rows):
        for c in range(n_columns):
            axes = grid[r][c]
            values = {side: projected[side][r * n_columns + c] for side in HEMISPHERES}
            painted = draw_brain(axes, values, limit)
            if r == 0:
                axes.set_title(titles[c], fontsize=10)
        grid[r][0].text(
            -0.02, 0.5, name, transform=grid[r][0].transAxes, rotation=90, va="center", ha="right"
        )
    if painted is not None:
        figure.colorbar(painted, ax=grid, fraction=0.02, pad=0.01, label=unit)
    return figure


def draw_brain(axes: Any, values: dict[str, NDArray[Any]], limit: float) -> Any:
    """Draw both inflated hemispheres from behind and below, where visual cortex shows.

    Faces that look away are dropped and the rest painted from far to near.

    Args:
        axes: matplotlib axes.
        values: hemisphere -> (n_vertices,), NaN where there is no data.
        limit: the colour scale runs from -limit to limit.
    """
    scale = ScalarMappable(Normalize(-limit, limit), DIVERGING)
    for side, turn, shift in (("left", TURN_DEGREES, -50.0), ("right", -TURN_DEGREES, 50.0)):
        mesh = surface.load_surf_mesh(_meshes()[f"infl_{side}"])
        seen = np.asarray(mesh.coordinates) @ _view(turn).T
        faces = np.asarray(mesh.faces)
        corners = seen[faces]
        normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        shown = normal[:, 2] > 0
        faces, corners, normal = faces[shown], corners[shown], normal[shown]
        sulci = np.asarray(surface.load_surf_data(_meshes()[f"sulc_{side}"]))
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


def _row_title(axes: Any, name: str) -> None:
    axes.text(-0.02, 0.5, name, transform=axes.transAxes, rotation=90, va="center", ha="right")


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
