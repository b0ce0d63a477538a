"""Where the columns of a response array lie, for recordings brought as arrays: voxels.csv, or a mask."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from synbrain.data.space import Atlas, VoxelSpace
from synbrain.data.tables import numbers, read_table
from synbrain.describe import counted
from synbrain.errors import SynBrainError
from synbrain.prepare import rois
from synbrain.prepare.brain import VERTICES
from synbrain.prepare.entities import natural
from synbrain.prepare.grid import grid_of
from synbrain.prepare.options import TableOptions

AXES, HEMISPHERE, VERTEX, NCSNR = ("x", "y", "z"), "hemisphere", "vertex", "ncsnr"
COUNTS = ("voxel", "unit", "column", "index")  # may number the rows
SIDES = {"l": 1, "left": 1, "lh": 1, "r": 2, "right": 2, "rh": 2}
NO_LABEL = ("", "0", "none", "n/a", "nan")
TRUTH = {"true": "1", "false": "0"}  # as pandas and R write a mask
MOST_NCSNR = 10.0  # signal sd over noise sd; what lies above is a noise ceiling in percent
FEW = 10  # columns; of fewer, each may be an area of its own
NEAR_MM = 0.5  # a voxel of the table and the same voxel of the mask


def read_space(src: Path, options: TableOptions, n_units: int) -> tuple[VoxelSpace, list[str]]:
    """The space of the response columns: what ``voxels.csv`` and the mask say, together.

    Args:
        src: the folder that is prepared; ``voxels.csv``, ``voxels.tsv`` and ``mask.nii[.gz]`` in it are read
            unless the options name others.
        options: where they lie, and how the mask's voxels are ordered.
        n_units: number of response columns.

    Returns:
        The space (kind "volume" with a mask, "surface" with vertices, "points" with positions, else "none"),
        with the atlases and the ncsnr that the table has; and notes.

    Raises:
        SynBrainError: where their numbers do not fit the responses, or each other.
    """
    space, notes = VoxelSpace(n_units), list[str]()
    mask = options.mask or next((p for p in (src / "mask.nii.gz", src / "mask.nii") if p.exists()), None)
    table_path = voxel_table(src, options)
    if mask is not None:
        space = _of_mask(mask, options, n_units, src)
        order = "x slowest, as numpy and nilearn have them" if options.mask_order == "C" else "x fastest"
        notes.append(f"the columns are the {counted(n_units, 'voxel')} of {mask.name}, {order}")
    elif options.atlases:
        raise SynBrainError("label volumes need the grid of the columns", "pass --mask, too")
    if table_path is not None:
        space, more = with_table(space, table_path, options, n_units)
        notes += more
    return space, notes


def voxel_table(src: Path, options: TableOptions) -> Path | None:
    """The table of the columns, as the options name it or as it lies in ``src``; None without one."""
    usual = (p for p in (src / "voxels.csv", src / "voxels.tsv") if p.exists())
    return options.voxels or next(usual, None)


def _of_mask(path: Path, options: TableOptions, n_units: int, src: Path) -> VoxelSpace:
    grid = grid_of(path)
    inside = rois.load_flat((path,), (grid,)).reshape(grid.shape) > 0
    if inside.sum() != n_units:
        raise SynBrainError(
            f"{path} has {counted(int(inside.sum()), 'voxel')} above 0, the responses have "
            f"{counted(n_units, 'column')}",
            "give the mask that the responses were taken with",
        )
    places = np.argwhere(inside)
    if options.mask_order == "F":
        places = places[np.lexsort((places[:, 0], places[:, 1], places[:, 2]))]
    index = np.asarray(np.ravel_multi_index(tuple(places.T), grid.shape), dtype=np.int64)
    atlases = rois.read_atlases(options.atlases or [], grid, index, src)
    return VoxelSpace(n_units, "volume", grid.shape, grid.affine, index, atlases)


def with_table(
    space: VoxelSpace, path: Path, options: TableOptions, n_units: int
) -> tuple[VoxelSpace, list[str]]:
    """``space`` with the positions, atlases and ncsnr that the table of the columns has; and notes."""
    table = read_table(path, mend="write one line per response column: x,y,z,hemisphere,ROI,ncsnr")
    if len(table) != n_units:
        raise SynBrainError(
            f"{path} has {counted(len(table), 'line')} for {n_units} response columns",
            "write one line per column, in the same order",
        )
    for name in set(COUNTS) & set(table):
        if not np.array_equal(np.argsort(_column(table, name, path), kind="stable"), np.arange(n_units)):
            raise SynBrainError(
                f"{path} does not list {name} in ascending order",
                "write the lines in the order of the response columns",
            )
    sides = _sides(table, path) if HEMISPHERE in table else None
    atlases, notes = dict(space.atlases), list[str]()
    if sides is not None:
        atlases[HEMISPHERE] = Atlas(sides, {1: "left", 2: "right"}, path.name)
    known = {*AXES, *COUNTS, HEMISPHERE, VERTEX, NCSNR}
    for name in [str(column) for column in table if column not in known]:
        atlas = _atlas(table[name], name, path)
        if atlas is None:
            notes.append(f"the column {name} of {path.name} holds no labels, left out")
        elif len(atlas.labels) >= n_units - 1 >= FEW:
            notes.append(f"the column {name} of {path.name} has another label in every line, left out")
        else:
            atlases[name] = atlas
    ncsnr = None
    if NCSNR in table:
        values = _column(table, NCSNR, path, may_lack=True)
        if (values < 0).any():
            raise SynBrainError(f"{path} has ncsnr below 0", "give signal sd over noise sd, not a percentage")
        ncsnr = np.nan_to_num(values).astype(np.float32)
        if ncsnr.max(initial=0) > MOST_NCSNR:
            notes.append(f"ncsnr reaches {ncsnr.max():g}: give signal sd over noise sd, no percentage")
    return replace(_placed(space, table, sides, options, path), atlases=atlases, ncsnr=ncsnr), notes


def _placed(
    space: VoxelSpace, table: pd.DataFrame, sides: NDArray[np.int32] | None, options: TableOptions, path: Path
) -> VoxelSpace:
    """The space with the positions of the table: vertices, or millimetres."""
    has_axes = [axis for axis in AXES if axis in table]
    if has_axes and len(has_axes) < 3:
        raise SynBrainError(f"{path} has {', '.join(has_axes)} alone", "give x, y and z, in mm")
    if VERTEX in table:
        if space.kind in ("surface", "grayordinates"):
            raise SynBrainError(
                f"{path} has the column vertex, which the files of the responses say already", "leave it out"
            )
        if sides is None or space.kind != "none":
            raise SynBrainError(
                f"{path} has vertices without {'a hemisphere' if sides is None else 'need of a mask'}",
                "give vertex (0-based) and hemisphere (left or right), and no mask",
            )
        return _on_surface(space, _column(table, VERTEX, path), sides, options.mesh or "fsaverage", path)
    if not has_axes:
        return space
    positions = np.stack([_column(table, axis, path) for axis in AXES], axis=1)
    if space.kind == "none":
        return replace(space, kind="points", positions=positions)
    if space.kind == "volume":
        apart = np.abs(space.coordinates() - positions).max(axis=1)
        if apart.max() > NEAR_MM:
            row = int(apart.argmax())
            raise SynBrainError(
                f"{path} line {row + 2} lies {apart[row]:.3g} mm from voxel {row} of the mask",
                "check --mask-order (C: x slowest, F: x fastest) and that both are in the same space",
            )
    return space


def _on_surface(
    space: VoxelSpace, vertex: NDArray[np.float64], sides: NDArray[np.int32], mesh: str, path: Path
) -> VoxelSpace:
    n = VERTICES.get(mesh) or int(vertex.max()) + 1
    if (vertex < 0).any() or (vertex >= n).any() or (vertex % 1).any():
        raise SynBrainError(
            f"{path} has vertices from {vertex.min():g} to {vertex.max():g}, the mesh has 0 to {n - 1}",
            "count vertices from 0, and choose --mesh fsaverage, fsaverage6, fsaverage5, fsLR or other",
        )
    index = vertex.astype(np.int64) + np.where(sides == 2, n, 0)
    if len(np.unique(index)) < len(index):
        raise SynBrainError(f"{path} has a vertex twice", "give every response column its own vertex")
    return replace(space, kind="surface", shape=(n, n), index=index, mesh=mesh)


def _column(table: pd.DataFrame, name: str, path: Path, may_lack: bool = False) -> NDArray[np.float64]:
    text = table[name].mask(table[name].str.casefold().isin(NO_LABEL)) if may_lack else table[name]
    values = numbers(table.assign(**{name: table[name]}), name).to_numpy()
    bad = ~np.isfinite(values) & (text.notna().to_numpy() if may_lack else True)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise SynBrainError(f"{path} line {row + 2}: {name} is {table[name].iloc[row]}", "give a number")
    return np.asarray(values, dtype=np.float64)


def _sides(table: pd.DataFrame, path: Path) -> NDArray[np.int32]:
    sides = table[HEMISPHERE].str.casefold().map(SIDES)
    if sides.isna().any():
        row = int(np.flatnonzero(sides.isna())[0])
        raise SynBrainError(
            f"{path} line {row + 2}: hemisphere is {table[HEMISPHERE].iloc[row]}", "write left or right"
        )
    return np.asarray(sides, dtype=np.int32)


def _atlas(column: pd.Series, name: str, path: Path) -> Atlas | None:
    """Labels as text, or 0 and 1 or truth values for one ROI, or whole numbers; None for other numbers."""
    text = column.fillna("").str.strip("'\" ")
    if text.str.casefold().isin([*NO_LABEL, *TRUTH]).all():
        text = text.str.casefold().replace(TRUTH)
    is_none = text.str.casefold().isin(NO_LABEL).to_numpy()
    values = pd.to_numeric(text.mask(is_none, "0"), errors="coerce").to_numpy(dtype=np.float64)
    if np.isfinite(values).all():
        if (values % 1).any():
            return None
        whole = values.astype(np.int32)
        named = (
            {1: name}
            if set(np.unique(whole)) <= {0, 1}
            else {int(v): f"label {v}" for v in np.unique(whole) if v > 0}
        )
        return Atlas(whole, named, path.name)
    labels = sorted(set(text[~is_none]), key=natural)
    place = {label: number for number, label in enumerate(labels, start=1)}
    coded = text.map(place).fillna(0).to_numpy(dtype=np.int32)
    return Atlas(np.where(is_none, 0, coded).astype(np.int32), {v: k for k, v in place.items()}, path.name)
