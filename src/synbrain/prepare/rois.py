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
from synbrain.errors import SynBrainError

Flat = NDArray[Any]


@dataclass(frozen=True)
class LabelMap:
    """Label values over a whole grid, flat: a volume in C order, or left then right vertices.

    Attributes:
        name: the atlas, such as prf-visualrois.
        values: (n_grid,) int32.
        files: the files that they were read from.
        affine: (4, 4) of a volume, else None.
    """

    name: str
    values: NDArray[np.int32]
    files: tuple[Path, ...]
    affine: NDArray[np.float64] | None = None


def load_flat(files: tuple[Path, ...], grids: tuple[tuple[int, ...], ...]) -> tuple[Flat, Any]:
    """Values of one map over the whole grid and its affine; files are parts side by side.

    Args:
        files: one volume, or left and right surface.
        grids: the shape that each must have.

    Raises:
        SynBrainError: where a file is missing, damaged or of another shape.
    """
    parts, affine = [], None
    for path, grid in zip(files, grids, strict=True):
        try:
            image: Any = nib.load(path)
            values = np.asarray(image.dataobj)
        except FileNotFoundError as error:
            raise SynBrainError(f"{path} is missing", "download it, or name another") from error
        except (OSError, EOFError, ValueError, nib.filebasedimages.ImageFileError) as error:
            raise SynBrainError(f"{path} is damaged ({error})", "download it again") from error
        shape = values.shape if len(grid) == 3 else (values.size,)
        if shape != grid:
            raise SynBrainError(
                f"{path} has shape {shape}, the betas have {grid}",
                "use a mask and label volumes on the grid of the betas",
            )
        parts.append(values.reshape(-1))
        affine = image.affine if len(grid) == 3 else None
    return np.concatenate(parts), affine


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


def load_map(name: str, files: tuple[Path, ...], grids: tuple[tuple[int, ...], ...]) -> LabelMap | None:
    """One label map; None where its values are not whole numbers (it is no label map then)."""
    if len(files) == 2 and len(grids) == 1:  # hemispheres as two volumes on one grid
        left, affine = load_flat(files[:1], grids)
        right, _ = load_flat(files[1:], grids)
        values = np.where(left > 0, left, right)
    else:
        values, affine = load_flat(files, grids)
    if not np.array_equal(values, np.round(values)):
        return None
    return LabelMap(name, values.astype(np.int32), files, affine)


def read_names(
    name: str, files: Iterable[Path], folders: Iterable[Path]
) -> tuple[dict[int, str], Path | None]:
    """Label value -> name, and the file that says so: ``NAME.mgz.ctab``, or a BIDS ``_dseg.tsv`` beside it.

    A ``.ctab`` line is "value name", optionally with colours; 0 and below are no label.
    """
    beside = [path.parent for path in files]
    for folder in [*folders, *beside]:
        for file in (f"{name}.mgz.ctab", f"{name}.ctab", f"{name}.nii.gz.ctab"):
            path = folder / file
            if path.exists():
                lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
                kept = [line for line in lines if len(line) > 1 and line[0].lstrip("-").isdigit()]
                return {int(line[0]): line[1] for line in kept if int(line[0]) > 0}, path
    for volume in files:
        path = volume.with_name(volume.name.removesuffix(".gz").removesuffix(".nii") + ".tsv")
        if path.exists():
            rows = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]
            index, label = rows[0].index("index"), rows[0].index("name")
            return {int(row[index]): row[label] for row in rows[1:] if int(row[index]) > 0}, path
    return {}, None


def make_atlas(found: LabelMap, index: NDArray[np.int64], folders: Iterable[Path], root: Path) -> Atlas:
    """The labels of a map at the voxels ``index``, with names and provenance (paths relative to ``root``)."""
    values = found.values[index]
    names, named_by = read_names(found.name, found.files, folders)
    if named_by is None:
        names = {int(value): f"label {value}" for value in np.unique(values) if value > 0}
    source = " + ".join(_relative(path, root) for path in found.files)
    said = f"names from {_relative(named_by, root)}" if named_by else "no file of label names found"
    return Atlas(values=values, labels=names, source=f"{source}; {said}")


def _relative(path: Path, root: Path) -> str:
    try:
        return path.relative_to(root).as_posix()
    except ValueError:
        return path.name


def hemisphere_atlas(folder: Path, grid: tuple[int, ...], index: NDArray[np.int64]) -> Atlas | None:
    """Left and right from the ``lh.`` and ``rh.`` volumes of a folder; None where there are none.

    In NSD's files -1 is outside of that hemisphere's cortex; without negative values, labels count.
    """
    sides = np.zeros(len(index), dtype=np.int32)
    used: list[str] = []
    for value, side in ((1, "lh"), (2, "rh")):
        for path in sorted(folder.glob(f"{side}.*.nii*")):
            flat, _ = load_flat((path,), (grid,))
            inside = (flat >= 0 if (flat < 0).any() else flat > 0)[index]
            if (inside & (sides == 0)).any():
                sides[inside & (sides == 0)] = value
                used.append(path.name)
    if not used:
        return None
    return Atlas(values=sides, labels={1: "left", 2: "right"}, source=" + ".join(used))


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
    labels = {name: read_names(name, found.files, folders)[0] for name, found in maps.items()}
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
