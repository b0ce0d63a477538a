"""prepare nsd on a simulated tree: exact values, formats, spaces and scalings."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from scipy.io import loadmat

from synbrain.data.scaling import invert
from synbrain.files import verify_manifest
from synbrain.prepare.nsd.options import NsdOptions
from synbrain.prepare.nsd.prepare import prepare_nsd

Folder = Callable[[Path, int], Path]
PER_SESSION = 40


def masked_int16(tree: Path, betas: Path, subject: int, n_sessions: int) -> np.ndarray:
    """All trials x voxels as stored, through nibabel alone."""
    roi = tree / f"nsddata/ppdata/subj{subject:02d}/func1pt8mm/roi/nsdgeneral.nii.gz"
    mask = np.asarray(nib.load(roi).dataobj) > 0
    files = [betas / f"betas_session{k:02d}.nii.gz" for k in range(1, n_sessions + 1)]
    return np.concatenate([np.asarray(nib.load(file).dataobj)[mask].T for file in files])


def design_ids(tree: Path, subject: int, n_trials: int) -> np.ndarray:
    content = loadmat(tree / "nsddata/experiments/nsd/nsd_expdesign.mat")
    order = content["masterordering"].ravel().astype(int)[:n_trials]
    return content["subjectim"].astype(int)[subject - 1, order - 1] - 1


def test_percent_is_the_stored_betas_exactly(nsd_tree: Path, nsd_betas: Folder, tmp_path: Path) -> None:
    made = prepare_nsd(nsd_tree, tmp_path / "out", subject=1)
    stored = masked_int16(nsd_tree, nsd_betas(nsd_tree, 1), 1, 3)
    assert stored.dtype == np.int16
    assert np.array_equal(np.round(np.asarray(made.responses) * 300).astype(np.int16), stored)
    assert np.array_equal(np.asarray(made.responses), stored.astype(np.float32) / np.float32(300))
    assert np.array_equal(made.trials["nsd_id"], design_ids(nsd_tree, 1, len(stored)))
    assert made.info.unit == "percent signal change"
    verify_manifest(made.path)


def test_trials_join_design_stimuli_and_behaviour(nsd_tree: Path, tmp_path: Path) -> None:
    made = prepare_nsd(nsd_tree, tmp_path / "out", subject=2)
    trials, images = made.trials, made.images
    behaviour = pd.read_csv(nsd_tree / "nsddata/ppdata/subj02/behav/responses.tsv", sep="\t")
    assert (trials["run"].to_numpy() == behaviour["RUN"].to_numpy() - 1).all()
    assert (trials["session"].to_numpy() == behaviour["SESSION"].to_numpy() - 1).all()
    info = pd.read_csv(nsd_tree / "nsddata/experiments/nsd/nsd_stim_info_merged.csv").set_index("nsdId")
    assert (trials["coco_id"].to_numpy() == info.loc[trials["nsd_id"], "cocoId"].to_numpy()).all()
    assert (trials["shared1000"].to_numpy() == info.loc[trials["nsd_id"], "shared1000"].to_numpy()).all()
    assert ((trials["split"] == "test") == trials["shared1000"]).all()
    assert (images["nsd_id"].to_numpy()[trials["image"]] == trials["nsd_id"]).all()
    assert images["nsd_id"].is_monotonic_increasing
    for _, group in trials.groupby("nsd_id"):  # in the order in which they were shown
        assert group["repeat"].tolist() == list(range(len(group)))
    with h5py.File(nsd_tree / "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5") as file:
        expected = file["imgBrick"][int(images["nsd_id"][3])]
    assert np.array_equal(np.asarray(made.load_image(3)), expected)


def test_space_has_named_rois_hemispheres_and_ncsnr(
    nsd_tree: Path, nsd_betas: Folder, tmp_path: Path
) -> None:
    made = prepare_nsd(nsd_tree, tmp_path / "out", subject=1)
    space, roi = made.space, nsd_tree / "nsddata/ppdata/subj01/func1pt8mm/roi"
    files = {path.name.removesuffix(".nii.gz") for path in roi.glob("[!lr]*.nii.gz")}
    assert set(space.atlases) == files - {"nsdgeneral"} | {"hemisphere"} | {"streams"}
    volume = nib.load(roi / "floc-faces.nii.gz")
    mask = np.asarray(nib.load(roi / "nsdgeneral.nii.gz").dataobj) > 0
    assert np.array_equal(space.atlases["floc-faces"].values, np.asarray(volume.dataobj)[mask])
    ctab = (nsd_tree / "nsddata/freesurfer/subj01/label/floc-faces.mgz.ctab").read_text().split("\n")
    named = {int(line.split()[0]): line.split()[1] for line in ctab if line}
    assert space.atlases["floc-faces"].labels == {k: v for k, v in named.items() if k > 0}
    assert "floc-faces.nii.gz" in space.atlases["floc-faces"].source
    assert "floc-faces.mgz.ctab" in space.atlases["floc-faces"].source
    left = np.asarray(nib.load(roi / "lh.nsdgeneral.nii.gz").dataobj)[mask] > 0
    assert np.array_equal(space.atlases["hemisphere"].values, np.where(left, 1, 2))
    ncsnr = np.asarray(nib.load(nsd_betas(nsd_tree, 1) / "ncsnr.nii.gz").dataobj)[mask]
    assert np.array_equal(space.ncsnr, ncsnr)  # type: ignore[arg-type]
    assert np.allclose(space.affine, volume.affine)  # type: ignore[arg-type]


def test_ncsnr_is_computed_where_its_file_is_missing(
    own_nsd_tree: Path, nsd_betas: Folder, tmp_path: Path
) -> None:
    published = prepare_nsd(own_nsd_tree, tmp_path / "with", subject=1).space.ncsnr
    (nsd_betas(own_nsd_tree, 1) / "ncsnr.nii.gz").unlink()
    made = prepare_nsd(own_nsd_tree, tmp_path / "without", subject=1)
    assert made.info.provenance["ncsnr_from"] == "trials of the train split"
    assert made.space.ncsnr is not None
    assert published is not None
    assert np.corrcoef(made.space.ncsnr, published)[0, 1] > 0.8


def test_hdf5_gives_the_same_as_nifti(own_nsd_tree: Path, nsd_betas: Folder, tmp_path: Path) -> None:
    expected = np.array(prepare_nsd(own_nsd_tree, tmp_path / "nifti", subject=1).responses)
    for number, path in enumerate(sorted(nsd_betas(own_nsd_tree, 1).glob("betas*.nii.gz"))):
        volume = np.asarray(nib.load(path).dataobj)
        # NSD's chunks (one voxel, all trials) for two sessions, whole trials for the third
        chunks = (PER_SESSION, 1, 1, 1) if number < 2 else (7, *volume.shape[2::-1])
        with h5py.File(path.with_name(path.name.replace("nii.gz", "hdf5")), "w") as file:
            file.create_dataset("betas", data=volume.transpose(3, 2, 1, 0), chunks=chunks)
        path.unlink()
    made = prepare_nsd(own_nsd_tree, tmp_path / "hdf5", subject=1)
    assert np.array_equal(made.responses, expected)


def test_uncompressed_and_scaled_nifti(own_nsd_tree: Path, nsd_betas: Folder, tmp_path: Path) -> None:
    expected = np.array(prepare_nsd(own_nsd_tree, tmp_path / "nifti", subject=1).responses)
    path = nsd_betas(own_nsd_tree, 1) / "betas_session02.nii.gz"
    path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
    path.unlink()
    assert np.array_equal(prepare_nsd(own_nsd_tree, tmp_path / "plain", subject=1).responses, expected)
    image = nib.load(path.with_suffix(""))
    floats = nib.Nifti1Image(np.asarray(image.dataobj) / np.float32(300), image.affine)
    nib.save(floats, path.with_suffix(""))  # percent as float: taken as it is
    made = prepare_nsd(own_nsd_tree, tmp_path / "float", subject=1)
    assert np.allclose(made.responses, expected, rtol=1e-6)


@pytest.fixture
def surface_tree(own_nsd_tree: Path) -> tuple[Path, np.ndarray]:
    """The tree with float fsaverage betas of subject 1 (30 + 20 vertices), and them as (trials, vertices)."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(3 * PER_SESSION, 50)).astype(np.float32)
    folder = own_nsd_tree / "nsddata_betas/ppdata/subj01/fsaverage/betas_fithrf_GLMdenoise_RR"
    label = own_nsd_tree / "nsddata/freesurfer/fsaverage/label"
    folder.mkdir(parents=True)
    label.mkdir(parents=True, exist_ok=True)
    for side, part in (("lh", slice(0, 30)), ("rh", slice(30, 50))):
        for session in range(3):
            rows = values[session * PER_SESSION : (session + 1) * PER_SESSION, part]
            image = nib.MGHImage(rows.T[:, None, None, :].copy(), np.eye(4))
            nib.save(image, folder / f"{side}.betas_session{session + 1:02d}.mgh")
        n = part.stop - part.start
        for name, labels in (("nsdgeneral", np.arange(n) % 3 > 0), ("streams", np.arange(n) % 4)):
            image = nib.MGHImage(labels.astype(np.int32)[:, None, None], np.eye(4))
            nib.save(image, label / f"{side}.{name}.mgz")
    (label / "streams.mgz.ctab").write_text("0 Unknown\n1 early\n2 midventral\n")
    return own_nsd_tree, values


