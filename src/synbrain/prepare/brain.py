"""Vertices and grayordinates that are taken: where each column of surface betas lies, and on which mesh."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synbrain.data.fsaverage import NESTED
from synbrain.data.space import STRUCTURE, STRUCTURE_PREFIX, Atlas, VoxelSpace
from synbrain.describe import counted
from synbrain.errors import SynBrainError
from synbrain.prepare.betas import BetaFile, Index
from synbrain.prepare.entities import entities
from synbrain.prepare.rois import vertex_sides
from synbrain.prepare.surface import CORTEX, MGH, Hemispheres, has_suffix

Piece = tuple[BetaFile, ...]  # files side by side: one volume or CIFTI file, or left and right hemisphere
VERTICES = {"fsaverage": NESTED[2], "fsaverage6": NESTED[1], "fsaverage5": NESTED[0], "fsLR": 32_492}


@dataclass(frozen=True)
class Brain:
    """All places that betas may have: left vertices, right vertices, then the voxels of CIFTI's grid.

    Attributes:
        first: the first piece of the betas; all others must be like it.
        n_left: vertices of the left mesh; of one hemisphere alone, those of the other count as many.
        n_right: of the right one.
        grid: (x, y, z) of CIFTI's voxels; () without.
        affine: of that grid.
        columns: for each file of a piece, the place of each of its values.
        structures: CIFTI's name of the structure of each value, without "CIFTI_STRUCTURE_"; else None.
    """

    first: Piece
    n_left: int
    n_right: int
    columns: tuple[Index, ...]
    grid: tuple[int, ...] = ()
    affine: NDArray[np.float64] | None = None
    structures: NDArray[Any] | None = None

    @property
    def size(self) -> int:
        return self.n_left + self.n_right + (int(np.prod(self.grid)) if self.grid else 0)

    @property
    def vertices(self) -> dict[str, int]:
        """Side -> its number of vertices."""
        return {"left": self.n_left, "right": self.n_right}

    @property
    def shape(self) -> tuple[int, ...]:
        """As :class:`VoxelSpace` has it."""
        return (self.n_left, self.n_right, *self.grid) if self.n_left + self.n_right else self.grid


def brain_of(first: Piece, hemispheres: Hemispheres) -> Brain:
    """What the first piece of surface betas addresses."""
    if first[0].brain is not None:
        return _of_axis(first)
    sizes = [about.grid[0] for about in first]
    n_left, n_right = sizes if hemispheres == "both" else sizes * 2
    starts = [0, n_left] if hemispheres == "both" else [0 if hemispheres == "left" else n_left]
    columns = tuple(start + np.arange(n, dtype=np.int64) for start, n in zip(starts, sizes, strict=True))
    return Brain(first, n_left, n_right, columns)


def _of_axis(first: Piece) -> Brain:
    axis = first[0].brain
    n_left, n_right = (int(axis.nvertices.get(CORTEX[side], 0)) for side in ("left", "right"))
    n_left, n_right = n_left or n_right, n_right or n_left
    has_voxels = not axis.surface_mask.all()
    grid = tuple(int(n) for n in axis.volume_shape) if has_voxels else ()
    affine = np.asarray(axis.affine, dtype=np.float64) if has_voxels else None
    places = axis_places(axis, n_left, n_right, grid)
    names = np.array([str(name).removeprefix(STRUCTURE_PREFIX) for name in axis.name], dtype=object)
    return Brain(first, n_left, n_right, (places,), grid, affine, names)


def axis_places(axis: Any, n_left: int, n_right: int, grid: tuple[int, ...]) -> Index:
    """(n_grayordinates,) the place of each grayordinate of nibabel's ``axis`` in such a brain."""
    places = axis.vertex.astype(np.int64)
    places[axis.name == CORTEX["right"]] += n_left
    if not axis.surface_mask.all():
        voxels = axis.voxel[axis.volume_mask]
        flat = np.ravel_multi_index(tuple(voxels.T), grid)
        places[axis.volume_mask] = n_left + n_right + flat
    return np.asarray(places, dtype=np.int64)


@dataclass(frozen=True)
class Places:
    """Which values of the files are taken.

    Attributes:
        brain: that they belong to.
        kept: for each file of a piece, the values that are taken.
        index: (n_columns,) the place of each, the files one after another.
    """

    brain: Brain
    kept: tuple[Index, ...]
    index: Index

    def parts(self, piece: Piece) -> tuple[tuple[BetaFile, Index], ...]:
        """The files of a piece, each with the values that are taken.

        Raises:
            SynBrainError: where they lie on another mesh than the first piece.
        """
        for about, first in zip(piece, self.brain.first, strict=True):
            same = about.grid == first.grid and (about.brain is None or about.brain == first.brain)
            if not same:
                what = "vertices" if first.brain is None else "grayordinates"
                difference = f"{about.grid[0]} and {first.grid[0]} {what}"
                if about.grid == first.grid:
                    difference = "as many grayordinates, but not the same ones"
                raise SynBrainError(
                    f"{about.path.name} and {first.path.name} lie on different surfaces: "
                    f"they have {difference}",
                    'choose files of one, such as --pattern "*space-fsaverage_*", or resample one of them',
                )
        return tuple(zip(piece, self.kept, strict=True))


