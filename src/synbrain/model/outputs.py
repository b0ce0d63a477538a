"""Responses as files that other tools open: the suffix of the name decides what is written.

==================================  =======================================================================
``.npy``                            (n_maps, n_images, n_voxels) float32
``.nii``, ``.nii.gz``               4-D volume; volume ``image * n_maps + map``
``.func.gii``, ``.shape.gii``       one file a hemisphere (``_hemi-L``, ``_hemi-R``), on fsaverage
``.mgh``, ``.mgz``                  one file a hemisphere (``lh.NAME``, ``rh.NAME``), frame = volume above
``.dscalar.nii``, ``.dtseries.nii`` CIFTI-2, one named row a map; a series has no names
``.csv``, ``.parquet``              one row an image and voxel (or ROI), one column a map
``.nc``                             xarray: a variable a map, named axes image and voxel (or roi)
==================================  =======================================================================

A sidecar ``.json`` beside each says what the numbers are.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from synbrain.arrays import Float32
from synbrain.data.fsaverage import has_surface, on_surface
from synbrain.data.space import STRUCTURE, STRUCTURE_PREFIX, Atlas, VoxelSpace, import_xarray
from synbrain.errors import SynBrainError
from synbrain.files import atomic_path, require_space, write_json
from synbrain.model.output_names import (
    FORM_OF,
    HEMISPHERE_FORMS,
    files_of,
    require_free,
    sidecar_of,
    suffix_of,
)
from synbrain.prepare.surface import STRUCTURES

NO_SURFACE = "the voxels have no known place on a cortical surface"


@dataclass(frozen=True)
class Responses:
    """Maps of responses to images, with the names of their axes.

    Attributes:
        values: (n_maps, n_images, n_columns) float32, may be a memory map.
        maps: (n_maps,) names: "expected", "sd", "lower_90", ... or "trial_0", "trial_1", ...
        images: (n_images,) names.
        space: of the voxels.
        unit: of the responses.
        rois: names of the columns where they are means over ROIs instead of voxels.
        about: JSON-able facts for the sidecar: run, subject, seed, ...
    """

    values: Float32
    maps: list[str]
    images: list[str]
    space: VoxelSpace
    unit: str
    rois: list[str] | None = None
    about: dict[str, Any] | None = None

    @property
    def description(self) -> str:
        """One line for headers with little room (NIfTI: 79 characters)."""
        shown = self.maps[0] if len(self.maps) == 1 else f"{self.maps[0]}..{self.maps[-1]}"
        return f"synbrain {shown} ({self.unit}); volume = image*{len(self.maps)}+map"[:79]


def require_output(
    out: Path, space: VoxelSpace, *, by_roi: bool = False, format: str | None = None, overwrite: bool = False
) -> str:
    """The suffix of ``out``, after every reason why it cannot be written was looked for; before any work.

    Raises:
        SynBrainError: where ``out`` exists, its format is unknown or contradicts ``format``, the space has
            no such form, or a package is missing.
    """
    suffix = require_free(out, format=format, overwrite=overwrite)
    kind = space.kind
    if suffix in (".nii", ".nii.gz") and kind != "volume":
        raise SynBrainError(f"a {kind} space cannot be written as NIfTI", "end --out in .npy, .csv or .nc")
    if FORM_OF[suffix] == "cifti" and kind == "none":
        raise SynBrainError("units without positions have no CIFTI form", "end --out in .npy, .csv or .nc")
    if FORM_OF[suffix] in HEMISPHERE_FORMS:
        what = HEMISPHERE_FORMS[FORM_OF[suffix]]
        if kind == "grayordinates":
            raise SynBrainError(
                f"no {what}: it holds vertices, and these have voxels too", "end --out in .dscalar.nii"
            )
        if kind != "surface" and not has_surface(space):
            raise SynBrainError(f"no {what}: {NO_SURFACE}", "end --out in .nii.gz, .npy, .csv or .nc")
    if by_roi and suffix not in (".csv", ".parquet", ".nc", ".npy"):
        raise SynBrainError(f"ROI means have no {suffix} form", "end --out in .csv, .parquet, .nc or .npy")
    if by_roi and not space.roi_masks():
        raise SynBrainError(
            "the space has no ROIs",
            "leave out --by roi, or prepare with --atlases and train again",
        )
    if suffix == ".nc":
        import_xarray()
    return suffix


def write_responses(out: Path, responses: Responses) -> list[Path]:
    """Write ``responses`` in the form that the suffix of ``out`` says, and the sidecar; whole or not at all.

    Call :func:`require_output` before the work: nothing is refused here any more.

    Returns:
        the files written.
    """
    suffix = suffix_of(out)
    files = files_of(out, suffix)
    out.parent.mkdir(parents=True, exist_ok=True)
    WRITERS[FORM_OF[suffix]](files, responses)
    axes = ["map", "image", "voxel" if responses.rois is None else "roi"]
    names: dict[str, Any] = {"axes": axes, "shape": list(responses.values.shape), "maps": responses.maps}
    names |= {"images": responses.images, "unit": responses.unit, "files": [file.name for file in files]}
    if responses.rois is not None:
        names["rois"] = responses.rois
    write_json(sidecar_of(out), (responses.about or {}) | names)
    return [*files, sidecar_of(out)]


def _write_npy(files: list[Path], responses: Responses) -> None:
    values = responses.values
    require_space(files[0].parent, values.nbytes)
    with atomic_path(files[0]) as partial:
        mapped = np.lib.format.open_memmap(partial, mode="w+", dtype=np.float32, shape=values.shape)
        for image in range(values.shape[1]):  # a memory map may be larger than the memory
            mapped[:, image] = values[:, image]
        mapped.flush()


def _save(image: Any, path: Path) -> None:
    with atomic_path(path) as partial:
        named = partial.with_name("partial." + path.name)  # nibabel goes by the suffix
        try:
            nib.save(image, named)
            os.replace(named, partial)
        finally:
            named.unlink(missing_ok=True)


def _write_nifti(files: list[Path], responses: Responses) -> None:
    space, values = responses.space, responses.values
    assert space.shape is not None
    n_maps, n_images, _ = values.shape
    require_space(files[0].parent, int(np.prod(space.shape)) * n_maps * n_images * 8)
    scratch = files[0].with_name(files[0].name + ".volumes.partial")  # the volumes may not fit in memory
    shape = (*space.shape, n_images * n_maps)
    volumes = np.memmap(scratch, dtype=np.float32, mode="w+", shape=shape, order="F")
    try:
        for image in range(n_images):
            block = slice(image * n_maps, (image + 1) * n_maps)
            volumes[..., block] = space.to_volume(np.asarray(values[:, image]), 0.0)
        nifti = nib.Nifti1Image(volumes, space.affine)
        nifti.header.set_xyzt_units("mm")
        nifti.header["descrip"] = responses.description.encode("ascii", "replace")
        nifti.header["intent_name"] = b"response"
        _save(nifti, files[0])
    finally:
        del volumes
        scratch.unlink(missing_ok=True)


def _on_vertices(responses: Responses) -> list[NDArray[np.float32]]:
    """Per hemisphere (n_images * n_maps, n_vertices) float32, image by image; NaN where there is no voxel."""
    space = responses.space
    maps = np.moveaxis(responses.values, 0, 1).reshape(-1, responses.values.shape[2])
    if space.kind != "surface":
        shown = on_surface(space, maps)
        return [shown["left"], shown["right"]]
    assert space.shape is not None
    vertices = np.asarray(space.to_volume(maps), dtype=np.float32).T
    return [vertices[:, : space.shape[0]], vertices[:, space.shape[0] :]]


def _write_gifti(files: list[Path], responses: Responses) -> None:
    names = [f"{image} {name}" for image in responses.images for name in responses.maps]
    for path, structure, maps in zip(files, STRUCTURES, _on_vertices(responses), strict=True):
        intent = "NIFTI_INTENT_SHAPE" if path.name.lower().endswith(".shape.gii") else "NIFTI_INTENT_NONE"
        arrays = [
            nib.gifti.GiftiDataArray(
                np.ascontiguousarray(values), intent, "NIFTI_TYPE_FLOAT32", meta={"Name": name}
            )
            for values, name in zip(maps, names, strict=True)
        ]
        meta = nib.gifti.GiftiMetaData(
            {"AnatomicalStructurePrimary": structure, "Description": responses.description}
        )
        _save(nib.gifti.GiftiImage(darrays=arrays, meta=meta), path)


def _write_mgh(files: list[Path], responses: Responses) -> None:
    for path, maps in zip(files, _on_vertices(responses), strict=True):
        shape = (maps.shape[1], 1, 1, len(maps))[: 4 if len(maps) > 1 else 3]  # a single frame is no axis
        frames = np.ascontiguousarray(maps.T).reshape(shape)
        _save(nib.MGHImage(frames, np.eye(4)), path)


def _write_cifti(files: list[Path], responses: Responses) -> None:
    cifti2 = nib.cifti2
    brain, order = _brain_models(responses.space)
    names = [f"{image} {name}" for image in responses.images for name in responses.maps]
    is_series = files[0].name.lower().endswith(".dtseries.nii")
    rows = cifti2.SeriesAxis(0, 1, len(names)) if is_series else cifti2.ScalarAxis(names)
    values = np.moveaxis(responses.values, 0, 1).reshape(len(names), -1)[:, order]
    image = cifti2.Cifti2Image(np.asarray(values), cifti2.Cifti2Header.from_axes((rows, brain)))
    image.nifti_header["descrip"] = responses.description.encode("ascii", "replace")
    _save(image, files[0])


def _brain_models(space: VoxelSpace) -> tuple[Any, NDArray[np.int64]]:
    """CIFTI's axis of the columns, and the columns in its order: that of the file that they came from."""
    assert space.index is not None
    assert space.shape is not None
    if STRUCTURE in space.atlases:
        return _structures(space, space.atlases[STRUCTURE])
    order = np.argsort(space.index)
    if space.kind == "volume":
        mask = np.zeros(space.shape, dtype=bool)
        mask.reshape(-1)[space.index] = True
        return nib.cifti2.BrainModelAxis.from_mask(mask, name="other", affine=space.affine), order
    index, n_left = space.index[order], space.shape[0]
    left, right = index[index < n_left], index[index >= n_left] - n_left
    axes = [
        nib.cifti2.BrainModelAxis.from_surface(vertices, size, name=name)
        for vertices, size, name in zip((left, right), space.shape, STRUCTURES, strict=True)
        if len(vertices)
    ]
    return (axes[0] if len(axes) == 1 else axes[0] + axes[1]), order


