"""Betas on a cortical surface and in CIFTI: values, places, missing data, and what does not fit."""

from __future__ import annotations

import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from fixtures.recordings import save
from fixtures.surfaces import (
    N_LEFT,
    N_RIGHT,
    SurfaceStudy,
    cortex,
    grayordinates,
    save_cifti,
    save_gifti,
    save_mgh,
)
from synbrain.cli import main
from synbrain.data.dataset import load_dataset
from synbrain.data.fsaverage import has_surface
from synbrain.data.space import VoxelSpace
from synbrain.model.outputs import Responses, require_output, write_responses
from synbrain.prepare.betas import describe, read_masked
from synbrain.prepare.bids import prepare_bids
from synbrain.prepare.options import BidsOptions, TableOptions
from synbrain.prepare.surface import hemisphere_of
from synbrain.prepare.table import prepare_table

FORMS = [".func.gii", ".shape.gii", ".mgh", ".mgz", ".dscalar.nii", ".dtseries.nii"]


@pytest.mark.parametrize("form", FORMS)
def test_maps_are_trials_and_vertices_columns(
    form: str, surface_study: SurfaceStudy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    surface_study.write(form)
    assert main(["prepare", "bids", str(surface_study.root), str(tmp_path / "ds")]) == 0
    assert "16 trials x 18 vertices" in capsys.readouterr().out
    made = load_dataset(tmp_path / "ds")
    assert np.array_equal(made.responses, surface_study.both)
    assert made.images["name"][made.trials["image"]].tolist() == surface_study.study.shown
    assert made.trials["run"].tolist() == [0] * 8 + [1] * 8
    space = made.space
    assert (space.kind, space.shape, space.mesh) == ("surface", (N_LEFT, N_RIGHT), "other")
    assert np.array_equal(space.index, np.arange(N_LEFT + N_RIGHT))  # type: ignore[arg-type]
    assert space.roi_masks()["hemisphere/left"].sum() == N_LEFT
    assert space.ncsnr is None  # of seven repeated training images it is not known
    assert not has_surface(space)
    assert made.info.provenance["mask"] == "none"
    assert len(made.info.provenance["betas"]) == (2 if form.endswith(".nii") else 4)


@pytest.mark.parametrize("form", [".func.gii", ".mgh", ".dscalar.nii"])
def test_medial_wall_is_kept_and_listed(
    form: str, surface_study: SurfaceStudy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    surface_study.left[:, 3] = np.nan  # without data
    surface_study.right[:, 2] = 0
    surface_study.left[:, 5] = 7.5  # does not vary
    surface_study.right[4] = surface_study.left[4] = np.nan  # a censored trial
    surface_study.write(form)
    assert main(["prepare", "bids", str(surface_study.root), str(tmp_path / "ds")]) == 0
    assert f"3 vertices never vary over the training trials (kept, ncsnr 0): 3, 5, {N_LEFT + 2}" in (
        capsys.readouterr().out
    )
    made = load_dataset(tmp_path / "ds")
    report = made.info.provenance
    assert report["missing_voxels"] == {"0": [3, N_LEFT + 2]}
    assert report["constant_voxels"] == [3, 5, N_LEFT + 2]
    assert made.n_trials == 15
    assert any(
        "1 trial without data left out" in note and "map 5 (im004.png)" in note for note in report["notes"]
    )
    kept = np.delete(surface_study.both, 4, axis=0)
    assert np.array_equal(made.responses, np.nan_to_num(kept))
    z = prepare_bids(surface_study.root, tmp_path / "z", options=BidsOptions(scaling="session-zscore"))
    assert np.isfinite(z.responses).all()


def test_maps_of_gifti_are_in_memory_one_at_a_time(tmp_path: Path) -> None:
    maps = np.random.default_rng(0).normal(size=(200, 20_000)).astype(np.float32)
    path = tmp_path / "lh.betas.func.gii"
    save_gifti(path, maps)
    whole = maps.nbytes
    del maps
    tracemalloc.start()
    about = describe(path)
    assert (about.grid, about.n_trials, about.dtype) == ((20_000,), 200, np.dtype(np.float32))
    assert tracemalloc.get_traced_memory()[1] < whole / 4  # no value is decoded
    tracemalloc.reset_peak()
    values, _ = read_masked(about, np.arange(0, 20_000, 10))
    assert tracemalloc.get_traced_memory()[1] < whole / 2
    tracemalloc.stop()
    assert np.array_equal(values, np.stack([array.data for array in nib.load(path).darrays])[:, ::10])


def test_grayordinates_go_back_into_the_same_cifti(surface_study: SurfaceStudy, tmp_path: Path) -> None:
    axis, rng = grayordinates(), np.random.default_rng(0)
    values = rng.normal(size=(16, len(axis))).astype(np.float32)
    for run in (1, 2):
        path = surface_study.study.func / f"{surface_study.stem(run)}_betas.dscalar.nii"
        save_cifti(path, values[(run - 1) * 8 : run * 8], axis)
    made = prepare_bids(surface_study.root, tmp_path / "ds")
    assert np.array_equal(made.responses, values)
    space = made.space
    assert (space.kind, space.unit_names) == ("grayordinates", "grayordinates")
    assert space.shape == (N_LEFT, N_RIGHT, 4, 3, 2)
    masks = space.roi_masks()
    assert masks["structure/THALAMUS_LEFT"].sum() == 3
    assert masks["hemisphere/left"].sum() == 6 + 3
    assert masks["hemisphere/right"].sum() == 4 + 1
    assert VoxelSpace.load(tmp_path / "ds" / "space").shape == space.shape
    for suffix in (".dscalar.nii", ".dtseries.nii"):
        out = tmp_path / f"y{suffix}"
        require_output(out, space, overwrite=True)
        responses = Responses(values[None, :3], ["expected"], ["a", "b", "c"], space, "%")
        write_responses(out, responses)
        (tmp_path / "y.json").unlink()
        written = nib.load(out)
        assert written.header.get_axis(1) == axis
        np.testing.assert_array_equal(written.get_fdata(dtype=np.float32), values[:3])
    with pytest.raises(Exception, match=r"these have voxels too: end --out in \.dscalar\.nii"):
        require_output(tmp_path / "y.func.gii", space)


def test_cifti_of_voxels_alone_is_a_volume(surface_study: SurfaceStudy, tmp_path: Path) -> None:
    axis = grayordinates()
    axis = axis[axis.volume_mask]
    values = np.random.default_rng(0).normal(size=(8, len(axis))).astype(np.float32)
    for run in (1, 2):
        save_cifti(
            surface_study.study.func / f"{surface_study.stem(run)}_betas.dscalar.nii", run * values, axis
        )
    made = prepare_bids(surface_study.root, tmp_path / "ds")
    assert made.space.kind == "volume"
    voxels = nib.affines.apply_affine(axis.affine, axis.voxel)
    np.testing.assert_allclose(made.space.coordinates(), voxels)
    write_responses(tmp_path / "y.dscalar.nii", Responses(values[None, :1], ["e"], ["a"], made.space, "%"))
    assert nib.load(tmp_path / "y.dscalar.nii").header.get_axis(1) == axis


@pytest.mark.parametrize("suffix", [".func.gii", ".mgh", ".mgz", ".dscalar.nii"])
def test_outputs_come_back_in_the_form_of_the_betas(
    suffix: str, surface_study: SurfaceStudy, tmp_path: Path
) -> None:
    surface_study.write(".mgh")
    made = prepare_bids(surface_study.root, tmp_path / "ds")
    values = np.asarray(made.responses)
    names = [f"{i}" for i in range(16)]
    written = write_responses(
        tmp_path / f"y{suffix}", Responses(values[None], ["expected"], names, made.space, "%")
    )
    if suffix == ".dscalar.nii":
        assert np.array_equal(nib.load(written[0]).get_fdata(dtype=np.float32), values)
        return
    shown = (
        ["y_hemi-L.func.gii", "y_hemi-R.func.gii"] if "gii" in suffix else [f"lh.y{suffix}", f"rh.y{suffix}"]
    )
    assert [path.name for path in written] == [*shown, "y.json"]
    single = Responses(values[None, :1], ["expected"], names[:1], made.space, "%")
    alone = write_responses(tmp_path / f"one{suffix}", single)
    assert describe(alone[0]).n_trials == 1
    # what was written is read again as betas
    again = tmp_path / "again"
    shutil.copytree(surface_study.root / "stimuli", again / "images")
    pd.DataFrame({"image": surface_study.study.shown}).to_csv(again / "trials.csv", index=False)
    back = prepare_table(again, tmp_path / "back", options=TableOptions(responses=written[:2]))
    assert np.array_equal(back.responses, values)


@pytest.mark.parametrize("side", ["left", "right"])
def test_one_hemisphere_alone(side: str, surface_study: SurfaceStudy, tmp_path: Path) -> None:
    surface_study.write(".func.gii")
    expected, other = surface_study.left, "R"
    if side == "right":
        expected, other = surface_study.right, "L"
    for path in surface_study.study.func.glob(f"*hemi-{other}*"):
        path.unlink()
    made = prepare_bids(surface_study.root, tmp_path / "ds", options=BidsOptions(hemispheres=side))  # type: ignore[arg-type]
    assert np.array_equal(made.responses, expected)
    assert made.space.roi_masks()[f"hemisphere/{side}"].all()
    written = write_responses(
        tmp_path / "y.func.gii", Responses(expected[None, :1], ["e"], ["a"], made.space, "%")
    )
    at = ["left", "right"].index(side)
    assert np.array_equal(nib.load(written[at]).darrays[0].data, expected[0])
    assert np.isnan(nib.load(written[1 - at]).darrays[0].data).all()


def test_one_map_a_file_is_stacked(surface_study: SurfaceStudy, tmp_path: Path) -> None:
    for run in (1, 2):
        for k in range(8):
            row = (run - 1) * 8 + k
            for side, values in (("L", surface_study.left), ("R", surface_study.right)):
                name = f"{surface_study.stem(run)}_hemi-{side}_desc-trial{k:03d}_statmap.shape.gii"
                save_gifti(surface_study.study.func / name, values[row : row + 1], side)
    made = prepare_bids(surface_study.root, tmp_path / "ds")
    assert np.array_equal(made.responses, surface_study.both)


def test_two_dimensional_arrays_hold_a_map_a_column(surface_study: SurfaceStudy, tmp_path: Path) -> None:
    for path in surface_study.write(".func.gii"):
        image = nib.load(path)
        whole = np.stack([array.data for array in image.darrays], axis=1)
        image.darrays = [nib.gifti.GiftiDataArray(whole, "NIFTI_INTENT_NONE", "NIFTI_TYPE_FLOAT32")]
        nib.save(image, path)
    assert np.array_equal(prepare_bids(surface_study.root, tmp_path / "ds").responses, surface_study.both)


MESHES = [  # entity, vertices, asked for, mesh, drawn
    ("_space-fsaverage5", 10242, None, "fsaverage5", True),
    ("_space-fsaverage", 10242, None, "fsaverage5", True),
    ("_space-fsaverage", 30, None, "fsaverage", False),
    ("_space-fsLR_den-32k", 32492, None, "fsLR", False),
    ("_space-fsnative", 10242, None, "fsnative", False),
    ("", 10242, None, "fsaverage5", True),
    ("", 10242, "other", "other", False),
    ("", 32492, None, "fsLR", False),
    ("_space-T1w", 10242, "fsaverage5", "fsaverage5", True),
]


@pytest.mark.parametrize(("entity", "n", "asked", "mesh", "drawn"), MESHES)
def test_the_mesh_is_what_names_and_numbers_say(
    entity: str,
    n: int,
    asked: str | None,
    mesh: str,
    drawn: bool,
    surface_study: SurfaceStudy,
    tmp_path: Path,
) -> None:
    surface_study.left = surface_study.right = np.random.default_rng(0).normal(size=(16, n))
    surface_study.write(".mgh", entity)
    made = prepare_bids(surface_study.root, tmp_path / "ds", options=BidsOptions(mesh=asked))  # type: ignore[arg-type]
    assert made.space.mesh == mesh
    assert has_surface(made.space) == drawn


def test_as_many_vertices_as_fsaverage_are_no_fsaverage() -> None:
    index = np.arange(3)
    fslr = VoxelSpace(3, "surface", (163842, 163842), None, index, mesh="fsLR")
    assert not has_surface(fslr)
    assert has_surface(VoxelSpace(3, "surface", (163842, 163842), None, index))


def first(study: SurfaceStudy, pattern: str) -> Path:
    return next(iter(sorted(study.study.func.glob(pattern))))


def swap(study: SurfaceStudy) -> None:
    left = first(study, "*run-1_hemi-L*")
    right = left.with_name(left.name.replace("hemi-L", "hemi-R"))
    left.rename(study.root / "x")
    right.rename(left)
    (study.root / "x").rename(right)


def maps(study: SurfaceStudy, n: int, pattern: str) -> None:
    """Other numbers of maps in the files of the first run."""
    for path in study.study.func.glob(pattern):
        side = "L" if "hemi-L" in path.name else "R"
        save_gifti(path, (study.left if side == "L" else study.right)[:n], side)


def mesh_file(study: SurfaceStudy) -> None:
    path = first(study, "*hemi-L*")
    points = nib.gifti.GiftiDataArray(
        np.zeros((N_LEFT, 3), np.float32), "NIFTI_INTENT_POINTSET", "NIFTI_TYPE_FLOAT32"
    )
    nib.save(nib.gifti.GiftiImage(darrays=[points]), path)


def more_vertices(study: SurfaceStudy) -> None:
    save_gifti(first(study, "*run-2_hemi-L*"), np.zeros((8, N_LEFT + 2), np.float32), "L")


def cut_short(study: SurfaceStudy) -> None:
    path = first(study, "*hemi-L*")
    path.write_bytes(path.read_bytes()[:900])


def partly_missing(study: SurfaceStudy) -> None:
    study.left[3, 2] = np.nan
    study.write(".func.gii")


BAD: dict[str, tuple[Callable[[SurfaceStudy], object], str]] = {
    "a hemisphere lacks": (lambda s: first(s, "*run-2_hemi-R*").unlink(), "no file of the right hemisphere"),
    "hemispheres swapped": (swap, "its header says CortexRight: the hemispheres are swapped"),
    "maps and events": (lambda s: maps(s, 7, "*run-1_hemi-*"), "has 7 maps for 8 trials"),
    "left and right": (lambda s: maps(s, 7, "*run-1_hemi-R*"), "has 8 maps, "),
    "another mesh": (more_vertices, "lie on different surfaces: they have 12 and 10 vertices"),
    "a mesh file": (mesh_file, "holds a mesh, no values"),
    "cut short": (cut_short, "download or copy it again"),
    "a trial lacks vertices": (partly_missing, "lacks values (NaN) in some vertices"),
    "two forms": (lambda s: s.write(".mgh"), "are betas of the same run: pass --pattern"),
    "no hemisphere named": (
        lambda s: first(s, "*L*").rename(s.study.func / f"{s.stem(1)}_betas.func.gii"),
        "does not say of which hemisphere it is",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", sorted(BAD))
def test_what_does_not_fit_is_told_before_work(
    case: str, surface_study: SurfaceStudy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    surface_study.write(".func.gii")
    spoil, message = BAD[case]
    spoil(surface_study)
    assert main(["prepare", "bids", str(surface_study.root), str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not (tmp_path / "out").exists()


def test_other_grayordinates_in_another_run(surface_study: SurfaceStudy, tmp_path: Path) -> None:
    _, second = surface_study.write(".dscalar.nii")
    save_cifti(second, surface_study.both[8:], cortex([*range(N_LEFT)][::-1], [*range(N_RIGHT)]))
    with pytest.raises(Exception, match="as many grayordinates, but not the same ones"):
        prepare_bids(surface_study.root, tmp_path / "ds")


def test_volumes_beside_surfaces_are_read_and_that_is_said(
    surface_study: SurfaceStudy, tmp_path: Path
) -> None:
    surface_study.write(".func.gii")
    study = surface_study.study
    for run in (1, 2):
        save(study.betas(run), study.of_run(run))
    made = prepare_bids(surface_study.root, tmp_path / "volumes")
    assert np.array_equal(made.responses, study.expected)
    assert any("--pattern chooses files of a surface" in note for note in made.info.provenance["notes"])
    chosen = prepare_bids(
        surface_study.root, tmp_path / "ds", options=BidsOptions(pattern="*_betas.func.gii")
    )
    assert np.array_equal(chosen.responses, surface_study.both)


def test_parcels_are_refused(surface_study: SurfaceStudy, tmp_path: Path) -> None:
    path = surface_study.study.func / f"{surface_study.stem(1)}_betas.dscalar.nii"
    parcels = nib.cifti2.ParcelsAxis.from_brain_models([("all", cortex([1], [2]))])
    header = nib.cifti2.Cifti2Header.from_axes((nib.cifti2.ScalarAxis(["a"]), parcels))
    nib.save(nib.Cifti2Image(np.zeros((1, 1), np.float32), header), path)
    with pytest.raises(Exception, match="a value a parcel"):
        prepare_bids(surface_study.root, tmp_path / "ds")


def test_files_outside_bids_with_a_design(surface_study: SurfaceStudy, tmp_path: Path) -> None:
    """lh.betas_session2.mgh stands before session10."""
    folder = tmp_path / "glm"
    shutil.copytree(surface_study.root / "stimuli", folder / "stimuli")
    for side, values in (("lh", surface_study.left), ("rh", surface_study.right)):
        for session, rows in ((2, slice(0, 8)), (10, slice(8, 16))):
            save_mgh(folder / f"{side}.betas_session{session}.mgh", values[rows])
    design = tmp_path / "design.csv"
    pd.DataFrame({"image": surface_study.study.shown, "session": [2] * 8 + [10] * 8}).to_csv(
        design, index=False
    )
    made = prepare_bids(folder, tmp_path / "ds", options=BidsOptions(design=design))
    assert np.array_equal(made.responses, surface_study.both)
    assert made.trials["session"].tolist() == [0] * 8 + [1] * 8


@pytest.mark.parametrize(
    ("name", "side", "stem"),
    [
        ("sub-L_hemi-R_space-x_betas.func.gii", "right", "sub-L_space-x_betas.func.gii"),
        ("lh.betas.mgh", "left", "betas.mgh"),
        ("sub01.rh.betas.mgz", "right", "sub01.betas.mgz"),
        ("betas_lh.func.gii", "left", "betas.func.gii"),
        ("100307.R.betas.32k_fs_LR.func.gii", "right", "100307.betas.32k_fs_LR.func.gii"),
        ("betas_left.shape.gii", "left", "betas.shape.gii"),
        ("betas.func.gii", None, "betas.func.gii"),
    ],
)
def test_names_say_the_hemisphere(name: str, side: str | None, stem: str) -> None:
    named = hemisphere_of(Path(name))
    assert (named.side, named.stem) == (side, stem)
    if side is not None:
        assert hemisphere_of(named.partner).partner.name == name
        assert hemisphere_of(named.partner).side != side


@pytest.fixture
def table(surface_study: SurfaceStudy, tmp_path: Path) -> Path:
    """A folder for ``prepare table`` without responses."""
    src = tmp_path / "mine"
    shutil.copytree(surface_study.root / "stimuli", src / "images")
    pd.DataFrame({"image": surface_study.study.shown, "session": [0] * 8 + [1] * 8}).to_csv(
        src / "trials.csv", index=False
    )
    return src


@pytest.mark.parametrize(
    "names",
    [
        ["lh.responses.mgh", "rh.responses.mgh"],
        ["responses_hemi-L.func.gii", "responses_hemi-R.func.gii"],
        ["betas.L.shape.gii", "betas.R.shape.gii"],
        ["responses.dscalar.nii"],
        ["responses.dtseries.nii"],
    ],
)
def test_a_table_takes_surface_files(
    names: list[str], surface_study: SurfaceStudy, table: Path, tmp_path: Path
) -> None:
    surface_study.left[:, 1] = np.nan
    if len(names) == 1:
        save_cifti(table / names[0], surface_study.both, cortex([*range(N_LEFT)], [*range(N_RIGHT)]))
    for name, values in zip(names, (surface_study.left, surface_study.right), strict=len(names) == 2):
        if len(names) == 2:
            (save_mgh if name.endswith("mgh") else save_gifti)(table / name, values)
    assert main(["prepare", "table", str(table), str(tmp_path / "ds"), "--unit", "%", "--copy-images"]) == 0
    made = load_dataset(tmp_path / "ds")
    assert np.array_equal(made.responses, np.nan_to_num(surface_study.both))
    assert made.info.provenance["missing_voxels"] == {"0": [1]}
    assert made.info.provenance["responses"] == names
    assert made.trials["session"].tolist() == [0] * 8 + [1] * 8
    assert made.space.kind == "surface"
    assert (made.path / "images").is_dir()


def test_a_table_joins_files_in_natural_order(
    surface_study: SurfaceStudy, table: Path, tmp_path: Path
) -> None:
    files = []
    for session, rows in ((10, slice(8, 16)), (2, slice(0, 8))):
        for side, values in (("lh", surface_study.left), ("rh", surface_study.right)):
            files.append(tmp_path / f"{side}.betas_session{session}.mgh")
            save_mgh(files[-1], values[rows])
    pd.DataFrame({"ncsnr": np.linspace(0, 1, 18), "area": ["V1", "V2"] * 9}).to_csv(
        table / "voxels.csv", index=False
    )
    words = ["prepare", "table", str(table), str(tmp_path / "ds"), "--responses", *map(str, files)]
    assert main(words) == 0
    made = load_dataset(tmp_path / "ds")
    assert np.array_equal(made.responses, surface_study.both)
    assert any(
        "lh.betas_session2.mgh, lh.betas_session10.mgh" in note for note in made.info.provenance["notes"]
    )
    assert made.space.roi_masks()["area/V2"].sum() == 9
    np.testing.assert_allclose(made.space.ncsnr, np.linspace(0, 1, 18), rtol=1e-6)  # type: ignore[arg-type]
    assert main([*words[:-1], "--overwrite"]) == 2  # the right hemisphere of session 2 lacks


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda src, s: save_mgh(src / "lh.betas.mgh", s.left[:9]), "no file of the right hemisphere"),
        (
            lambda src, s: [save_mgh(src / f"{h}.betas.mgh", s.left[:9]) for h in ("lh", "rh")],
            "9 maps for 16 trials",
        ),
        (lambda src, s: (src / "responses.nii.gz").touch(), "has no responses.npy, but responses.nii.gz"),
    ],
)
def test_a_table_says_what_does_not_fit(
    spoil: Callable[[Path, SurfaceStudy], object], message: str, surface_study: SurfaceStudy, table: Path,
    tmp_path: Path,
) -> None:  # fmt: skip
    spoil(table, surface_study)
    with pytest.raises(Exception, match=message):
        prepare_table(table, tmp_path / "ds")
    assert not (tmp_path / "ds").exists()


def test_an_array_may_have_any_name_and_options_of_surfaces_are_refused(
    surface_study: SurfaceStudy, table: Path, tmp_path: Path
) -> None:
    np.save(tmp_path / "y.npy", surface_study.both)
    made = prepare_table(table, tmp_path / "ds", options=TableOptions(responses=[tmp_path / "y.npy"]))
    assert np.array_equal(made.responses, surface_study.both)
    with pytest.raises(Exception, match="--hemispheres left is for responses in surface files"):
        prepare_table(
            table, tmp_path / "no", options=TableOptions(responses=[tmp_path / "y.npy"], hemispheres="left")
        )
    with pytest.raises(Exception, match="volumes with prepare bids"):
        prepare_table(table, tmp_path / "no", options=TableOptions(responses=[tmp_path / "y.nii.gz"]))