def test_fsaverage_is_not_divided(surface_tree: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    tree, values = surface_tree
    made = prepare_nsd(tree, tmp_path / "out", subject=1, options=NsdOptions(space="fsaverage"))
    inside = np.concatenate([np.arange(30) % 3 > 0, np.arange(20) % 3 > 0])
    assert np.array_equal(made.responses, values[:, inside])
    assert made.space.kind == "surface"
    assert made.space.shape == (30, 20)
    assert np.array_equal(made.space.index, np.flatnonzero(inside))  # type: ignore[arg-type]
    assert set(made.space.roi_masks("streams")) == {"streams/early", "streams/midventral"}
    assert (made.space.atlases["hemisphere"].values == 1).sum() == 20
    reference = prepare_nsd(
        tree, tmp_path / "ref", subject=1, options=NsdOptions(space="fsaverage", scaling="reference")
    )
    assert np.allclose(reference.responses, values[:, inside] * 0.15, rtol=1e-6)


def test_gaps_in_surface_betas_are_listed_and_nothing_is_invented(
    surface_tree: tuple[Path, np.ndarray], tmp_path: Path
) -> None:
    tree, values = surface_tree
    folder = tree / "nsddata_betas/ppdata/subj01/fsaverage/betas_fithrf_GLMdenoise_RR"
    rows = values[PER_SESSION : 2 * PER_SESSION, :30].copy()
    rows[:, 1] = np.nan  # vertex 1 is voxel 0 of the mask, vertex 2 is voxel 1
    path = folder / "lh.betas_session02.mgh"
    nib.save(nib.MGHImage(rows.T[:, None, None, :].copy(), np.eye(4)), path)
    for scaling in ("percent", "session-zscore"):
        made = prepare_nsd(
            tree, tmp_path / scaling, subject=1, options=NsdOptions(space="fsaverage", scaling=scaling)
        )  # type: ignore[arg-type]
        assert made.info.provenance["missing_voxels"] == {"1": [0]}
        assert np.isfinite(made.responses).all()
        assert (made.responses[PER_SESSION : 2 * PER_SESSION, 0] == 0).all()


def test_zscore_is_fitted_on_training_trials_of_each_session(
    nsd_tree: Path, nsd_betas: Folder, tmp_path: Path
) -> None:
    made = prepare_nsd(nsd_tree, tmp_path / "out", subject=1, options=NsdOptions(scaling="session-zscore"))
    stored = masked_int16(nsd_tree, nsd_betas(nsd_tree, 1), 1, 3).astype(np.float64)
    train = (made.trials["split"] == "train").to_numpy()
    for session in range(3):
        rows = made.trials["session"].to_numpy() == session
        fit = stored[rows & train]
        expected = (stored[rows] - fit.mean(0)) / fit.std(0)
        assert np.allclose(made.responses[rows], expected, atol=1e-4)
    back = invert(made, made.responses, made.trials["session"].to_numpy())
    assert np.array_equal(np.round(back * 300), stored)
    assert made.info.unit == "z-score within session"
    verify_manifest(made.path)
    assert "scaling.npz" in json.loads((made.path / "checksums.json").read_text())


def test_reference_scaling_and_its_inverse(nsd_tree: Path, nsd_betas: Folder, tmp_path: Path) -> None:
    made = prepare_nsd(nsd_tree, tmp_path / "out", subject=1, options=NsdOptions(scaling="reference"))
    stored = masked_int16(nsd_tree, nsd_betas(nsd_tree, 1), 1, 3)
    assert np.array_equal(made.responses, stored.astype(np.float32) / np.float32(2000))
    back = invert(made, made.responses, made.trials["session"].to_numpy())
    assert np.array_equal(np.round(back * 300), stored)


def test_voxels_without_data_or_variance_are_listed(
    own_nsd_tree: Path, nsd_betas: Folder, tmp_path: Path, spoil_betas: Any
) -> None:
    roi = own_nsd_tree / "nsddata/ppdata/subj01/func1pt8mm/roi/nsdgeneral.nii.gz"
    inside = np.argwhere(np.asarray(nib.load(roi).dataobj) > 0)
    for session in (1, 2, 3):

        def change(volume: np.ndarray, session: int = session) -> np.ndarray:
            volume[tuple(inside[7])] = 55 * session  # constant within each session
            volume[tuple(inside[9])] = 21  # constant always
            if session == 2:
                volume[tuple(inside[3])] = 0  # no data
            return volume

        spoil_betas(nsd_betas(own_nsd_tree, 1) / f"betas_session{session:02d}.nii.gz", change)
    made = prepare_nsd(
        own_nsd_tree, tmp_path / "out", subject=1, options=NsdOptions(scaling="session-zscore")
    )
    told = made.info.provenance
    assert told["missing_voxels"] == {"1": [3]}
    assert told["constant_in_session"] == {str(k): [7, 9] for k in range(3)}
    assert told["constant_voxels"] == [7, 9]
    assert np.isfinite(made.responses).all()
    assert (made.responses[:, [7, 9]] == 0).all()
    back = invert(made, made.responses, made.trials["session"].to_numpy())
    assert np.array_equal(np.round(back * 300), masked_int16(own_nsd_tree, nsd_betas(own_nsd_tree, 1), 1, 3))
    percent = prepare_nsd(own_nsd_tree, tmp_path / "percent", subject=1)
    assert percent.info.provenance["constant_voxels"] == [9]


def test_rois_and_masks_choose_voxels(nsd_tree: Path, tmp_path: Path) -> None:
    whole = prepare_nsd(nsd_tree, tmp_path / "whole", subject=1)
    masks = whole.space.roi_masks()
    early = prepare_nsd(
        nsd_tree, tmp_path / "v1", subject=1, options=NsdOptions(rois=["prf-visualrois/V1v", "V1d"])
    )
    expected = masks["prf-visualrois/V1v"] | masks["prf-visualrois/V1d"]
    assert np.array_equal(early.responses, np.asarray(whole.responses)[:, expected])
    assert "nsdgeneral" in early.space.atlases  # it is no longer the mask
    places = prepare_nsd(nsd_tree, tmp_path / "ppa", subject=1, options=NsdOptions(mask="floc-places"))
    assert places.n_voxels == (whole.space.atlases["floc-places"].values > 0).sum()
    file = tmp_path / "mine.nii.gz"
    nib.save(whole.space.to_nifti(masks["floc-places/PPA"].astype(np.float32)), file)
    mine = prepare_nsd(nsd_tree, tmp_path / "mine", subject=1, options=NsdOptions(mask=file))
    assert np.array_equal(mine.responses, np.asarray(whole.responses)[:, masks["floc-places/PPA"]])