def _structures(space: VoxelSpace, atlas: Atlas) -> tuple[Any, NDArray[np.int64]]:
    """The axis of columns that came from CIFTI: each structure under its own name."""
    assert space.index is not None
    assert space.shape is not None
    grid = space.shape[-3:]
    n_left, n_right = space.shape[:2] if space.kind == "grayordinates" else (0, 0)
    axis, order = None, []
    for value, label in atlas.labels.items():
        columns = np.flatnonzero(atlas.values == value)
        if not len(columns):
            continue
        name, places = f"{STRUCTURE_PREFIX}{label}", space.index[columns]
        if places[0] < n_left + n_right:
            n, first = (n_left, 0) if label == "CORTEX_LEFT" else (n_right, n_left)
            part = nib.cifti2.BrainModelAxis.from_surface(places - first, n, name=name)
        else:
            voxels = np.stack(np.unravel_index(places - n_left - n_right, grid), axis=1)
            part = nib.cifti2.BrainModelAxis(name, voxel=voxels, affine=space.affine, volume_shape=grid)
        axis = part if axis is None else axis + part
        order.append(columns)
    return axis, np.concatenate(order)


def to_dataframe(responses: Responses) -> pd.DataFrame:
    """One row an image and voxel (or ROI): columns image, voxel (or roi), and one a map."""
    n_maps, n_images, n_columns = responses.values.shape
    names = np.arange(n_columns) if responses.rois is None else np.array(responses.rois, dtype=object)
    columns: dict[str, Any] = {
        "image": np.repeat(np.array(responses.images, dtype=object), n_columns),
        "voxel" if responses.rois is None else "roi": np.tile(names, n_images),
    }
    columns |= {responses.maps[k]: np.asarray(responses.values[k]).reshape(-1) for k in range(n_maps)}
    return pd.DataFrame(columns)


