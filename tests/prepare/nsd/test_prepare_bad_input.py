"""prepare nsd on damaged, missing and contradicting files: told with the mend, nothing written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from synbrain.cli import main
from synbrain.data.dataset import load_dataset
from synbrain.errors import SynBrainError
from synbrain.prepare.nsd.options import NsdOptions
from synbrain.prepare.nsd.prepare import prepare_nsd

Folder = Callable[[Path, int], Path]


def _cut(path: Path, *_: Any) -> None:
    path.write_bytes(path.read_bytes()[:-3000])


def _flip(path: Path, *_: Any) -> None:
    content = bytearray(path.read_bytes())
    content[-6] ^= 255  # in the checksum at the end
    path.write_bytes(content)


BAD_BETAS = {
    "cut short": (_cut, "betas_session02.nii.gz is damaged or cut short"),
    "wrong checksum": (_flip, "betas_session02.nii.gz is damaged or cut short"),
    "empty": (lambda path, _: path.write_bytes(b""), "damaged or cut short"),
    "no gzip": (lambda path, _: path.write_bytes(b"hello" * 99), "damaged or cut short"),
    "fewer trials": (
        lambda path, spoil: spoil(path, lambda v: v[..., :-3]),
        "has 37 trials, the other sessions",
    ),
    "other grid": (lambda path, spoil: spoil(path, lambda v: v[:-1]), "has grid (16, 11, 11)"),
    "one volume": (lambda path, spoil: spoil(path, lambda v: v[..., 0]), "has 1 trial"),
    "missing": (lambda path, _: path.unlink(), "lacks sessions [2] of 3"),
}


@pytest.mark.parametrize("case", BAD_BETAS)
def test_damaged_betas_are_told(
    case: str,
    own_nsd_tree: Path,
    nsd_betas: Folder,
    tmp_path: Path,
    spoil_betas: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:
    spoil, message = BAD_BETAS[case]
    path = nsd_betas(own_nsd_tree, 1) / "betas_session02.nii.gz"
    good = path.read_bytes()
    spoil(path, spoil_betas)
    command = ["prepare", "nsd", str(own_nsd_tree), str(tmp_path / "out"), "--subject", "1"]
    assert main(command) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    path.write_bytes(good)
    assert main(command) == 0
    assert load_dataset(tmp_path / "out").n_trials == 120


def test_other_bad_input_is_told_and_nothing_written(
    own_nsd_tree: Path, nsd_betas: Folder, tmp_path: Path
) -> None:
    def told(message: str, **options: Any) -> None:
        subject = options.pop("subject", 1)
        with pytest.raises(SynBrainError) as caught:
            prepare_nsd(own_nsd_tree, tmp_path / "out", subject=subject, options=NsdOptions(**options))
        assert message in str(caught.value)
        assert not [path for path in tmp_path.iterdir() if "out" in path.name]

    told("no betas of subj04", subject=4)
    told("no betas of subj01", betas="betas_assumehrf")
    told("pass --betas betas_fithrf_GLMdenoise_RR", betas="betas_assumehrf")
    told("lacks sessions [4] of 4", sessions=4)
    told("is no number of sessions", sessions="some")
    told("there is no mask motor", mask="motor")
    told("there is no ROI V9", rois=["V9"])
    told("no voxel lies in", mask="floc-faces", rois=["prf-visualrois/V1v"])
    small = tmp_path / "small.nii.gz"
    nib.save(nib.Nifti1Image(np.ones((4, 4, 4), dtype=np.int16), np.eye(4)), small)
    told("shapes (4, 4, 4) and (17, 11, 11)", mask=small)
    behaviour = own_nsd_tree / "nsddata/ppdata/subj01/behav/responses.tsv"
    table = pd.read_csv(behaviour, sep="\t")
    table.loc[5, "73KID"] += 1
    table.to_csv(behaviour, sep="\t", index=False)
    told("tells other images than nsd_expdesign.mat")
    behaviour.unlink()
    stimuli = own_nsd_tree / "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5"
    whole = stimuli.read_bytes()
    with h5py.File(stimuli, "r+") as file:
        pictures = file["imgBrick"][()]
        del file["imgBrick"]
        file["imgBrick"] = pictures / np.float32(255)
    told("black and white are not known")
    stimuli.write_bytes(whole)
    _cut(stimuli)
    told("nsd_stimuli.hdf5 is damaged or cut short")
    design = own_nsd_tree / "nsddata/experiments/nsd/nsd_expdesign.mat"
    design.write_bytes(b"no design")
    told("nsd_expdesign.mat is damaged")
    design.unlink()
    told("nsd_expdesign.mat is missing")


def test_missing_optional_files_leave_unknowns(own_nsd_tree: Path, tmp_path: Path) -> None:
    (own_nsd_tree / "nsddata/ppdata/subj01/behav/responses.tsv").unlink()
    (own_nsd_tree / "nsddata/experiments/nsd/nsd_stim_info_merged.csv").unlink()
    (own_nsd_tree / "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5").unlink()
    for path in (own_nsd_tree / "nsddata/freesurfer/subj01/label").iterdir():
        path.unlink()
    made = prepare_nsd(own_nsd_tree, tmp_path / "out", subject=1)
    assert made.trials["run"].isna().all()
    assert (made.trials["coco_id"] == -1).all()
    assert any("stimuli are missing" in note for note in made.info.provenance["notes"])
    assert "floc-places/label 2" in made.space.roi_masks()
    assert "no file of label names" in made.space.atlases["floc-places"].source


def test_hemisphere_volumes_alone_make_an_atlas(own_nsd_tree: Path, tmp_path: Path) -> None:
    whole = prepare_nsd(own_nsd_tree, tmp_path / "whole", subject=1)
    (own_nsd_tree / "nsddata/ppdata/subj01/func1pt8mm/roi/streams.nii.gz").unlink()
    made = prepare_nsd(own_nsd_tree, tmp_path / "halves", subject=1)
    assert np.array_equal(made.space.atlases["streams"].values, whole.space.atlases["streams"].values)
    assert "lh.streams.nii.gz + " in made.space.atlases["streams"].source
