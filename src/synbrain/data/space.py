"""The voxel space of one subject: where its voxels lie, which ROIs they belong to, how reliable they are."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from synbrain.describe import as_text, counted
from synbrain.errors import SynBrainError
from synbrain.files import atomic_path, read_json, write_json

if TYPE_CHECKING:
    from nibabel import Nifti1Image

SpaceKind = Literal["volume", "surface", "grayordinates", "points", "none"]
UNIT_NAMES = {
    "volume": ("voxel", "voxels"),
    "surface": ("vertex", "vertices"),
    "grayordinates": ("grayordinate", "grayordinates"),
    "points": ("voxel", "voxels"),
    "none": ("unit", "units"),
}
STRUCTURE = "structure"  # the atlas of CIFTI's brain structures: CORTEX_LEFT, THALAMUS_RIGHT, ...
STRUCTURE_PREFIX = "CIFTI_STRUCTURE_"  # of their names in files
SPACE_JSON, SPACE_ARRAYS = "space.json", "voxels.npz"
N_FSAVERAGE5 = 10242  # vertices of one hemisphere


@dataclass(frozen=True)
class Atlas:
    """ROI labels of one atlas over the voxels of a space.

    Attributes:
        values: (n_voxels,) int32, label value of each voxel; values without a name are no ROI.
        labels: label value -> ROI name, as read from the atlas's own label file.
        source: where the labels come from (file names, atlas), kept as provenance.
    """

    values: NDArray[np.int32]
    labels: dict[int, str]
    source: str


@dataclass(frozen=True, repr=False)
class VoxelSpace:
    """Positions, ROI labels and reliability of ``n_voxels`` voxels, vertices or units.

    Attributes:
        n_voxels: number of voxels, in the column order of the responses.
        kind: "volume", "surface" (left then right hemisphere vertices), "grayordinates" (CIFTI: vertices,
            then voxels), "points" (positions without a grid) or "none" (no positions).
        shape: volume: (x, y, z) of the grid; surface: (n_left, n_right) vertices; grayordinates:
            (n_left, n_right, x, y, z).
        affine: (4, 4) float64, voxel indices to mm, for a volume and for the voxels of grayordinates.
        index: (n_voxels,) int64, position in the flattened grid (C order), in left + right vertices, or in
            left + right vertices + grid.
        atlases: atlas name -> labels.
        positions: (n_voxels, 3) float64 in mm, of points.
        ncsnr: (n_voxels,) float32, noise-ceiling signal-to-noise ratio (signal sd / noise sd), if known.
        fsaverage5: (20484,) int64, the voxel that each vertex of fsaverage5 (left, then right) lies in, -1
            where there is none; for volumes that bring a transform to the surface.
        in_mni: whether the affine of a volume leads to MNI mm.
        mesh: what the vertices belong to: fsaverage, fsLR, fsnative, ...; None where nothing says it.

    >>> import numpy as np
    >>> space = VoxelSpace.from_mask(np.ones((2, 2, 2), dtype=bool), np.eye(4))
    >>> space.n_voxels, space.coordinates()[-1].tolist()
    (8, [1.0, 1.0, 1.0])
    >>> space
    VoxelSpace(kind: volume, size: 8 voxels, shape: (2, 2, 2))
    """

    n_voxels: int
    kind: SpaceKind = "none"
    shape: tuple[int, ...] | None = None
    affine: NDArray[np.float64] | None = None
    index: NDArray[np.int64] | None = None
    atlases: dict[str, Atlas] = field(default_factory=dict)
    ncsnr: NDArray[np.float32] | None = None
    fsaverage5: NDArray[np.int64] | None = None
    in_mni: bool = False
    positions: NDArray[np.float64] | None = None
    mesh: str | None = None

    def __post_init__(self) -> None:
        arrays: dict[str, Any] = {"index": self.index, "ncsnr": self.ncsnr}
        arrays |= {f"atlas {name}": atlas.values for name, atlas in self.atlases.items()}
        for name, array in arrays.items():
            if array is not None and array.shape != (self.n_voxels,):
                raise SynBrainError(
                    f"{name} has shape {array.shape} in a space of "
                    f"{counted(self.n_voxels, *self.unit_words)}",
                    f"give one value per {self.unit_name}, in the column order of the responses",
                )
        if self.kind == "points":
            if self.positions is None or self.positions.shape != (self.n_voxels, 3):
                raise SynBrainError("points lack their positions", "give (n_voxels, 3) in mm")
        elif self.kind != "none" and (self.index is None or self.shape is None):
            raise SynBrainError(f"a {self.kind} space lacks its grid", "give shape and index")

    def __repr__(self) -> str:
        facts: dict[str, Any] = {
            "kind": self.kind,
            "size": counted(self.n_voxels, *self.unit_words),
            "shape": self.shape,
        }
        facts |= {"mesh": self.mesh, "ROIs": len(self.roi_masks()) or None}
        return as_text("VoxelSpace", {name: fact for name, fact in facts.items() if fact is not None})

    @classmethod
    def from_mask(cls, mask: Any, affine: Any, **rest: Any) -> VoxelSpace:
        """The space of the voxels where a boolean volume (x, y, z) is true, in C order."""
        grid = np.asarray(mask, dtype=bool)
        index = np.flatnonzero(grid)
        return cls(
            n_voxels=len(index),
            kind="volume",
            shape=grid.shape,
            affine=np.asarray(affine, dtype=np.float64),
            index=index.astype(np.int64),
            **rest,
        )

    @property
    def unit_name(self) -> str:
        """What a column of the responses is called: a voxel, a vertex, or a unit without a position."""
        return UNIT_NAMES[self.kind][0]

    @property
    def unit_words(self) -> tuple[str, str]:
        """One, and several of them, as :func:`synbrain.describe.counted` takes them."""
        return UNIT_NAMES[self.kind]

    @property
    def unit_names(self) -> str:
        """Several of them."""
        return UNIT_NAMES[self.kind][1]

    @property
    def grid_size(self) -> int:
        """Places that ``index`` counts: voxels of the grid, and vertices."""
        assert self.shape is not None
        n_vertices = 0 if self.kind == "volume" else sum(self.shape[:2])
        grid = self.shape if self.kind == "volume" else self.shape[2:]
        return n_vertices + (int(np.prod(grid)) if grid else 0)

    @property
    def has_coordinates(self) -> bool:
        """Whether :meth:`coordinates` knows them."""
        return self.positions is not None or (self.kind == "volume" and self.affine is not None)

    def coordinates(self) -> NDArray[np.float64]:
        """(n_voxels, 3) float64, the voxels' centres in mm; of volumes and points."""
        if self.positions is not None:
            return self.positions
        if self.kind != "volume" or self.affine is None or self.shape is None or self.index is None:
            raise SynBrainError("this space has no positions in mm", "use a volume, or points")
        grid = np.stack(np.unravel_index(self.index, self.shape), axis=1)
        from nibabel.affines import (
            apply_affine,
        )  # here: a tenth of a second, which `synbrain info` need not wait

        return np.asarray(apply_affine(self.affine, grid), dtype=np.float64)

    def roi_masks(self, atlas: str | None = None) -> dict[str, NDArray[np.bool_]]:
        """ROI masks by "atlas/label", (n_voxels,) bool; empty ROIs are left out."""
        masks = {}
        for name, labels in self.atlases.items():
            if atlas is not None and name != atlas:
                continue
            for value, label in labels.labels.items():
                mask = labels.values == value
                if mask.any():
                    masks[f"{name}/{label}"] = mask
        return masks

    def coordinates_by_name(self) -> dict[str, tuple[str, NDArray[Any]]]:
        """Coordinates along an axis "voxel" for xarray: grid place, x, y, z in mm, ncsnr, ROI names."""
        named: dict[str, tuple[str, NDArray[Any]]] = {"voxel": ("voxel", np.arange(self.n_voxels))}
        if self.index is not None:
            named["grid_index"] = ("voxel", self.index)
        if self.kind == "volume" and self.affine is not None:
            named |= {axis: ("voxel", mm) for axis, mm in zip("xyz", self.coordinates().T, strict=True)}
        if self.ncsnr is not None:
            named["ncsnr"] = ("voxel", self.ncsnr)
        for name, atlas in self.atlases.items():
            labels = [atlas.labels.get(int(value), "") for value in atlas.values]
            named[name] = ("voxel", np.array(labels, dtype=object))
        return named

    def to_volume(self, values: NDArray[Any], fill: float = np.nan) -> NDArray[Any]:
        """Scatter values (..., n_voxels) into (x, y, z, ...) (volumes) or (n_vertices [+ grid], ...)."""
        if self.index is None or self.shape is None:
            raise SynBrainError("units without positions have no volume", "write .npy instead")
        if values.shape[-1] != self.n_voxels:
            raise SynBrainError(
                f"{values.shape[-1]} values for {counted(self.n_voxels, *self.unit_words)}",
                f"give one value per {self.unit_name}",
            )
        flat = np.full((self.grid_size, *values.shape[:-1]), fill, dtype=np.result_type(values, np.float32))
        flat[self.index] = np.moveaxis(values, -1, 0)
        return flat.reshape(*self.shape, *values.shape[:-1]) if self.kind == "volume" else flat

    def to_nifti(self, values: NDArray[Any], fill: float = 0.0) -> Nifti1Image:
        """Values (..., n_voxels) as a NIfTI image of this grid; leading axes become the fourth."""
        volume = self.to_volume(np.asarray(values, dtype=np.float32), fill)
        if self.kind != "volume":
            raise SynBrainError("only a volume space can be written as NIfTI", "write .npy instead")
        from nibabel import Nifti1Image

        return Nifti1Image(volume, self.affine)

    def save(self, folder: Path) -> list[str]:
        """Write the space into ``folder`` and return the file names written."""
        folder.mkdir(parents=True, exist_ok=True)
        optional = {"index": self.index, "affine": self.affine, "ncsnr": self.ncsnr}
        optional |= {"fsaverage5": self.fsaverage5, "positions": self.positions}
        arrays: dict[str, Any] = {name: array for name, array in optional.items() if array is not None}
        arrays |= {f"atlas.{name}": atlas.values for name, atlas in self.atlases.items()}
        with atomic_path(folder / SPACE_ARRAYS) as partial, partial.open("wb") as handle:
            np.savez_compressed(handle, **arrays)
        atlases = {
            name: {"labels": {str(k): v for k, v in atlas.labels.items()}, "source": atlas.source}
            for name, atlas in self.atlases.items()
        }
        about = {"kind": self.kind, "n_voxels": self.n_voxels, "atlases": atlases}
        shape = list(self.shape) if self.shape else None
        grid: dict[str, Any] = {"shape": shape, "in_mni": self.in_mni}
        grid |= {"mesh": self.mesh} if self.mesh is not None else {}
        write_json(folder / SPACE_JSON, about | grid)
        return [SPACE_JSON, SPACE_ARRAYS]

    @classmethod
    def load(cls, folder: Path) -> VoxelSpace:
        """Read a space that :meth:`save` wrote."""
        about = read_json(folder / SPACE_JSON)
        with np.load(folder / SPACE_ARRAYS, allow_pickle=False) as arrays:
            stored = {name: arrays[name] for name in arrays.files}
        atlases = {
            name: Atlas(
                values=stored[f"atlas.{name}"],
                labels={int(k): v for k, v in entry["labels"].items()},
                source=entry["source"],
            )
            for name, entry in about["atlases"].items()
        }
        return cls(
            n_voxels=about["n_voxels"],
            kind=about["kind"],
            shape=tuple(about["shape"]) if about["shape"] else None,
            affine=stored.get("affine"),
            index=stored.get("index"),
            atlases=atlases,
            ncsnr=stored.get("ncsnr"),
            fsaverage5=stored.get("fsaverage5"),
            in_mni=bool(about.get("in_mni", False)),
            positions=stored.get("positions"),
            mesh=about.get("mesh"),
        )


def import_xarray() -> Any:
    """The xarray package.

    Raises:
        SynBrainError: where it, or what it writes netCDF with, is not installed.
    """
    missing = [name for name in ("xarray", "h5netcdf") if find_spec(name) is None]
    if missing:
        raise SynBrainError(f"{' and '.join(missing)} not installed", "pip install 'synbrain[xarray]'")
    return import_module("xarray")