def _write_csv(files: list[Path], responses: Responses) -> None:
    with atomic_path(files[0]) as partial:
        to_dataframe(responses).to_csv(partial, index=False)


def _write_parquet(files: list[Path], responses: Responses) -> None:
    with atomic_path(files[0]) as partial:
        to_dataframe(responses).to_parquet(partial, index=False)


def to_xarray(responses: Responses) -> Any:
    """An :class:`xarray.Dataset` with one variable a map over (image, voxel) or (image, roi)."""
    xarray = import_xarray()
    axis = "voxel" if responses.rois is None else "roi"
    coordinates: dict[str, Any] = {"image": np.array(responses.images, dtype=object)}
    if responses.rois is None:
        coordinates |= responses.space.coordinates_by_name()
    else:
        coordinates["roi"] = np.array(responses.rois, dtype=object)
    variables = {
        name: (("image", axis), np.asarray(values), {"units": responses.unit})
        for name, values in zip(responses.maps, responses.values, strict=True)
    }
    plain = {k: v for k, v in (responses.about or {}).items() if isinstance(v, (str, int, float))}
    return xarray.Dataset(variables, coordinates, {"unit": responses.unit} | plain)


def _write_netcdf(files: list[Path], responses: Responses) -> None:
    with atomic_path(files[0]) as partial:
        to_xarray(responses).to_netcdf(partial, engine="h5netcdf")


WRITERS: dict[str, Callable[[list[Path], Responses], None]] = {
    "npy": _write_npy,
    "nifti": _write_nifti,
    "gifti": _write_gifti,
    "mgh": _write_mgh,
    "cifti": _write_cifti,
    "csv": _write_csv,
    "parquet": _write_parquet,
    "netcdf": _write_netcdf,
}