def places_of(brain: Brain, mask: NDArray[np.bool_] | None) -> Places:
    """The values whose place is in ``mask`` (over the whole brain); all without one."""
    inside = np.ones(brain.size, dtype=bool) if mask is None else mask
    kept = tuple(np.flatnonzero(inside[columns]) for columns in brain.columns)
    taken = [columns[part] for columns, part in zip(brain.columns, kept, strict=True)]
    return Places(brain, kept, np.concatenate(taken))


def space_of(places: Places, mesh: str, atlases: dict[str, Atlas]) -> VoxelSpace:
    """Where the columns lie, with their hemispheres, and structures where CIFTI's voxels are among them."""
    brain, index = places.brain, places.index
    n_vertices = brain.n_left + brain.n_right
    sides = vertex_sides(index, brain.n_left, n_vertices)
    if brain.structures is None or not brain.grid:
        made = {"hemisphere": sides}
    else:
        structures = brain.structures[places.kept[0]]
        for value, word in ((1, "_LEFT"), (2, "_RIGHT")):
            sides.values[[name.endswith(word) for name in structures]] = value
        names = list(dict.fromkeys(structures))
        values = np.array([names.index(name) + 1 for name in structures], dtype=np.int32)
        made = {"hemisphere": sides, STRUCTURE: Atlas(values, dict(enumerate(names, start=1)), "CIFTI")}
    return VoxelSpace(
        n_voxels=len(index),
        kind="volume" if n_vertices == 0 else "grayordinates" if brain.grid else "surface",
        shape=brain.shape,
        affine=brain.affine,
        index=index,
        atlases=made | atlases,
        mesh=mesh if n_vertices else None,
    )


def mesh_of(brain: Brain, asked: str | None) -> tuple[str, list[str]]:
    """What the vertices belong to: as asked, as the name says (``space-``), or by their number; and notes.

    Raises:
        SynBrainError: where a mesh that is asked for or named has another number of vertices.
    """
    path, n, counts = brain.first[0].path, brain.n_left, (brain.n_left, brain.n_right)
    if n + brain.n_right == 0:
        return "", []
    named = asked or entities(path).get("space") or ("fsLR" if "fs_LR" in path.name else None)
    by_count = next((name for name, size in VERTICES.items() if size == n), None)
    if asked in VERTICES or named in ("fsaverage5", "fsaverage6"):
        sizes = {VERTICES[str(named)]} | ({NESTED[2], 59_292} if named == "fsLR" else set())
        if not sizes >= set(counts):
            mend = f"pass --mesh {by_count or 'other'}"
            raise SynBrainError(
                f"{path.name} has {counts[0]} and {counts[1]} vertices, {named} has {min(sizes)} each side",
                mend if asked else "name the files by their mesh",
            )
    if named is not None:
        if named == "fsaverage" and (by_count is None or not by_count.startswith("fsaverage")):
            return named, [f"no mesh of fsaverage has {counted(n, 'vertex', 'vertices')}: no cortex is drawn"]
        return (by_count or named) if named == "fsaverage" else named, []
    if by_count is None:
        sizes_there = " and ".join(map(str, dict.fromkeys(counts)))
        return "other", [f"no known mesh has {sizes_there} vertices a hemisphere: no cortex is drawn"]
    if by_count == "fsaverage" and not has_suffix(path, MGH):
        return "other", [
            f"{n} vertices a hemisphere may be fsaverage or fsLR: pass --mesh, so that maps are drawn on it"
        ]
    return by_count, [f"{n} vertices a hemisphere were taken for {by_count}; --mesh names another"]


def parts_agree(piece: Piece) -> None:
    """Raise where left and right do not hold the same trials."""
    for about in piece[1:]:
        if about.n_trials != piece[0].n_trials:
            raise SynBrainError(
                f"{piece[0].path.name} has {counted(piece[0].n_trials, 'map')}, {about.path.name} has "
                f"{about.n_trials}",
                "give both hemispheres' files of the same trials",
            )


def named_file(piece: Piece) -> Path:
    """The file that stands for a piece in messages."""
    return piece[0].path
