"""Values of voxels on fsaverage5, the standard cortical surface that comes with nilearn.

A vertex shows, in this order of preference: itself (surface spaces of an fsaverage), the voxel that the
data set's own transforms name for it (``space.fsaverage5``, which NSD has), or the mean of the voxels within
a few mm (volumes in MNI space). Other spaces have no surface.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from synbrain.arrays import Float32
from synbrain.data.space import N_FSAVERAGE5, VoxelSpace
from synbrain.errors import SynBrainError

Side = Literal["left", "right"]
SIDES: tuple[Side, Side] = ("left", "right")
# vertices of a hemisphere in fsaverage5, 6 and 7: each mesh's vertices are the first of the finer ones
NESTED = (N_FSAVERAGE5, 40962, 163842)
BALL_MM = 4.0  # a vertex of an MNI volume shows the mean of the voxels within this distance of it
NO_DATA = 9999.0  # what NSD's transforms hold where a vertex has no place


@lru_cache(maxsize=16)
def mesh(side: Side, sheet: str) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Vertices (10242, 3) float32 mm and triangles (20480, 3) of a sheet: infl, white, pial, flat, sphere."""
    from nilearn import datasets, surface  # slow to import

    loaded = surface.load_surf_mesh(datasets.fetch_surf_fsaverage("fsaverage5")[f"{sheet}_{side}"])
    return (
        np.asarray(loaded.coordinates, dtype=np.float32),
        np.asarray(loaded.faces, dtype=np.int64),
    )


@lru_cache(maxsize=2)
def sulcal_depth(side: Side) -> NDArray[np.float32]:
    """(10242,) float32; above 0 in sulci."""
    from nilearn import datasets, surface

    depth = surface.load_surf_data(datasets.fetch_surf_fsaverage("fsaverage5")[f"sulc_{side}"])
    return np.asarray(depth, dtype=np.float32)


def has_surface(space: VoxelSpace, in_mni: bool = False) -> bool:
    """Whether :func:`surface_weights` knows where the voxels lie on fsaverage5."""
    if space.kind in ("surface", "grayordinates"):
        # fs_LR has a mesh of as many vertices as fsaverage, in other places
        is_fsaverage = space.mesh is None or space.mesh.startswith("fsaverage")
        return is_fsaverage and space.shape is not None and all(n in NESTED for n in space.shape[:2])
    return space.kind == "volume" and (space.fsaverage5 is not None or space.in_mni or in_mni)


def surface_weights(space: VoxelSpace, in_mni: bool = False) -> csr_matrix:
    """(20484, n_voxels) sparse: how much of each voxel a vertex (left, then right) shows; rows sum to 1 or 0.

    Args:
        space: of the voxels.
        in_mni: the affine leads to MNI mm, though the space does not say so.

    Raises:
        SynBrainError: where the space has no known surface.
    """
    if not has_surface(space, in_mni):
        raise SynBrainError(
            f"this {space.kind} space has no known place on a cortical surface",
            "name the --mesh when preparing, if it is one of fsaverage"
            if space.kind in ("surface", "grayordinates")
            else "prepare NSD with its transforms, or say --mni where the volume is in MNI space",
        )
    if space.kind in ("surface", "grayordinates"):
        return _of_vertices(space)
    if space.fsaverage5 is not None:
        vertices = np.flatnonzero(space.fsaverage5 >= 0)
        entries = (np.ones(len(vertices)), (vertices, space.fsaverage5[vertices]))
        return csr_matrix(entries, shape=(2 * N_FSAVERAGE5, space.n_voxels))
    return _of_mni(space)


def on_surface(space: VoxelSpace, maps: NDArray[Any], in_mni: bool = False) -> dict[Side, Float32]:
    """Maps (n_maps, n_voxels) on fsaverage5: hemisphere -> (n_maps, 10242) float32, NaN without data."""
    weights = surface_weights(space, in_mni)
    values = np.asarray((weights @ np.asarray(maps, dtype=np.float32).T).T, dtype=np.float32)
    values[:, np.diff(weights.indptr) == 0] = np.nan
    return {"left": values[:, :N_FSAVERAGE5], "right": values[:, N_FSAVERAGE5:]}


def _of_vertices(space: VoxelSpace) -> csr_matrix:
    assert space.shape is not None
    assert space.index is not None
    n_left, n_right = space.shape[:2]
    right = space.index >= n_left
    vertex = np.where(right, space.index - n_left, space.index)
    shown = np.flatnonzero((vertex < N_FSAVERAGE5) & (space.index < n_left + n_right))
    rows = vertex[shown] + N_FSAVERAGE5 * right[shown]
    return csr_matrix((np.ones(len(shown)), (rows, shown)), shape=(2 * N_FSAVERAGE5, space.n_voxels))


def _of_mni(space: VoxelSpace) -> csr_matrix:
    from scipy.spatial import cKDTree

    voxels = cKDTree(space.coordinates())
    middles = [(mesh(side, "pial")[0] + mesh(side, "white")[0]) / 2 for side in SIDES]
    near = voxels.query_ball_point(np.concatenate(middles), r=BALL_MM)
    counts = np.array([len(members) for members in near])
    # a sparse average: nilearn's vol_to_surf would blend in the zeros that lie outside the mask
    rows = np.repeat(np.arange(len(near)), counts)
    columns = np.concatenate([np.asarray(members, dtype=np.int64) for members in near])
    return csr_matrix((1.0 / counts[rows], (rows, columns)), shape=(len(near), space.n_voxels))


def nsd_vertices(
    transforms: Path, shape: tuple[int, ...], index: NDArray[np.int64], grid: str = "func1pt8"
) -> NDArray[np.int64] | None:
    """The voxel that each fsaverage5 vertex lies in, by NSD's own transforms.

    ``?h.GRID-to-layerB2.mgz`` has for each vertex of the subject's middle cortical surface its place
    in the volume, 1-based; ``?h.white-to-fsaverage.mgz`` has for each fsaverage vertex the subject's vertex,
    1-based. The first 10,242 vertices of fsaverage are those of fsaverage5.

    Args:
        transforms: nsddata/ppdata/subjAA/transforms.
        shape: of the volume.
        index: (n_voxels,) positions of the voxels in the flat volume, ascending.
        grid: "func1pt8" or "func1pt0".

    Returns:
        (20484,) int64, column of the voxel, -1 where there is none; None where a file is missing.
    """
    columns = np.full(2 * N_FSAVERAGE5, -1, dtype=np.int64)
    for number, hemi in enumerate(("lh", "rh")):
        files = [transforms / f"{hemi}.{name}.mgz" for name in (f"{grid}-to-layerB2", "white-to-fsaverage")]
        if not all(file.exists() for file in files):
            return None
        places, natives = (np.asanyarray(nib.MGHImage.from_filename(file).dataobj) for file in files)
        native = np.rint(natives.reshape(-1)[:N_FSAVERAGE5]).astype(np.int64) - 1
        place = places.reshape(-1, 3)[native]
        voxel = np.rint(np.where(place >= NO_DATA, 0, place)).astype(np.int64) - 1
        inside = ((voxel >= 0) & (voxel < np.array(shape))).all(axis=1)
        flat = np.ravel_multi_index(tuple(voxel[inside].T), shape)
        position = np.minimum(np.searchsorted(index, flat), len(index) - 1)
        rows = number * N_FSAVERAGE5 + np.flatnonzero(inside)
        columns[rows] = np.where(index[position] == flat, position, -1)
    return columns
