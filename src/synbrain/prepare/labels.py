"""Masks and labels on a cortical surface: FreeSurfer's .label and .annot, GIfTI, MGH, CIFTI."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from synbrain.data.space import Atlas
from synbrain.errors import SynBrainError
from synbrain.prepare import rois
from synbrain.prepare.betas import Index, reading
from synbrain.prepare.brain import Brain, axis_places
from synbrain.prepare.entities import entities
from synbrain.prepare.gifti import gifti_header, read_gifti
from synbrain.prepare.grid import TOLERANCE
from synbrain.prepare.surface import (
    GIFTI,
    MGH,
    cifti_axes,
    cifti_rows,
    has_suffix,
    hemisphere_of,
    is_cifti,
)

KINDS = (".label.gii", *GIFTI, ".annot", ".label", *MGH, ".dlabel.nii", ".dscalar.nii")
MASKS = tuple(f"*mask{suffix}" for suffix in KINDS)
NO_LABEL = re.compile(r"|\?\?\?|none|unknown|(.*[ _+-])?medial[ _]?wall", re.IGNORECASE)


@dataclass(frozen=True)
class Labels:
    """One map over a whole brain.

    Attributes:
        name: of the atlas.
        values: (brain.size,) float64; 0 where there is none.
        names: value -> label, where the file has names.
        files: that it was read from.
    """

    name: str
    values: NDArray[np.float64]
    names: dict[int, str]
    files: tuple[Path, ...]


def read_mask(path: Path, brain: Brain) -> NDArray[np.bool_]:
    """(brain.size,) where the map of ``path`` and of the other hemisphere's file is above 0.

    Raises:
        SynBrainError: where it is on another mesh, holds several maps, or nothing of the betas.
    """
    maps = maps_on(path, brain)
    if len(maps) > 1:
        raise SynBrainError(f"{path} holds {len(maps)} maps", "give a mask of one map")
    mask = np.asarray(maps[0].values > 0, dtype=bool)
    if not mask[np.concatenate(brain.columns)].any():
        raise SynBrainError(f"{path} holds no vertex of the betas", "give a mask that is above 0 somewhere")
    return mask


def read_atlases(paths: Iterable[Path], brain: Brain, index: Index) -> dict[str, Atlas]:
    """The labels at the places ``index``; of a pair of hemispheres one file is enough, or both."""
    made: dict[str, Atlas] = {}
    seen: set[Path] = set()
    for path in paths:
        if path in seen:
            continue
        for labels in maps_on(path, brain):
            seen |= set(labels.files)
            if not np.array_equal(labels.values, np.round(labels.values)):
                raise SynBrainError(f"{path} holds no labels", "give whole numbers, one a region")
            values = labels.values[index].astype(np.int32)
            names = labels.names or {int(v): f"label {v}" for v in np.unique(values) if v > 0}
            made[labels.name] = Atlas(values, names, " + ".join(file.name for file in labels.files))
    return made


def maps_on(path: Path, brain: Brain) -> list[Labels]:
    """The maps of a file of labels, with that of the other hemisphere beside it.

    Raises:
        SynBrainError: where the format is unknown, a file is missing or damaged, or the mesh is another.
    """
    if not has_suffix(path, KINDS):
        raise SynBrainError(
            f"{path} holds no values of a surface, where the betas lie", f"give one of {', '.join(KINDS)}"
        )
    return _of_cifti(path, brain) if is_cifti(path) else [_of_hemispheres(path, brain)]


def _of_cifti(path: Path, brain: Brain) -> list[Labels]:
    with reading(path):
        rows, axis = cifti_axes(path)
        content = np.nan_to_num(
            np.asarray(cifti_rows(path, 0, len(rows)), dtype=np.float64), posinf=0, neginf=0
        )
    for structure, n in axis.nvertices.items():
        side = "left" if structure.endswith("LEFT") else "right"
        _require_count(path, side, n, brain)
    taken = np.ones(len(axis), dtype=bool)
    if not axis.surface_mask.all():
        same = axis.volume_shape == brain.grid
        if same and brain.affine is not None:
            same = np.allclose(axis.affine, brain.affine, atol=TOLERANCE)
        if brain.grid and not same:
            raise SynBrainError(
                f"the voxels of {path} lie on another grid than those of {brain.first[0].path.name}",
                "resample it (wb_command -cifti-resample)",
            )
        taken = np.ones(len(axis), dtype=bool) if brain.grid else axis.surface_mask
    places = axis_places(axis, brain.n_left, brain.n_right, brain.grid or axis.volume_shape or ())[taken]
    made = []
    for row, (values, name) in enumerate(zip(content, rows.name, strict=True)):
        flat = np.zeros(brain.size)
        flat[places] = values[taken]
        names = {k: text for k, (text, _) in rows.label[row].items()} if hasattr(rows, "label") else {}
        called = atlas_name(path, path.name) if len(rows) == 1 else str(name)
        made.append(_named(Labels(called, flat, names, (path,))))
    return made


def _of_hemispheres(path: Path, brain: Brain) -> Labels:
    named = hemisphere_of(path)
    if named.side is None:
        raise SynBrainError(
            f"{path} does not say of which hemisphere it is",
            "name it by BIDS (hemi-L, hemi-R) or FreeSurfer (lh., rh.)",
        )
    files = {named.side: path, ("right" if named.side == "left" else "left"): named.partner}
    flat, numbered, used = np.zeros(brain.size), dict[str, int](), list[Path]()
    parts = {}
    for side, start in (("left", 0), ("right", brain.n_left)):
        file, n = files[side], brain.vertices[side]
        if not _is_wanted(brain, start, n):
            continue
        if not file.exists() and file.suffix == ".label" and path.exists():
            continue  # a list of vertices: none in this hemisphere
        if not file.exists():
            raise SynBrainError(
                f"{file} is missing: the {side} hemisphere of {path.name}",
                "add it; --hemispheres left or right takes one hemisphere of the betas",
            )
        with reading(file):
            values, names = _read(file, n)
        _require_count(file, side, len(values), brain)
        parts[start] = _named(Labels("", np.nan_to_num(values, posinf=0, neginf=0), names, ()))
        used.append(file)
    has_names = all(part.names for part in parts.values())
    for start, part in parts.items():
        values = part.values
        if has_names:  # the sides may number the same names otherwise
            values = np.zeros(len(values))
            for value, label in part.names.items():
                values[part.values == value] = numbered.setdefault(label, len(numbered) + 1)
        flat[start : start + len(values)] = values
    names = {number: label for label, number in numbered.items()}
    return Labels(atlas_name(path, named.stem), flat, names, tuple(used))


def _is_wanted(brain: Brain, start: int, n: int) -> bool:
    """Whether the betas have vertices of the hemisphere that begins at ``start``."""
    return any(((columns >= start) & (columns < start + n)).any() for columns in brain.columns)


def _read(path: Path, n_vertices: int) -> tuple[NDArray[np.float64], dict[int, str]]:
    """Values and label names of one hemisphere."""
    if path.suffix == ".annot":
        labels, _, names = nib.freesurfer.read_annot(path)
        # -1 is no label; 0 is a region where its name says so
        return labels + 1.0, {i: name.decode(errors="replace") for i, name in enumerate(names, start=1)}
    if path.suffix == ".label":
        vertices = np.atleast_1d(nib.freesurfer.read_label(path))
        if len(vertices) and vertices.max() >= n_vertices:
            raise SynBrainError(
                f"{path} names vertex {vertices.max()}, the betas have {n_vertices} there",
                "give labels on the mesh of the betas (mri_label2label)",
            )
        values = np.zeros(n_vertices)
        values[vertices] = 1
        return values, {1: atlas_name(path, hemisphere_of(path).stem)}
    if has_suffix(path, MGH):
        volume: Any = nib.load(path)
        values = np.asarray(volume.dataobj, dtype=np.float64).reshape(-1, order="F")
        stems = (hemisphere_of(path).stem, path.name)
        tables = (rois.read_names(stem.removesuffix(path.suffix), [path], [])[0] for stem in stems)
        return values, next((names for names in tables if names), {})
    header, maps = gifti_header(path), list[NDArray[Any]]()
    if header.n_maps > 1:
        raise SynBrainError(f"{path} holds {header.n_maps} maps", "give a file of one map")
    read_gifti(path, lambda _, values: maps.append(values))
    return np.asarray(maps[0], dtype=np.float64), header.labels


def _require_count(path: Path, side: str, n: int, brain: Brain) -> None:
    if n != brain.vertices[side]:
        raise SynBrainError(
            f"{path} has {n} vertices, the {side} hemisphere of the betas has {brain.vertices[side]} "
            f"({brain.first[0].path.name})",
            "give files on one mesh, and check that left and right are not swapped",
        )


def _named(labels: Labels) -> Labels:
    """Without what is no region: values without a name, and names such as unknown and Medial_wall."""
    if not labels.names:
        return labels
    names = {
        value: name
        for value, name in labels.names.items()
        if value > 0 and not NO_LABEL.fullmatch(name.strip())
    }
    values = np.where(np.isin(labels.values, list(names)), labels.values, 0.0)
    return Labels(labels.name, values, names, labels.files)


def atlas_name(path: Path, stem: str) -> str:
    """What an atlas is called: the entity atlas- or seg-, else the name without hemisphere and suffix."""
    there = entities(path)
    suffix = next(suffix for suffix in KINDS if stem.lower().endswith(suffix))
    return there.get("atlas") or there.get("seg") or stem[: -len(suffix)]
