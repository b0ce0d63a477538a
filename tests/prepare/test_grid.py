"""World space: axes that are mirrored or permuted are undone, everything else is refused with both names."""

from __future__ import annotations

from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import apply_orientation, inv_ornt_aff

from fixtures.recordings import AFFINE, GRID, INSIDE, Study, save
from synbrain.errors import SynBrainError
from synbrain.prepare.bids import prepare_bids
from synbrain.prepare.grid import Grid, positions_in
from synbrain.prepare.nsd.options import NsdOptions
from synbrain.prepare.nsd.prepare import prepare_nsd
from synbrain.prepare.options import BidsOptions

TURNS = [
    np.array(list(zip(axes, flips, strict=True)))
    for axes in permutations(range(3))
    for flips in product((1, -1), repeat=3)
]


def turned(values: np.ndarray, turn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same volume stored with other axes, and its affine."""
    return apply_orientation(values, turn), AFFINE @ inv_ornt_aff(turn, values.shape[:3])


@pytest.mark.parametrize("turn", TURNS)
def test_all_48_orientations_come_back(turn: np.ndarray) -> None:
    values = np.arange(np.prod(GRID)).reshape(GRID)
    stored, affine = turned(values, turn)
    oblique = nib.affines.from_matvec(nib.eulerangles.euler2mat(0.1, 0.2, 0.05))
    for world in (np.eye(4), oblique):
        there = positions_in(
            Grid(Path("a"), stored.shape, world @ affine), Grid(Path("b"), GRID, world @ AFFINE)
        )
        assert np.array_equal(stored.ravel()[there], values.ravel())


MIRROR = np.array([[0, -1], [1, 1], [2, 1]])
SWAP = np.array([[2, 1], [0, -1], [1, 1]])


@pytest.mark.parametrize("turn", [MIRROR, SWAP])
@pytest.mark.parametrize("what", ["mask", "atlas", "first run", "second run", "all runs"])
def test_what_is_stored_with_other_axes_gives_the_same(
    what: str, turn: np.ndarray, study: Study, tmp_path: Path
) -> None:
    labels = (np.arange(np.prod(GRID)).reshape(GRID) % 5).astype(np.int16)
    atlas = tmp_path / "atlas-mine_dseg.nii.gz"
    save(atlas, labels)
    if what == "mask":
        save(study.mask, *turned(INSIDE.astype(np.uint8), turn))
    elif what == "atlas":
        save(atlas, *turned(labels, turn))
    else:
        for run in {"first run": [1], "second run": [2], "all runs": [1, 2]}[what]:
            save(study.betas(run), *turned(study.of_run(run), turn))
    made = prepare_bids(study.root, tmp_path / "out", options=BidsOptions(atlases=[atlas]))
    space = made.space
    volume = space.to_volume(np.asarray(made.responses))  # (x, y, z, 16) in the first run's orientation
    back = apply_orientation(
        volume, nib.orientations.ornt_transform(nib.io_orientation(space.affine), nib.io_orientation(AFFINE))
    )
    assert np.array_equal(np.moveaxis(back, -1, 0)[:, INSIDE], study.expected)
    first = nib.load(study.betas(1)).affine
    assert np.array_equal(space.affine, first)  # the betas', not the mask's
    shown = apply_orientation(
        space.to_volume(space.atlases["mine"].values.astype(float), 0),
        nib.orientations.ornt_transform(nib.io_orientation(space.affine), nib.io_orientation(AFFINE)),
    )
    assert np.array_equal(shown[INSIDE], labels[INSIDE])


def _moved() -> np.ndarray:
    affine = AFFINE.copy()
    affine[0, 3] += 40
    return affine


OTHER = {
    "origin": (_moved(), "origins that differ by (40, 0, 0) mm"),
    "size": (AFFINE * [[1, 1, 1.1, 1]], "voxels of (2, 2, 2.2) mm and (2, 2, 2) mm"),
    "shear": (AFFINE + 0.3 * np.eye(4, k=1) * [[1], [0], [0], [0]], "mm"),
    "turned": (
        nib.affines.from_matvec(nib.eulerangles.euler2mat(0.2)) @ AFFINE,
        "axes turned or sheared against each other",
    ),
}


@pytest.mark.parametrize("case", OTHER)
@pytest.mark.parametrize("what", ["mask", "run", "atlas"])
def test_another_space_is_refused_with_both_names(case: str, what: str, study: Study, tmp_path: Path) -> None:
    affine, difference = OTHER[case]
    atlas = tmp_path / "atlas-mine_dseg.nii.gz"
    save(atlas, np.ones(GRID, np.int16))
    path = {"mask": study.mask, "run": study.betas(2), "atlas": atlas}[what]
    save(path, np.asarray(nib.load(path).dataobj), affine)
    with pytest.raises(SynBrainError) as raised:
        prepare_bids(study.root, tmp_path / "out", options=BidsOptions(atlases=[atlas]))
    told = str(raised.value)
    assert "different spaces" in told
    assert path.name in told
    assert study.betas(1).name in told
    assert difference in told
    assert not (tmp_path / "out").exists()


def test_rounding_of_the_affine_is_no_difference(study: Study, tmp_path: Path) -> None:
    save(study.mask, INSIDE.astype(np.uint8), AFFINE + 0.01)
    assert np.array_equal(prepare_bids(study.root, tmp_path / "out").responses, study.expected)


def test_headers_without_a_place_are_compared_by_shape_and_said(study: Study, tmp_path: Path) -> None:
    for run in (1, 2):
        image = nib.Nifti1Image(study.of_run(run), None)
        image.header["sform_code"] = image.header["qform_code"] = 0
        nib.save(image, study.betas(run))
    made = prepare_bids(study.root, tmp_path / "out")
    assert np.array_equal(made.responses, study.expected)
    assert np.array_equal(made.space.affine, AFFINE)  # type: ignore[arg-type]
    nib.save(nib.Nifti1Image(INSIDE.astype(np.uint8), None), study.mask)
    made = prepare_bids(study.root, tmp_path / "shapes")
    assert "shapes alone" in " ".join(made.info.provenance["notes"])
    assert made.space.affine is None


def test_nsd_masks_rois_and_sessions_follow_the_affine(own_nsd_tree: Path, nsd_betas, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    tree, options = own_nsd_tree, NsdOptions(rois=["prf-visualrois"])
    expected = prepare_nsd(tree, tmp_path / "plain", subject=1, options=options)

    def mirror(path: Path) -> None:
        image = nib.load(path)
        values = np.asarray(image.dataobj)
        flip = inv_ornt_aff(MIRROR, values.shape[:3])
        nib.save(nib.Nifti1Image(apply_orientation(values, MIRROR), image.affine @ flip), path)

    roi = tree / "nsddata/ppdata/subj01/func1pt8mm/roi"
    for name in ("prf-visualrois", "nsdgeneral", "lh.streams"):
        mirror(roi / f"{name}.nii.gz")
    mirror(nsd_betas(tree, 1) / "betas_session02.nii.gz")
    mirror(nsd_betas(tree, 1) / "ncsnr.nii.gz")
    made = prepare_nsd(tree, tmp_path / "mirrored", subject=1, options=options)
    assert np.array_equal(made.responses, expected.responses)
    assert np.array_equal(made.space.index, expected.space.index)  # type: ignore[arg-type]
    assert np.array_equal(made.space.ncsnr, expected.space.ncsnr)  # type: ignore[arg-type]
    for name, mask in expected.space.roi_masks().items():
        assert np.array_equal(made.space.roi_masks()[name], mask)
    whole = prepare_nsd(
        tree, tmp_path / "mask", subject=1, options=NsdOptions(mask=roi / "nsdgeneral.nii.gz")
    )
    usual = prepare_nsd(tree, tmp_path / "named", subject=1)
    assert np.array_equal(whole.responses, usual.responses)
    image = nib.load(roi / "nsdgeneral.nii.gz")
    shifted = image.affine.copy()
    shifted[2, 3] += 9
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), shifted), tmp_path / "shifted.nii.gz")
    with pytest.raises(SynBrainError, match=r"shifted\.nii\.gz.*betas_session01.*\(0, 0, 9\) mm"):
        prepare_nsd(tree, tmp_path / "x", subject=1, options=NsdOptions(mask=tmp_path / "shifted.nii.gz"))
