"""VoxelSpace: scattering to the grid and back, ROIs, saving, and what does not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from synbrain.data.space import Atlas, VoxelSpace
from synbrain.errors import SynBrainError

AFFINE = np.array([[-2.0, 0, 0, 10], [0, 2, 0, -20], [0, 0, 3, 5], [0, 0, 0, 1]])


@pytest.fixture
def space() -> VoxelSpace:
    """Five voxels of a 3 x 4 x 2 grid with one atlas."""
    mask = np.zeros((3, 4, 2), dtype=bool)
    mask[0, 1, 0] = mask[0, 3, 1] = mask[1, 0, 0] = mask[2, 2, 1] = mask[2, 3, 0] = True
    atlas = Atlas(np.array([1, 2, 0, 1, 9], np.int32), {1: "V1", 2: "V2", 3: "V3"}, "file.nii.gz")
    return VoxelSpace.from_mask(mask, AFFINE, atlases={"early": atlas}, ncsnr=np.arange(5, dtype=np.float32))


def test_volume_holds_values_at_the_voxels_in_c_order(space: VoxelSpace) -> None:
    volume = space.to_volume(np.array([10.0, 20, 30, 40, 50]))
    assert volume[0, 1, 0] == 10
    assert volume[2, 2, 1] == 40
    assert volume[2, 3, 0] == 50
    assert np.isnan(volume).sum() == 24 - 5
    assert np.array_equal(volume.reshape(-1)[space.index], [10, 20, 30, 40, 50])  # type: ignore[index]


def test_leading_axes_become_the_fourth(space: VoxelSpace) -> None:
    values = np.arange(15.0).reshape(3, 5)
    image = space.to_nifti(values)
    assert image.shape == (3, 4, 2, 3)
    assert np.array_equal(image.get_fdata()[0, 1, 0], values[:, 0])
    assert np.array_equal(image.affine, AFFINE)


def test_coordinates_follow_the_affine(space: VoxelSpace) -> None:
    assert np.array_equal(space.coordinates()[0], [10, -18, 5])  # voxel (0, 1, 0)


def test_rois_without_voxels_or_names_are_left_out(space: VoxelSpace) -> None:
    masks = space.roi_masks()
    assert set(masks) == {"early/V1", "early/V2"}
    assert masks["early/V1"].tolist() == [True, False, False, True, False]
    assert space.roi_masks("late") == {}


def test_save_and_load(space: VoxelSpace, tmp_path: Path) -> None:
    names = space.save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
    loaded = VoxelSpace.load(tmp_path)
    assert (loaded.kind, loaded.shape, loaded.n_voxels) == ("volume", (3, 4, 2), 5)
    for name in ("affine", "index", "ncsnr"):
        assert np.array_equal(getattr(loaded, name), getattr(space, name))
    assert np.array_equal(loaded.atlases["early"].values, space.atlases["early"].values)
    assert loaded.atlases["early"].labels == {1: "V1", 2: "V2", 3: "V3"}
    assert loaded.atlases["early"].source == "file.nii.gz"


def test_units_without_positions(tmp_path: Path) -> None:
    plain = VoxelSpace(n_voxels=3)
    plain.save(tmp_path)
    assert VoxelSpace.load(tmp_path) == plain
    for call in (plain.coordinates, lambda: plain.to_volume(np.zeros(3))):
        with pytest.raises(SynBrainError):
            call()


def test_surface_scatters_into_left_then_right_vertices() -> None:
    surface = VoxelSpace(n_voxels=3, kind="surface", shape=(4, 3), index=np.array([1, 3, 5]))
    values = surface.to_volume(np.array([1.0, 2, 3]), fill=0)
    assert values.tolist() == [0, 1, 0, 2, 0, 3, 0]
    with pytest.raises(SynBrainError, match="only a volume"):
        surface.to_nifti(np.zeros(3))


@pytest.mark.parametrize(
    "given",
    [
        {"ncsnr": np.zeros(4, np.float32)},
        {"index": np.arange(6)},
        {"atlases": {"a": Atlas(np.zeros(2, np.int32), {}, "")}},
        {"kind": "volume"},
    ],
)
def test_what_does_not_fit_is_told(given: dict[str, object]) -> None:
    with pytest.raises(SynBrainError):
        VoxelSpace(n_voxels=5, **given)  # type: ignore[arg-type]


def test_values_of_another_length_are_refused(space: VoxelSpace) -> None:
    with pytest.raises(SynBrainError, match="4 values for 5 voxels"):
        space.to_volume(np.zeros(4))
