"""Arrays, pictures and meshes as the page carries them: base64 text inside JSON."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from synbrain.data.fsaverage import SIDES, has_surface, mesh, sulcal_depth, surface_weights
from synbrain.data.space import STRUCTURE, VoxelSpace

Json = dict[str, Any]
FULL = 32000  # the largest value in int16; -32768 is NaN
CAPTION = {
    "points": "No cortical surface is known for these voxels: each is drawn where it lies.",
    "mesh": "Only fsaverage comes with a mesh that is drawn, and these {} are of {}: they stand in their "
    "order, row by row. Maps that `synbrain predict --out NAME{}` writes can be opened on their own mesh.",
    "grid": "No positions are known for these {}: they are drawn in their order, row by row.",
}


def numbers(values: NDArray[Any], kind: str) -> Json:
    """An array as it is, in the dtype ``kind``."""
    content = np.ascontiguousarray(values, dtype=np.dtype(kind).newbyteorder("<"))
    return {"kind": kind, "data": base64.b64encode(content.tobytes()).decode()}


def quantised(values: NDArray[Any]) -> Json:
    """A float array in int16 with one scale: exact to 1/32000 of its largest value; NaN stays."""
    values = np.asarray(values, dtype=np.float64)
    known = np.isfinite(values)
    top = float(np.abs(values[known]).max()) if known.any() else 0.0
    scale = top / FULL or 1.0
    whole = np.where(known, np.rint(np.where(known, values, 0) / scale), -32768)
    return numbers(whole.reshape(-1), "int16") | {"scale": scale}


def picture(image: Image.Image, side: int, quality: int = 82) -> str:
    """A JPEG of at most ``side`` pixels as a data address."""
    small = image.convert("RGB")
    small.thumbnail((side, side))
    content = io.BytesIO()
    small.save(content, "JPEG", quality=quality)
    return "data:image/jpeg;base64," + base64.b64encode(content.getvalue()).decode()


def geometry(space: VoxelSpace, in_mni: bool = False) -> Json:
    """Where voxels are drawn: on fsaverage5, in a cloud at their places in mm, or in a grid."""
    if has_surface(space, in_mni):
        return _surface(space, in_mni)
    if space.has_coordinates:
        positions = space.coordinates()
        return {
            "kind": "points",
            "positions": quantised(positions - positions.mean(axis=0)),
            "spacing": _spacing(space),
            "note": CAPTION["points"],
        }
    columns = int(np.ceil(np.sqrt(space.n_voxels)))
    place = np.arange(space.n_voxels)
    positions = np.stack([place % columns, np.zeros_like(place), -(place // columns)], axis=1)
    note = CAPTION["grid"].format(space.unit_names)
    if space.kind in ("surface", "grayordinates"):
        mesh_name = "another mesh" if space.mesh in (None, "other") else space.mesh
        suffix = ".func.gii" if space.kind == "surface" else ".dscalar.nii"
        note = CAPTION["mesh"].format(space.unit_names, mesh_name, suffix)
    return {"kind": "grid", "positions": quantised(positions), "spacing": 0.9, "note": note}


def _spacing(space: VoxelSpace) -> float:
    """Size of a voxel, or a usual distance between points, mm."""
    if space.affine is not None:
        return float(np.linalg.norm(space.affine[:3, 0]))
    from scipy.spatial import KDTree

    places = np.unique(space.coordinates(), axis=0)
    if len(places) < 2:
        return 1.0
    return float(np.median(KDTree(places).query(places, k=2)[0][:, 1]))


def _surface(space: VoxelSpace, in_mni: bool) -> Json:
    weights = surface_weights(space, in_mni)
    closed = numbers(mesh("left", "infl")[1], "uint16")  # both hemispheres have the same triangles
    hemispheres = []
    for side in SIDES:
        flat, flat_faces = mesh(side, "flat")
        level = flat.copy()
        level[:, 2] = 0
        outside = np.setdiff1d(np.arange(len(level)), flat_faces)
        level[outside] = level[flat_faces[0, 0]]  # vertices of the cuts would stretch the picture
        hemispheres.append(
            {
                "name": side,
                "sheets": {
                    "inflated": quantised(mesh(side, "infl")[0]),
                    "white": quantised(mesh(side, "white")[0]),
                    "flat": quantised(level),
                },
                "faces": {"closed": closed, "flat": numbers(flat_faces, "uint16")},
                "sulci": numbers(np.where(sulcal_depth(side) > 0, 1, 0), "int8"),
            }
        )
    return {
        "kind": "surface",
        "hemispheres": hemispheres,
        "starts": numbers(weights.indptr, "int32"),
        "columns": numbers(weights.indices, "int32"),
        "weights": quantised(weights.data),
        "spacing": 2.0,
    }


def atlases(space: VoxelSpace) -> list[Json]:
    """Labels of each atlas: names by number, 0 is none, and the number of each voxel; the finest first."""
    packed = []
    for name, atlas in space.atlases.items():
        present = [value for value in atlas.labels if (atlas.values == value).any()]
        if not present:
            continue
        place = np.zeros(space.n_voxels, dtype=np.int16)
        for number, value in enumerate(present, start=1):
            place[atlas.values == value] = number
        labels = ["", *(atlas.labels[value] for value in present)]
        packed.append({"name": name, "labels": labels, "voxels": numbers(place, "int16")})
    # visual areas first, hemispheres last: the first is shown when the page opens
    rank = {"prf-visualrois": 0, "streams": 2, "hemisphere": 3, STRUCTURE: 4}
    return sorted(packed, key=lambda atlas: rank.get(atlas["name"], 1))
