"""Which voxels of NSD are taken, and what is known of them: masks, ROIs, hemispheres, ncsnr."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from synbrain.data.fsaverage import nsd_vertices
from synbrain.data.space import Atlas, VoxelSpace
from synbrain.errors import SynBrainError
from synbrain.prepare import rois as nsd_rois
from synbrain.prepare.betas import BetaFile
from synbrain.prepare.grid import Grid, with_affine
from synbrain.prepare.nsd import layout as nsd_layout


@dataclass(frozen=True)
class ChosenVoxels:
    """The voxels taken from the grid of a subject's betas.

    Attributes:
        grids: where each part lies: one volume, or left and right hemisphere.
        index: (n_voxels,) positions in the flat grid, parts one after another, ascending.
        mask: what the voxels were chosen by, in words.
        mask_atlas: the atlas that served as the mask (every voxel lies in it).
    """

    grids: tuple[Grid, ...]
    index: NDArray[np.int64]
    mask: str
    mask_atlas: str | None

    @property
    def is_surface(self) -> bool:
        return len(self.grids) == 2

    def parts(self) -> list[NDArray[np.int64]]:
        """The voxels of each part, as positions in that part."""
        sizes = [grid.size for grid in self.grids]
        ends = np.concatenate([[0], np.cumsum(sizes)])
        return [
            self.index[(self.index >= first) & (self.index < last)] - first for first, last in pairwise(ends)
        ]


def choose_voxels(
    src: Path,
    subject: int,
    space: str,
    first: tuple[BetaFile, ...],
    mask: str | Path | None,
    rois: list[str] | None,
) -> tuple[ChosenVoxels, dict[str, nsd_rois.LabelMap]]:
    """The voxels asked for, and every label map on their grid."""
    folder = nsd_layout.roi_folder(src, subject, space)
    surface = len(first) == 2
    files_of = nsd_rois.map_files(folder, surface)
    # HDF5 betas do not say where they lie: the volumes beside them do
    beside = [
        *sorted(first[0].path.parent.glob("*.nii.gz")),
        *(path for files in files_of.values() for path in files),
    ]
    grids = tuple(with_affine(about.place, beside) for about in first)
    maps = {}
    for name, files in files_of.items():
        loaded = nsd_rois.load_map(name, files, grids)
        if loaded is not None:
            maps[name] = loaded
    chosen = np.ones(sum(grid.size for grid in grids), dtype=bool)
    words, mask_atlas = [], None
    if mask is None and not rois:
        mask = "nsdgeneral"
    if mask is not None:
        if str(mask) in maps:
            mask_atlas = str(mask)
            values: nsd_rois.Flat = maps[mask_atlas].values
        elif surface or not Path(mask).is_file():
            raise SynBrainError(
                f"there is no mask {mask} in {folder}",
                f"pass --mask with a file on the grid of the betas, or one of {sorted(maps)}",
            )
        else:
            values = nsd_rois.load_flat((Path(mask),), grids)
        chosen &= values > 0
        words.append(str(mask) if mask_atlas else Path(mask).name)
    if rois:
        chosen &= nsd_rois.roi_mask(rois, maps, nsd_layout.label_folders(src, subject, space))
        words.append(" or ".join(rois))
    if not chosen.any():
        raise SynBrainError(f"no voxel lies in {' and '.join(words)}", "choose another mask")
    return ChosenVoxels(grids, np.flatnonzero(chosen), " and ".join(words), mask_atlas), maps


def voxel_space(
    src: Path, subject: int, space: str, betas: str, grid: ChosenVoxels, maps: dict[str, nsd_rois.LabelMap]
) -> VoxelSpace:
    labels = nsd_layout.label_folders(src, subject, space)
    atlases: dict[str, Atlas] = {
        name: nsd_rois.make_atlas(files_of, grid.index, labels, src)
        for name, files_of in maps.items()
        if name != grid.mask_atlas
    }
    folder = nsd_layout.betas_folder(src, subject, space, betas)
    ncsnr_files: tuple[Path, ...]
    shape: tuple[int, ...]
    if grid.is_surface:
        shape = tuple(part.size for part in grid.grids)
        atlases["hemisphere"] = nsd_rois.vertex_sides(grid.index, shape[0], sum(shape))
        ncsnr_files = (folder / "lh.ncsnr.mgh", folder / "rh.ncsnr.mgh")
    else:
        shape = grid.grids[0].shape
        rois = nsd_layout.roi_folder(src, subject, space)
        hemispheres = nsd_rois.hemisphere_atlas(rois, grid.grids[0], grid.index)
        if hemispheres is not None:
            atlases["hemisphere"] = hemispheres
        ncsnr_files = (folder / "ncsnr.nii.gz",)
    ncsnr = None
    if all(path.exists() for path in ncsnr_files):
        flat = nsd_rois.load_flat(ncsnr_files, grid.grids)
        ncsnr = flat[grid.index].astype(np.float32)
    return VoxelSpace(
        n_voxels=len(grid.index),
        kind="surface" if grid.is_surface else "volume",
        shape=shape,
        affine=grid.grids[0].affine,
        index=grid.index.astype(np.int64),
        atlases=atlases,
        ncsnr=ncsnr,
        fsaverage5=None if grid.is_surface else _vertices(src, subject, space, grid),
        mesh=space if grid.is_surface else None,
    )


def _vertices(src: Path, subject: int, space: str, grid: ChosenVoxels) -> NDArray[np.int64] | None:
    transforms = nsd_layout.transforms_folder(src, subject)
    return nsd_vertices(transforms, grid.grids[0].shape, grid.index, space.removesuffix("mm"))
