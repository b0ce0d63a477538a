"""Inputs that people had trouble with, each built by a script beside the checkout, through the command line.

The scripts lie in ``../shared/cases``; where they are not there, these tests skip. Each prints the commands
to run on what it builds; for each of those the table says the exit code and words of the output. What is
behind a row is tested in depth, with its neighbours, in ``tests/prepare``, ``tests/data``, ``tests/model``.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from synbrain.cli import main
from synbrain.data.dataset import load_dataset

CASES = Path(__file__).parents[2] / "shared" / "cases"
TABLE = "52 trials x 12 units"
BIDS = "16 trials x 18 voxels"

# name -> (exit code, words) of each command that the script prints, in order
OUTCOMES: dict[str, list[tuple[int, str]]] = {
    "base_bids": [(0, BIDS)],
    "base_table": [(0, TABLE)],
    "betas_5d": [(0, BIDS)],
    "betas_rgb": [(2, "holds records (R, G, B), which are no responses")],
    "betas_scl_slope": [(0, BIDS)],
    "big_endian_betas": [(0, BIDS)],
    "conditions_column": [(2, "pass --image-column file_path"), (0, BIDS)],
    "constant_voxels": [(0, "7 units never vary")],
    "csv_bom_crlf": [(0, TABLE)],
    "csv_capital_split": [(2, "line 2: split is Train")],
    "csv_cp1252": [(0, TABLE)],
    "csv_names_case": [(2, "there is 'im000.png' (upper and lower case differ)")],
    "csv_names_without_suffix": [(2, "there is 'im000.png' (the suffix differs)")],
    "csv_semicolon": [(0, TABLE)],
    "duplicated_rows": [(2, "im000.png has repeat 0 twice")],
    "events_bom_comma": [(0, BIDS)],
    "events_inherited": [(0, "task-x_events.tsv applies to 2 files of betas")],
    "events_tsv_bad": [(0, "8 trials x 18 voxels")],
    "events_unsorted": [(2, "pass --trial-order onset")],
    "events_utf16": [(0, BIDS)],
    "fmriprep_masks": [
        (2, "has 2 masks: sub-01/func/sub-01_ses-01_task-x_run-1_space-T1w_desc-brain_mask.nii.gz")
    ],
    "glmsingle_hdf5": [(0, BIDS), (0, BIDS), (0, BIDS)],
    "gz_that_is_plain": [(0, BIDS)],
    "image_16bit": [(0, "26 16-bit grey")],
    "image_16bit_tiff": [(0, "26 16-bit grey")],
    "image_cmyk_webp_gif_p": [(0, "the pictures are of mixed modes")],
    "image_exif": [(0, "26 pictures were turned as the orientation tag says")],
    "image_in_two_sizes": [(0, "im025.jpg ~ im000.png")],
    "image_rgba": [(2, "name that colour with --background")],
    "image_tiny": [(0, "the pictures are of mixed sizes")],
    "image_truncated": [(2, "im003.jpg cannot be read")],
    "mask_flipped_affine": [(0, "16 trials x 12 voxels")],
    "mask_probabilistic_nan": [(0, BIDS)],
    "mask_shifted_affine": [(2, "origins that differ by (40, 0, 0) mm")],
    "mask_trailing_singleton": [(0, BIDS)],
    "names_backslash": [(2, "written with slashes, not backslashes")],
    "names_na": [(0, TABLE)],
    "names_spaces_unicode": [(0, TABLE)],
    "nan_trial": [
        (0, "1 trial without data left out: sub-01_ses-01_task-x_run-1_betas.nii.gz volume 4 (im003.png)")
    ],
    "one_repeat": [(0, "26 trials x 12 units")],
    "one_test_image": [(0, "20 training and 1 test image")],
    "one_voxel": [(0, "52 trials x 1 unit")],
    "repeats_from_one": [(0, TABLE)],
    "repeats_missing_column": [(0, "counted in the order of the rows")],
    "responses_bool": [(2, 'np.save("responses.npy", r.astype("float32"))')],
    "responses_f16_nan": [(2, "not finite in row 5, column 3")],
    "responses_fortran_bigendian": [(0, TABLE)],
    "responses_npz": [(2, 'np.load("responses.npz")["responses"]')],
    "responses_npz_renamed": [(2, "an .npz archive under another name")],
    "responses_one_voxel_1d": [(2, "r[:, None]")],
    "responses_pickled": [(2, "pickled Python objects, which may run code")],
    "responses_structured": [(2, "for name in r.dtype.names")],
    "responses_transposed": [(2, 'np.save("responses.npy", r.T)')],
    "run_zero_padding": [(0, BIDS)],
    "same_pixels_two_names": [(2, "are the same image")],
    "spaces_two": [(2, "pass --pattern that matches one of them"), (0, BIDS)],
    "split_val": [(2, "line 5: split is val")],
    "statmaps_3d": [(0, "8 trials x 18 voxels")],
    "stim_glob": [(2, "the nearest name is 'im000.png'")],
    "stim_prefix": [(2, "the folder in front of it differs")],
    "subject_label": [(2, "pass --subject with one of ['01', '02']"), (0, BIDS)],
    "symlinked_subject": [(0, BIDS)],
    "train_only": [(0, "26 training and 0 test images")],
    "zscore_runs": [(0, "z-score within session")],
}
# what each script does to a simulated tree in NSD's layout leaves the same dataset
NSD = ("nsd_betas_float_percent", "nsd_expdesign_v73", "nsd_no_ncsnr")
# these want other arguments, a network's weights or another machine; they have tests of their own:
ELSEWHERE = {
    "clip_truncated",  # test_shared_disks.py
    "evaluate_16bit_vs_8bit",  # model/test_synthesis.py
    "two_processes_one_output",  # test_shared_disks.py
    "voxels_many_images_few",  # linear/test_fit.py, prepare/test_betas.py
}

needs_cases = pytest.mark.skipif(not CASES.is_dir(), reason=f"the scripts are not at {CASES}")


@needs_cases
def test_every_case_has_a_row() -> None:
    assert {path.stem for path in CASES.glob("*.py")} == set(OUTCOMES) | set(NSD) | ELSEWHERE


@needs_cases
@pytest.mark.parametrize("name", sorted(OUTCOMES))
def test_a_case_ends_as_it_should(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    script = [sys.executable, str(CASES / f"{name}.py"), name]
    printed = subprocess.run(script, check=True, capture_output=True, text=True).stdout.splitlines()
    commands = [line.split("#")[0] for line in printed if line.startswith("synbrain")]
    commands = commands or [f"synbrain prepare table {name} {name}-ds"]
    assert len(commands) == len(OUTCOMES[name])
    dataset = tmp_path / f"{name}-ds"
    for command, (code, words) in zip(commands, OUTCOMES[name], strict=True):
        again = ["--overwrite"] if dataset.exists() and "--overwrite" not in command else []
        capfd.readouterr()
        assert main([*shlex.split(command)[1:], *again]) == code
        output = capfd.readouterr()
        assert words in (output.out if code == 0 else output.err)
        assert "Traceback" not in output.err
        assert dataset.exists() == (code == 0)
    for file, values in (
        ("expected.npy", lambda: load_dataset(dataset).responses),
        ("expected_first_trial.npy", lambda: load_dataset(dataset).responses[0]),
    ):
        if (tmp_path / name / file).exists() and dataset.exists():
            np.testing.assert_allclose(values(), np.load(tmp_path / name / file), rtol=1e-5, atol=1e-5)


@needs_cases
def test_odd_nsd_trees_give_the_usual_dataset(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    tree = tmp_path / "tree"
    assert main(["simulate", str(tree), "--subjects", "2", "--size", "tiny"]) == 0
    usual = None
    for name in ("usual", *NSD):
        changed = tmp_path / name
        shutil.copytree(tree, changed)
        if name in NSD:
            subprocess.run([sys.executable, str(CASES / f"{name}.py"), str(changed)], check=True)
        assert main(["prepare", "nsd", str(changed), str(tmp_path / f"{name}-ds"), "--subject", "1"]) == 0
        made = load_dataset(tmp_path / f"{name}-ds")
        usual = usual or made
        # one script rounds to int16 anew, with a slope of its own
        np.testing.assert_allclose(made.responses, usual.responses, atol=2e-3)
        assert made.space.ncsnr is not None
