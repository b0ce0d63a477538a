"""Which trials the volumes of betas show: events of all kinds, GLMsingle's files, links, gaps."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from scipy.io import savemat

from fixtures.recordings import AFFINE, GRID, INSIDE, Study, save
from synbrain.data.dataset import Dataset
from synbrain.errors import SynBrainError
from synbrain.prepare.bids import prepare_bids
from synbrain.prepare.options import BidsOptions


def images_of(made: Dataset) -> list[str]:
    return made.images["name"][made.trials["image"]].tolist()


def right(made: Dataset, study: Study) -> bool:
    return np.array_equal(made.responses, study.expected) and images_of(made) == study.shown


def refused(study: Study, out: Path, **options: Any) -> str:
    with pytest.raises(SynBrainError) as raised:
        prepare_bids(study.root, out, options=BidsOptions(**options))
    assert not out.exists()
    return str(raised.value)


def reverse(path: Path) -> None:
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], *lines[:0:-1]]) + "\n")


def test_events_out_of_order_are_refused_or_ordered_as_told(study: Study, tmp_path: Path) -> None:
    reverse(study.events(2))
    told = refused(study, tmp_path / "a")
    assert "run-2_events.tsv line 3" in told
    assert "--trial-order onset" in told
    assert right(
        prepare_bids(study.root, tmp_path / "onset", options=BidsOptions(trial_order="onset")), study
    )
    made = prepare_bids(study.root, tmp_path / "table", options=BidsOptions(trial_order="table"))
    assert images_of(made) == study.shown[:8] + study.shown[:7:-1]
    table = pd.read_csv(study.events(1), sep="\t")
    table["onset"] = ["soon", *table["onset"][1:]]
    table.to_csv(study.events(1), sep="\t", index=False)
    assert "line 2: the onset is no number" in refused(study, tmp_path / "b", trial_order="onset")


def test_the_most_specific_events_file_applies(study: Study, tmp_path: Path) -> None:
    for name in ("task-x_events.tsv", "sub-01/sub-01_task-x_events.tsv"):
        shutil.copy(study.events(1), study.root / name)
    study.events(1).unlink()
    made = prepare_bids(study.root, tmp_path / "out")  # run 2 has its own
    assert right(made, study)
    assert made.trials["run"].tolist() == [0] * 8 + [1] * 8
    study.events(2).unlink()
    both = prepare_bids(study.root, tmp_path / "both")
    assert images_of(both) == study.shown[:8] * 2
    assert "applies to 2 files" in " ".join(both.info.provenance["notes"])


@pytest.mark.parametrize("names", ["run-01", "run-001", "ses-1"])
def test_indices_are_numbers(names: str, study: Study, tmp_path: Path) -> None:
    for run in (1, 2):
        old = study.events(run)
        new = (
            old.name.replace("ses-01", "ses-1") if names == "ses-1" else old.name.replace("run-", names[:-1])
        )
        old.rename(old.with_name(new))
    assert right(prepare_bids(study.root, tmp_path / "out"), study)


def test_linked_folders_are_followed_and_circles_survived(study: Study, tmp_path: Path) -> None:
    real = tmp_path / "elsewhere"
    (study.root / "sub-01").rename(real)
    (study.root / "sub-01").symlink_to(real)
    (real / "func" / "again").symlink_to(real)
    (study.root / "all").symlink_to(study.root)
    assert right(prepare_bids(study.root, tmp_path / "out"), study)


POINTERS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "annex link": (lambda path: path.symlink_to("../.git/annex/objects/XX/MD5E-s1.gz"), "git annex get"),
    "annex file": (lambda path: path.write_text("/annex/objects/MD5E-s1.nii.gz\n"), "git annex get"),
    "lfs": (
        lambda path: path.write_text("version https://git-lfs.example/spec/v1\noid sha256:0\nsize 9\n"),
        "git lfs pull",
    ),
    "broken link": (lambda path: path.symlink_to("gone"), "link to gone"),
}


@pytest.mark.parametrize("case", POINTERS)
@pytest.mark.parametrize("what", ["betas", "mask", "events", "picture"])
def test_pointers_say_how_to_fetch_what_they_point_to(
    case: str, what: str, study: Study, tmp_path: Path
) -> None:
    make, mend = POINTERS[case]
    places = {
        "betas": study.betas(2), "mask": study.mask, "events": study.events(2),
        "picture": study.root / "stimuli" / "im003.png",
    }  # fmt: skip
    path = places[what]
    path.unlink()
    make(path)
    told = refused(study, tmp_path / "out")
    assert path.name in told
    assert mend in told


def test_axes_of_length_one_and_one_volume_per_trial(study: Study, tmp_path: Path) -> None:
    save(study.betas(1), study.of_run(1)[..., None, :])
    save(study.betas(2), study.of_run(2)[..., None])
    save(study.mask, INSIDE.astype(np.uint8)[..., None, None])
    assert right(prepare_bids(study.root, tmp_path / "axes"), study)
    study.betas(2).unlink()
    stem = study.betas(2).name.removesuffix("_betas.nii.gz")
    for k in range(8):
        save(study.func / f"{stem}_contrast-trial{k + 1}_stat-effect_statmap.nii.gz", study.of_run(2)[..., k])
    assert right(prepare_bids(study.root, tmp_path / "maps"), study)
    (study.func / f"{stem}_contrast-trial8_stat-effect_statmap.nii.gz").rename(
        study.func / f"{stem}_contrast-trial9_stat-effect_statmap.nii.gz"
    )
    assert "do not number the trials" in refused(study, tmp_path / "gap")


def test_one_volume_files_without_numbers_are_no_order(study: Study, tmp_path: Path) -> None:
    study.betas(2).unlink()
    for name in ("face", "house"):
        save(
            study.func / f"sub-01_ses-01_task-x_run-2_contrast-{name}_statmap.nii.gz", study.of_run(2)[..., 0]
        )
    assert "contrast-face, contrast-house" in refused(study, tmp_path / "out")


def test_content_counts_not_the_name(study: Study, tmp_path: Path) -> None:
    for path in (study.betas(1), study.mask):
        path.write_bytes(gzip.decompress(path.read_bytes()))  # a gzip name on plain bytes
    plain = study.betas(2).with_suffix("")
    study.betas(2).rename(plain)  # a plain name on compressed bytes
    assert right(prepare_bids(study.root, tmp_path / "out"), study)


@pytest.mark.parametrize("kind", ["complex64", "rgb", "mask rgb"])
def test_types_that_are_no_responses(kind: str, study: Study, tmp_path: Path) -> None:
    rgb = np.zeros(GRID, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    if kind == "mask rgb":
        save(study.mask, rgb)
        assert "mask.nii.gz holds values of type" in refused(study, tmp_path / "out")
        return
    save(study.betas(1), study.of_run(1).astype(np.complex64) if kind != "rgb" else rgb)
    assert "which are no responses" in refused(study, tmp_path / "out")


@pytest.mark.parametrize("scaling", ["none", "session-zscore"])
def test_a_trial_without_data_is_left_out_and_named(scaling: str, study: Study, tmp_path: Path) -> None:
    values = study.of_run(1).copy()
    values[..., 3] = np.nan
    values[0, 1, 1] = np.nan  # a voxel without data: number 0 of the mask
    save(study.betas(1), values)
    made = prepare_bids(study.root, tmp_path / "out", options=BidsOptions(scaling=scaling))  # type: ignore[arg-type]
    assert made.n_trials == 15
    assert images_of(made) == study.shown[:3] + study.shown[4:]
    assert "run-1_betas.nii.gz volume 4 (im003.png)" in " ".join(made.info.provenance["notes"])
    assert made.trials["repeat"].tolist() == made.trials.groupby("image").cumcount().tolist()
    assert np.isfinite(made.responses).all()
    if scaling == "none":
        assert made.info.provenance["missing_voxels"] == {"0": [0]}
        kept = np.setdiff1d(np.arange(16), 3)
        assert np.array_equal(made.responses[:, 1:], study.expected[kept, 1:])
    assert "holds no data" in refused(study, tmp_path / "refuse", missing_trials="refuse")


def test_an_image_whose_only_trial_is_lost_is_lost_too(study: Study, tmp_path: Path) -> None:
    values = study.of_run(1).copy()
    values[..., 6] = np.nan
    save(study.betas(1), values)
    made = prepare_bids(study.root, tmp_path / "out")
    assert study.shown.count("im006.png") == 1
    assert "im006.png" not in made.images["name"].tolist()
    assert made.n_images == len(made.images) == 11
    assert images_of(made) == study.shown[:6] + study.shown[7:]


def test_single_values_that_lack_are_never_invented(study: Study, tmp_path: Path) -> None:
    values = study.of_run(2).copy()
    values[1, 2, 2, 5] = np.inf
    save(study.betas(2), values)
    told = refused(study, tmp_path / "out")
    assert "run-2_betas.nii.gz volume 6 lacks values" in told
    made = prepare_bids(study.root, tmp_path / "drop", options=BidsOptions(missing_trials="drop-partial"))
    kept = np.setdiff1d(np.arange(16), 13)
    assert np.array_equal(made.responses, study.expected[kept])


def glmsingle(study: Study, suffix: str) -> Path:
    whole = np.moveaxis(study.volumes, 0, -1)
    for run in (1, 2):
        study.betas(run).unlink()
    path = study.func / f"TYPED_FITHRF_GLMDENOISE_RR{suffix}"
    if suffix == ".hdf5":
        with h5py.File(path, "w") as file:
            file["betasmd"], file["R2"] = whole, whole[..., 0]
    elif suffix == ".npy":
        np.save(path, {"betasmd": whole, "HRFindex": whole[..., 0], "pcnum": 3}, allow_pickle=True)  # type: ignore[arg-type]
    elif suffix == ".mat":
        savemat(path, {"modelmd": whole})
    else:  # MATLAB 7.3
        path = path.with_suffix(".mat")
        with h5py.File(path, "w", userblock_size=512) as file:
            file["modelmd"] = whole.T
            file["modelmd"].attrs["MATLAB_class"] = np.bytes_("single")
    return path


@pytest.mark.parametrize("suffix", [".hdf5", ".npy", ".mat", ".v73"])
def test_glmsingle_outputs_with_events_and_with_a_design(suffix: str, study: Study, tmp_path: Path) -> None:
    glmsingle(study, suffix)
    made = prepare_bids(study.root, tmp_path / "events")
    assert right(made, study)
    assert made.info.subject == "sub-01"
    assert np.array_equal(made.space.affine, AFFINE)  # type: ignore[arg-type]
    for run in (1, 2):
        study.events(run).unlink()
    assert "--design" in refused(study, tmp_path / "none")
    design = tmp_path / "design.csv"
    session = ["day2"] * 8 + ["day10"] * 8
    pd.DataFrame({"image": study.shown, "session": session}).to_csv(design, index=False)
    options = BidsOptions(design=design, subject="01", scaling="session-zscore")
    made = prepare_bids(study.root, tmp_path / "design", options=options)
    assert images_of(made) == study.shown
    assert made.trials["session"].tolist() == [0] * 8 + [1] * 8  # day2 before day10
    design.write_text("image\n" + "\n".join(study.shown[:-1]) + "\n")
    assert "15 lines for 16 volumes" in refused(study, tmp_path / "short", design=design)


def test_sessions_are_known_by_their_folders(study: Study, tmp_path: Path) -> None:
    """One GLMsingle output for each session, all of one name."""
    for number in (1, 2):
        folder = study.root / "sub-01" / f"ses-{number:02d}"
        folder.mkdir()
        study.betas(number).unlink()
        np.save(folder / "TYPED_FITHRF_GLMDENOISE_RR.npy", {"betasmd": study.of_run(number)})  # type: ignore[arg-type]
        study.events(number).rename(folder / f"sub-01_ses-{number}_task-x_events.tsv")
    made = prepare_bids(study.root, tmp_path / "out")
    assert right(made, study)
    assert made.trials["session"].tolist() == [0] * 8 + [1] * 8
    design = tmp_path / "design.csv"
    pd.DataFrame({"image": study.shown}).to_csv(design, index=False)
    made = prepare_bids(study.root, tmp_path / "design", options=BidsOptions(design=design))
    assert right(made, study)
    assert made.trials["session"].tolist() == [0] * 8 + [1] * 8


@pytest.mark.parametrize("axes", [2, 4])
def test_betas_of_masked_voxels_are_told_to_be_a_table(axes: int, study: Study, tmp_path: Path) -> None:
    """What GLMsingle gives for (voxels, time): (voxels, trials), in some versions with axes of length 1."""
    for number in (1, 2):
        study.betas(number).unlink()
    flat = study.expected.T
    betas = flat if axes == 2 else flat[:, None, None]
    np.save(study.func / "TYPED_FITHRF_GLMDENOISE_RR.npy", {"betasmd": betas})  # type: ignore[arg-type]
    assert "bring them as a table, with the mask" in refused(study, tmp_path / "out")


def test_a_design_may_be_a_list_of_names(study: Study, tmp_path: Path) -> None:
    for events in (1, 2):
        study.events(events).unlink()
    design = tmp_path / "names.txt"
    design.write_text("\n".join(study.shown) + "\n")
    made = prepare_bids(study.root, tmp_path / "out", options=BidsOptions(design=design))
    assert right(made, study)
    design.write_text("\n".join(["image", *study.shown]) + "\n")  # a table as before
    assert right(prepare_bids(study.root, tmp_path / "table", options=BidsOptions(design=design)), study)
    design.write_text("\n".join(study.shown[1:]) + "\n")
    assert "lacks the columns ['image']" in refused(study, tmp_path / "short", design=design)
    np.save(tmp_path / "DESIGNINFO.npy", {"stimorder": [0]})  # type: ignore[arg-type]
    assert "the image of every volume, one a line" in refused(
        study, tmp_path / "npy", design=tmp_path / "DESIGNINFO.npy"
    )


def test_a_mask_of_another_name_is_named(study: Study, tmp_path: Path) -> None:
    study.mask.rename(study.root / "CSI1_brainmask.nii.gz")
    assert "pass --mask " + str(study.root / "CSI1_brainmask.nii.gz") in refused(study, tmp_path / "out")


def test_a_design_leaves_out_volumes_without_image(study: Study, tmp_path: Path) -> None:
    design = tmp_path / "design.tsv"
    shown = [name if i not in (2, 9) else "n/a" for i, name in enumerate(study.shown)]
    design.write_text("image\n" + "\n".join(shown) + "\n")
    made = prepare_bids(study.root, tmp_path / "out", options=BidsOptions(design=design))
    kept = np.setdiff1d(np.arange(16), [2, 9])
    assert np.array_equal(made.responses, study.expected[kept])
    assert images_of(made) == [study.shown[i] for i in kept]


class Bad:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("this must never be printed",)


def test_pickles_run_no_code(study: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = glmsingle(study, ".npy")
    np.save(path, {"betasmd": np.ones(2), "other": Bad()}, allow_pickle=True)  # type: ignore[arg-type]
    assert "wants to load builtins.print" in refused(study, tmp_path / "out")
    assert "never" not in capsys.readouterr().out


def test_columns_labels_and_masks_are_listed(study: Study, tmp_path: Path) -> None:
    for run in (1, 2):
        table = pd.read_csv(study.events(run), sep="\t").rename(columns={"stim_file": "file_path"})
        table["trial_type"] = ["exp", "test"] * 4
        table.to_csv(study.events(run), sep="\t", index=False)
    told = refused(study, tmp_path / "a")
    assert "'trial_type'" in told
    assert "pass --image-column file_path" in told
    assert right(
        prepare_bids(study.root, tmp_path / "b", options=BidsOptions(image_column="file_path")), study
    )
    assert "['01']" in refused(study, tmp_path / "c", subject="1", image_column="file_path")
    shutil.copy(study.mask, study.func / "sub-01_run-1_desc-brain_mask.nii.gz")
    told = refused(study, tmp_path / "d", image_column="file_path")
    assert "2 masks" in told
    assert "sub-01/func/sub-01_run-1_desc-brain_mask.nii.gz" in told


def test_spaces_of_one_run_are_listed(study: Study, tmp_path: Path) -> None:
    for run in (1, 2):
        for space in ("MNI", "T1w"):
            name = study.betas(run).name.replace("_betas", f"_space-{space}_betas")
            shutil.copy(study.betas(run), study.func / name)
        study.betas(run).unlink()
    told = refused(study, tmp_path / "a")
    assert "space-MNI, space-T1w" in told
    assert right(prepare_bids(study.root, tmp_path / "b", options=BidsOptions(pattern="*space-T1w*")), study)


@pytest.mark.parametrize(
    "write",
    [
        lambda path, text: path.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode()),
        lambda path, text: path.write_text(text.replace("\t", ",")),
        lambda path, text: path.write_text(text.replace("\t", ";").replace(".0", ",0")),
        lambda path, text: path.write_text(text, encoding="utf-16"),
        lambda path, text: path.write_text(text + "30\t1\tn/a\n31\t1\tN/A\n32\t1\t\n"),
    ],
)
def test_events_of_spreadsheets(write: Callable[[Path, str], Any], study: Study, tmp_path: Path) -> None:
    write(study.events(1), study.events(1).read_text())
    (tmp_path / "test.txt").write_bytes(b"\xef\xbb\xbfim002.png\r\nim004.png \r\n")
    made = prepare_bids(study.root, tmp_path / "out", options=BidsOptions(test_images=tmp_path / "test.txt"))
    assert right(made, study)
    assert made.images["name"][made.image_rows("test")].tolist() == ["im002.png", "im004.png"]


def test_label_tables_of_fmriprep(study: Study, tmp_path: Path) -> None:
    volume = study.func / "sub-01_ses-01_space-T1w_desc-aparcaseg_dseg.nii.gz"
    labels = np.full(GRID, np.nan, dtype=np.float32)
    labels[INSIDE] = np.arange(12) % 3
    save(volume, labels)
    (study.root / "desc-aseg_dseg.tsv").write_text("index\tname\n1\tother\n")
    table = study.root / "desc-aparcaseg_dseg.tsv"
    table.write_text("index\tname\tcolor\n0\tUnknown\t#0\n1\t'V1 '\t#1\n2\t\"ctx-lh \"\t#2\n")
    made = prepare_bids(study.root, tmp_path / "out", options=BidsOptions(atlases=[volume]))
    atlas = next(iter(made.space.atlases.values()))
    assert atlas.labels == {1: "V1", 2: "ctx-lh"}
    assert "desc-aparcaseg_dseg.tsv" in atlas.source
    assert np.array_equal(atlas.values, np.arange(12) % 3)


def test_scaled_integers_are_no_int16_percent(own_nsd_tree: Path, nsd_betas: Any, tmp_path: Path) -> None:
    from synbrain.prepare.nsd.prepare import prepare_nsd

    expected = prepare_nsd(own_nsd_tree, tmp_path / "int", subject="subj01")
    for path in nsd_betas(own_nsd_tree, 1).glob("betas_session*.nii.gz"):
        image = nib.load(path)
        again = nib.Nifti1Image(np.asarray(image.dataobj) / 300.0, image.affine)
        again.set_data_dtype(np.int16)
        nib.save(again, path)
    made = prepare_nsd(own_nsd_tree, tmp_path / "scaled", subject=1)
    assert made.info.scaling["raw"] == "float"
    assert np.allclose(made.responses, expected.responses, atol=1e-3)
