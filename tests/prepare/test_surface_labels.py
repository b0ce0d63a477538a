"""Masks and atlases on a surface, in every form: which vertices are taken, and what regions are called."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fixtures.recordings import save
from fixtures.surfaces import (
    N_LEFT,
    N_RIGHT,
    SurfaceStudy,
    cortex,
    grayordinates,
    save_annot,
    save_cifti,
    save_gifti,
    save_label,
    save_label_gifti,
    save_mgh,
)
from synbrain.errors import SynBrainError
from synbrain.prepare.bids import prepare_bids
from synbrain.prepare.options import BidsOptions

LEFT, RIGHT = [1, 4, 8], [0, 6]  # of the mask
CHOSEN = [*LEFT, *(N_LEFT + vertex for vertex in RIGHT)]


def inside(vertices: list[int], n: int) -> np.ndarray:
    values = np.zeros(n)
    values[vertices] = 1
    return values


L, R = inside(LEFT, N_LEFT), inside(RIGHT, N_RIGHT)


def as_label(folder: Path) -> Path:
    save_label(folder / "lh.visual.label", LEFT)
    save_label(folder / "rh.visual.label", RIGHT)
    return folder / "lh.visual.label"


def as_annot(folder: Path) -> Path:
    for side, values in (("lh", L), ("rh", R)):
        save_annot(folder / f"{side}.visual.annot", values.astype(int), ["unknown", "visual"])
    return folder / "lh.visual.annot"


def as_label_gifti(folder: Path) -> Path:
    for side, values in (("L", L), ("R", R)):
        path = folder / f"sub-01_hemi-{side}_desc-visual_roi.label.gii"
        save_label_gifti(path, values, {0: "???", 1: "visual"})
    return path


def as_shape_gifti(folder: Path) -> Path:
    for side, values in (("L", L), ("R", R)):
        save_gifti(folder / f"visual.{side}.shape.gii", np.where(values, 0.7, np.nan)[None], side)
    return folder / "visual.L.shape.gii"


def as_mgz(folder: Path) -> Path:
    for side, values in (("lh", L), ("rh", R)):
        save_mgh(folder / f"{side}.visual.mgz", (2 * values - 1)[None])  # -1 is outside, as in NSD
    return folder / "rh.visual.mgz"


def as_dlabel(folder: Path) -> Path:
    path = folder / "visual.dlabel.nii"
    brain = cortex([*range(N_LEFT)], [*range(N_RIGHT)])
    save_cifti(path, np.concatenate([L, R])[None], brain, {0: "???", 1: "visual"})
    return path


def as_dscalar_of_a_part(folder: Path) -> Path:
    path = folder / "visual.dscalar.nii"
    save_cifti(path, np.ones((1, 5)), cortex(LEFT, RIGHT))
    return path


WAYS = [as_label, as_annot, as_label_gifti, as_shape_gifti, as_mgz, as_dlabel, as_dscalar_of_a_part]


@pytest.mark.parametrize("form", [".func.gii", ".mgh", ".dscalar.nii"])
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_a_mask_chooses_vertices(
    way: Callable[[Path], Path], form: str, surface_study: SurfaceStudy, tmp_path: Path
) -> None:
    surface_study.write(form)
    made = prepare_bids(surface_study.root, tmp_path / "ds", options=BidsOptions(mask=way(tmp_path)))
    assert np.array_equal(made.responses, surface_study.both[:, CHOSEN])
    assert np.array_equal(made.space.index, CHOSEN)  # type: ignore[arg-type]
    assert made.space.roi_masks()["hemisphere/right"].tolist() == [False] * 3 + [True] * 2


def test_the_only_mask_in_the_folder_is_taken(surface_study: SurfaceStudy, tmp_path: Path) -> None:
    surface_study.write(".func.gii")
    for side, values in (("L", L), ("R", R)):
        save_gifti(surface_study.root / f"sub-01_hemi-{side}_desc-visual_mask.shape.gii", values[None], side)
    # volumes beside it are no masks of a surface
    save(surface_study.root / "freesurfer" / "brainmask.mgz", np.ones((4, 4, 4), np.uint8))
    made = prepare_bids(surface_study.root, tmp_path / "ds")
    assert made.n_voxels == 5
    assert made.info.provenance["mask"] == "sub-01_hemi-L_desc-visual_mask.shape.gii"
    for side, values in (("L", L), ("R", R)):
        save_gifti(surface_study.root / f"sub-01_hemi-{side}_desc-other_mask.shape.gii", values[None], side)
    with pytest.raises(SynBrainError, match="has 2 masks"):
        prepare_bids(surface_study.root, tmp_path / "no")


def atlases(folder: Path) -> list[Path]:
    """The same three regions in each form, with other numbers on the right."""
    left, right = np.zeros(N_LEFT, dtype=int), np.zeros(N_RIGHT, dtype=int)
    left[:3], left[3:5], right[2:4] = 1, 2, 1  # V1, V2 and V2
    save_annot(folder / "lh.made.annot", np.where(left == 0, -1, left), ["Medial_wall", "V1", "V2"])
    save_annot(folder / "rh.made.annot", right, ["unknown", "V2"])
    save_label_gifti(
        folder / "sub-01_hemi-L_atlas-second_dseg.label.gii", left * 3, {0: "???", 3: "V1", 6: "V2"}
    )
    save_label_gifti(folder / "sub-01_hemi-R_atlas-second_dseg.label.gii", right, {0: "???", 1: "V2"})
    save_mgh(folder / "lh.third.mgz", left[None])
    save_mgh(folder / "rh.third.mgz", 2 * right[None])
    (folder / "third.mgz.ctab").write_text("0 Unknown\n1 V1 0 0 0 0\n2 V2 0 0 0 0\n")
    brain = cortex([*range(N_LEFT)], [*range(N_RIGHT)])
    both = np.concatenate([left, 2 * right])
    save_cifti(folder / "fourth.dlabel.nii", both[None], brain, {0: "???", 1: "V1", 2: "V2"})
    save_label(folder / "lh.V1.label", [0, 1, 2])  # there is none of the right hemisphere
    names = ["lh.made.annot", "rh.made.annot", "sub-01_hemi-R_atlas-second_dseg.label.gii", "rh.third.mgz"]
    return [folder / name for name in [*names, "fourth.dlabel.nii", "lh.V1.label"]]


@pytest.mark.parametrize("form", [".shape.gii", ".dtseries.nii"])
def test_atlases_keep_their_names(form: str, surface_study: SurfaceStudy, tmp_path: Path) -> None:
    surface_study.write(form)
    made = prepare_bids(surface_study.root, tmp_path / "ds", options=BidsOptions(atlases=atlases(tmp_path)))
    masks = made.space.roi_masks()
    assert set(masks) == {
        "hemisphere/left", "hemisphere/right", "V1/V1",
        *(f"{name}/{area}" for name in ("made", "second", "third", "fourth") for area in ("V1", "V2")),
    }  # fmt: skip
    for name in ("made", "second", "third", "fourth"):
        assert np.flatnonzero(masks[f"{name}/V1"]).tolist() == [0, 1, 2], name
        assert np.flatnonzero(masks[f"{name}/V2"]).tolist() == [3, 4, N_LEFT + 2, N_LEFT + 3], name
    assert np.flatnonzero(masks["V1/V1"]).tolist() == [0, 1, 2]
    assert made.space.atlases["made"].source == "lh.made.annot + rh.made.annot"


def test_a_cortical_atlas_on_grayordinates(surface_study: SurfaceStudy, tmp_path: Path) -> None:
    axis = grayordinates()
    values = np.random.default_rng(0).normal(size=(16, len(axis))).astype(np.float32)
    for run in (1, 2):
        path = surface_study.study.func / f"{surface_study.stem(run)}_betas.dscalar.nii"
        save_cifti(path, values[(run - 1) * 8 : run * 8], axis)
    options = BidsOptions(atlases=[tmp_path / "fourth.dlabel.nii"], mask=tmp_path / "part.dscalar.nii")
    atlases(tmp_path)
    save_cifti(tmp_path / "part.dscalar.nii", np.ones((1, 10)), axis[4:14])
    made = prepare_bids(surface_study.root, tmp_path / "ds", options=options)
    assert np.array_equal(made.responses, values[:, 4:14])
    assert made.space.roi_masks()["fourth/V2"].sum() == 1  # vertex 2 of the right hemisphere
    assert made.space.roi_masks()["structure/BRAIN_STEM"].sum() == 2


def other_mesh(folder: Path) -> Path:
    for side in ("lh", "rh"):
        save_mgh(folder / f"{side}.m.mgz", np.ones((1, N_LEFT)))
    return folder / "lh.m.mgz"


def nothing(folder: Path) -> Path:
    save_cifti(folder / "m.dscalar.nii", np.zeros((1, 5)), cortex(LEFT, RIGHT))
    return folder / "m.dscalar.nii"


def one_side(folder: Path) -> Path:
    save_mgh(folder / "lh.m.mgz", L[None])
    return folder / "lh.m.mgz"


def two_maps(folder: Path) -> Path:
    save_gifti(folder / "m_hemi-L.shape.gii", np.stack([L, L]), "L")
    save_gifti(folder / "m_hemi-R.shape.gii", np.stack([R, R]), "R")
    return folder / "m_hemi-L.shape.gii"


def swapped(folder: Path) -> Path:
    save_gifti(folder / "m_hemi-L.shape.gii", R[None], "R")
    save_gifti(folder / "m_hemi-R.shape.gii", L[None], "L")
    return folder / "m_hemi-L.shape.gii"


def volume(folder: Path) -> Path:
    save(folder / "m.nii.gz", np.ones((2, 2, 2), np.uint8))
    return folder / "m.nii.gz"


def beyond(folder: Path) -> Path:
    save_label(folder / "lh.m.label", [1, N_LEFT])
    return folder / "lh.m.label"


BAD = [
    (other_mesh, "has 10 vertices, the right hemisphere of the betas has 8"),
    (nothing, "holds no vertex of the betas"),
    (one_side, "rh.m.mgz is missing: the right hemisphere of lh.m.mgz"),
    (two_maps, "holds 2 maps"),
    (swapped, "the hemispheres are swapped"),
    (volume, "holds no values of a surface, where the betas lie"),
    (beyond, "names vertex 10, the betas have 10 there"),
]


@pytest.mark.parametrize(("way", "message"), BAD, ids=[way.__name__ for way, _ in BAD])
def test_what_does_not_fit_is_told(
    way: Callable[[Path], Path], message: str, surface_study: SurfaceStudy, tmp_path: Path
) -> None:
    surface_study.write(".func.gii")
    with pytest.raises(SynBrainError, match=message):
        prepare_bids(surface_study.root, tmp_path / "ds", options=BidsOptions(mask=way(tmp_path)))
    assert not (tmp_path / "ds").exists()


def test_an_atlas_of_measurements_is_refused(surface_study: SurfaceStudy, tmp_path: Path) -> None:
    surface_study.write(".func.gii")
    for side, values in (("L", L), ("R", R)):
        save_gifti(tmp_path / f"a_hemi-{side}.shape.gii", 0.5 * values[None], side)
    with pytest.raises(SynBrainError, match="holds no labels"):
        prepare_bids(
            surface_study.root,
            tmp_path / "ds",
            options=BidsOptions(atlases=[tmp_path / "a_hemi-L.shape.gii"]),
        )
