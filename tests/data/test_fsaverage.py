"""Voxels on fsaverage5: by NSD's transforms, by vertices, by MNI mm; never by guess."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from synbrain.data.fsaverage import N_FSAVERAGE5, has_surface, mesh, nsd_vertices, on_surface
from synbrain.data.space import VoxelSpace
from synbrain.errors import SynBrainError
from synbrain.prepare.nsd.prepare import prepare_nsd

N_NATIVE, N_FSAVERAGE = 300, 163842


def write_transforms(folder: Path, places: np.ndarray, natives: np.ndarray) -> None:
    for hemi in ("lh", "rh"):
        for name, values in (
            ("func1pt8-to-layerB2", places[:, None, None].astype(np.float32)),
            ("white-to-fsaverage", natives[:, None, None].astype(np.float32)),
        ):
            nib.save(nib.MGHImage(values, np.eye(4)), folder / f"{hemi}.{name}.mgz")


def test_nsd_transforms_are_one_based_and_lead_over_the_native_surface(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    shape = (6, 7, 8)
    places = np.stack([rng.uniform(0.6, n + 0.4, N_NATIVE) for n in shape], axis=1)
    places[:20] = 9999
    natives = rng.integers(1, N_NATIVE + 1, N_FSAVERAGE)
    write_transforms(tmp_path, places, natives)
    index = np.sort(rng.choice(6 * 7 * 8, 100, replace=False))
    columns = nsd_vertices(tmp_path, shape, index)
    assert columns is not None
    assert columns.shape == (2 * N_FSAVERAGE5,)
    for vertex in (0, 17, 5000, 10241):
        native = natives[vertex] - 1
        voxel = np.rint(places[native].astype(np.float32)).astype(int) - 1
        expected = -1
        if native >= 20:
            flat = np.ravel_multi_index(tuple(voxel), shape)
            expected = int(np.flatnonzero(index == flat)[0]) if flat in index else -1
        assert columns[vertex] == columns[N_FSAVERAGE5 + vertex] == expected
    assert nsd_vertices(tmp_path / "nowhere", shape, index) is None


def test_a_prepared_nsd_subject_has_its_surface(nsd_tree: Path, tmp_path: Path) -> None:
    dataset = prepare_nsd(nsd_tree, tmp_path / "d", subject=1)
    space = dataset.space
    assert has_surface(space)
    shown = on_surface(space, space.coordinates().T)
    # the simulated subject's surface is fsaverage5, so a vertex lies in its voxel of 9 mm
    for side in ("left", "right"):
        middle = (mesh(side, "white")[0] + mesh(side, "pial")[0]) / 2
        known = np.isfinite(shown[side][0])
        assert known.sum() > 200
        assert np.abs(shown[side].T[known] - middle[known]).max() <= 4.5 + 1e-3


def test_vertices_of_any_fsaverage_are_nested() -> None:
    space = VoxelSpace(3, "surface", (163842, 163842), None, np.array([4, 20000, 163842 + 9]))
    shown = on_surface(space, np.array([[1.0, 2.0, 3.0]]))
    assert shown["left"][0, 4] == 1
    assert shown["right"][0, 9] == 3
    assert np.isfinite(shown["left"]).sum() == np.isfinite(shown["right"]).sum() == 1


def test_unknown_spaces_are_refused() -> None:
    native = VoxelSpace.from_mask(np.ones((2, 2, 2), bool), np.eye(4))
    for space in (native, VoxelSpace(3), VoxelSpace(1, "surface", (5, 5), None, np.array([1]))):
        assert not has_surface(space)
        with pytest.raises(SynBrainError, match="no known place"):
            on_surface(space, np.zeros((1, space.n_voxels)))
