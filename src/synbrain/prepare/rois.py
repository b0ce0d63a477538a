"""Masks, label volumes and ncsnr on one grid: NIfTI volumes, or left and right surface files."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from synbrain.data.space import Atlas
from synbrain.data.tables import numbers, read_table, read_text
from synbrain.errors import SynBrainError
from synbrain.prepare.betas import reading
from synbrain.prepare.entities import entities, label_table
from synbrain.prepare.grid import Grid, load_image, positions_in, stated_affine

Flat = NDArray[Any]


@dataclass(frozen=True)
class LabelMap:
    """Label values over a whole grid, flat: a volume in C order, or left then right vertices.

    Attributes:
        name: the atlas, such as prf-visualrois.
        values: (n_grid,) int32, in the order of the betas' grid.
        files: the files that they were read from.
    """

    name: str
    values: NDArray[np.int32]
    files: tuple[Path, ...]


def load_flat(files: tuple[Path, ...], grids: tuple[Grid, ...]) -> Flat:
    """Values of one map over the grid of the betas; files are parts side by side.

    Axes that are mirrored or permuted are brought into the betas' orientation, trailing axes of length 1 are
    dropped, and what is not finite (outside the brain, vertices without a label) becomes 0.

    Args:
        files: one volume, or left and right surface.
        grids: where the betas of each part lie.

    Returns:
        (n_grid,) values in the order of the betas' grid.

    Raises:
        SynBrainError: where a file is missing, damaged or lies in another space.
    """
    parts = []
    for path, grid in zip(files, grids, strict=True):
        with reading(path):
            image: Any = load_image(path)
            values = np.asarray(image.dataobj)
        if values.dtype.kind not in "iufb":
            raise SynBrainError(
                f"{path} holds values of type {values.dtype}", "give a mask or labels as plain numbers"
            )
        if len(grid.shape) == 3:
            values = values.reshape(values.shape[:3]) if values.ndim > 3 and _is_one(values) else values
            affine = stated_affine(image.header) if isinstance(image, nib.Nifti1Pair) else image.affine
            positions = positions_in(Grid(path, values.shape, affine), grid)
        else:
            positions = positions_in(Grid(path, (values.size,)), grid)
            values = values.reshape(-1, order="F")
        flat = values.reshape(-1)[positions]
        parts.append(np.nan_to_num(flat, posinf=0, neginf=0) if flat.dtype.kind == "f" else flat)
    return np.concatenate(parts)


def _is_one(values: Flat) -> bool:
    return int(np.prod(values.shape[3:])) == 1


def map_files(folder: Path, surface: bool) -> dict[str, tuple[Path, ...]]:
    """Atlas name -> its file(s) in a folder.

    Volumes: ``NAME.nii.gz``, or ``lh.NAME.nii.gz`` and ``rh.NAME.nii.gz`` where only these exist.
    Surfaces: ``lh.NAME.mgz`` and ``rh.NAME.mgz``.
    """
    suffixes = (".mgz", ".mgh") if surface else (".nii.gz", ".nii")
    both: dict[str, tuple[Path, ...]] = {}
    whole: dict[str, tuple[Path, ...]] = {}
    for path in sorted(folder.glob("*")):
        suffix = next((s for s in suffixes if path.name.endswith(s)), None)
        if suffix is None:
            continue
        name = path.name.removesuffix(suffix)
        if name.startswith("lh."):
            right = path.with_name("rh" + path.name[2:])
            if right.exists():
                both.setdefault(name[3:], (path, right))
        elif not name.startswith("rh."):
            whole.setdefault(name, (path,))
    return both if surface else both | whole


def load_map(name: str, files: tuple[Path, ...], grids: tuple[Grid, ...]) -> LabelMap | None:
    """One label map; None where its values are not whole numbers (it is no label map then)."""
    if len(files) == 2 and len(grids) == 1:  # hemispheres as two volumes on one grid
        left, right = load_flat(files[:1], grids), load_flat(files[1:], grids)
        values = np.where(left > 0, left, right)
    else:
        values = load_flat(files, grids)
    if not np.array_equal(values, np.round(values)):
        return None
    return LabelMap(name, values.astype(np.int32), files)


def read_names(
    name: str, files: Iterable[Path], folders: Iterable[Path], root: Path | None = None
) -> tuple[dict[int, str], Path | None]:
    """Label value -> name, and the file that says so: ``NAME.mgz.ctab``, or a table in the way of BIDS.

    A ``.ctab`` line is "value name", optionally with colours; 0 and below are no label. A ``_dseg.tsv`` lies
    beside the volume or in a folder above it up to ``root``, and the most specific one counts. Quote marks
    and blanks around names are dropped.
    """
    beside = [path.parent for path in files]
    for folder in [*folders, *beside]:
        for file in (f"{name}.mgz.ctab", f"{name}.ctab", f"{name}.nii.gz.ctab"):
            path = folder / file
            if path.exists():
                lines = [line.split() for line in read_text(path).split("\n")]
                kept = [line for line in lines if len(line) > 1 and line[0].lstrip("-").isdigit()]
                return {int(line[0]): _bare(line[1]) for line in kept if int(line[0]) > 0}, path
    for volume in files:
        names_file = label_table(volume, root)
        if names_file is not None:
            table = read_table(names_file, ("index", "name"), "write the columns index and name")
            table = table[table["name"].notna()]
            values = numbers(table, "index")
            rows = zip(values, table["name"], strict=True)
            return {int(value): _bare(text) for value, text in rows if value > 0}, names_file
    return {}, None


def _bare(text: str) -> str:
    return text.strip().strip("'\"").strip()


def make_atlas(volume: LabelMap, index: NDArray[np.int64], folders: Iterable[Path], root: Path) -> Atlas:
    """The labels of a map at the voxels ``index``, with names and provenance (paths relative to ``root``)."""
    values = volume.values[index]
    names, named_by = read_names(volume.name, volume.files, folders, root)
    if named_by is None:
        names = {int(value): f"label {value}" for value in np.unique(values) if value > 0}
    source = " + ".join(_relative(path, root) for path in volume.files)
    named = f"names from {_relative(named_by, root)}" if named_by else "no file of label names found"
    return Atlas(values=values, labels=names, source=f"{source}; {named}")


def read_atlases(files: Iterable[Path], grid: Grid, index: NDArray[np.int64], root: Path) -> dict[str, Atlas]:
    """Label volumes at the voxels ``index`` of ``grid``.

    They are called by their entity atlas-, seg- or desc-, so that one atlas has one name in all subjects, or
    else by their file's name.
    """
    made = {}
    for path in files:
        there = entities(path)
        stem = path.name.removesuffix(".gz").removesuffix(".nii")
        labels = load_map(stem, (path,), (grid,))
        if labels is None:
            raise SynBrainError(f"{path} is no label volume", "give whole numbers, one a region")
        called = [there.get("atlas"), there.get("seg"), there.get("desc"), stem]
        name = next(word for word in called if word and word not in made)
        made[name] = make_atlas(labels, index, [], root)
    return made


def _relative(path: Path, root: Path) -> str:
    try:
        return path.relative_to(root).as_posix()
    except ValueError:
        return path.name


def hemisphere_atlas(folder: Path, grid: Grid, index: NDArray[np.int64]) -> Atlas | None:
    """Left and right from the ``lh.`` and ``rh.`` volumes of a folder; None where there are none.

    In NSD's files -1 is outside of that hemisphere's cortex; without negative values, labels count.
    """
    sides = np.zeros(len(index), dtype=np.int32)
    used: list[str] = []
    for value, side in ((1, "lh"), (2, "rh")):
        for path in sorted(folder.glob(f"{side}.*.nii*")):
            flat = load_flat((path,), (grid,))
            inside = (flat >= 0 if (flat < 0).any() else flat > 0)[index]
            if (inside & (sides == 0)).any():
                sides[inside & (sides == 0)] = value
                used.append(path.name)
    if not used:
        return None
    return Atlas(values=sides, labels={1: "left", 2: "right"}, source=" + ".join(used))


def vertex_sides(index: NDArray[np.int64], n_left: int, n_vertices: int) -> Atlas:
    """Left and right of vertices, left ones first; places from ``n_vertices`` on are neither."""
    sides = np.where(index < n_left, 1, np.where(index < n_vertices, 2, 0)).astype(np.int32)
    return Atlas(sides, {1: "left", 2: "right"}, "file of each vertex")


def roi_mask(names: list[str], maps: dict[str, LabelMap], folders: Iterable[Path]) -> NDArray[np.bool_]:
    """The union of named ROIs over the whole grid.

    Args:
        names: "atlas" (all its labels), "atlas/label", or "label" where one atlas alone has it.
        maps: the label maps there are.
        folders: where label names lie.

    Raises:
        SynBrainError: naming what exists, where a name is unknown or stands in several atlases.
    """
    folders = list(folders)
    labels = {name: read_names(name, volume.files, folders)[0] for name, volume in maps.items()}
    chosen: NDArray[np.bool_] | None = None
    for wanted in names:
        atlas, _, label = wanted.rpartition("/")
        hits = [
            (name, value)
            for name, entries in labels.items()
            for value, text in entries.items()
            if text == label and atlas in ("", name)
        ]
        if wanted in maps:
            picked = maps[wanted].values > 0
        elif len(hits) == 1:
            picked = maps[hits[0][0]].values == hits[0][1]
        elif hits:
            several = [f"{name}/{label}" for name, _ in hits]
            raise SynBrainError(f"the ROI {wanted} is in several atlases", f"pass one of {several}")
        else:
            known = sorted(maps) + sorted(
                f"{n}/{t}" for n, entries in labels.items() for t in entries.values()
            )
            raise SynBrainError(f"there is no ROI {wanted}", f"pass some of {', '.join(known)}")
        chosen = picked if chosen is None else chosen | picked
    if chosen is None or not chosen.any():
        raise SynBrainError(f"the ROIs {names} hold no voxel", "choose other ROIs")
    return chosen
