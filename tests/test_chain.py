"""NSD from download to tokens through the command line, and the faults that `check` must find on the way."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from synbrain.cli import main
from synbrain.data.dataset import load_dataset
from synbrain.features.store import open_tokens
from synbrain.simulate.experiment import SimulationSize, simulate

BUCKET = "simulated-scenes"
SIZE = SimulationSize(240, 40, 6, 120, (17, 11, 11), 9.0, 160, 32)
SESSIONS = {1: 6, 2: 4}  # the second subject stopped early: its repeats are ragged
BETAS = "nsddata_betas/ppdata/subj{:02d}/func1pt8mm/betas_fithrf_GLMdenoise_RR"
STIMULI = "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5"


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete and a ragged subject; do not change it."""
    out = tmp_path_factory.mktemp("simulated") / "tree"
    simulate(out, subjects=2, size=SIZE, noise="medium", seed=8, sessions=list(SESSIONS.values()))
    return out


def prepare(tree: Path, out: Path, subject: int, *more: str) -> Path:
    """A dataset with tokens, as a user makes it."""
    assert main(["prepare", "nsd", str(tree), str(out), "--subject", str(subject), *more]) == 0
    assert main(["features", str(out), "--encoder", "pixels"]) == 0
    return out


def spoiled(tree: Path, where: Path) -> Path:
    """A copy of the tree, linked file by file, so that one can be replaced."""
    return Path(shutil.copytree(tree, where, copy_function=lambda a, b: Path(b).hardlink_to(a)))


def replace(path: Path, content: bytes) -> None:
    path.unlink()
    path.write_bytes(content)


def stored_betas(tree: Path, subject: int) -> np.ndarray:
    """(n_trials, n_voxels) int16 of the files, in the mask's order."""
    roi = tree / f"nsddata/ppdata/subj{subject:02d}/func1pt8mm/roi/nsdgeneral.nii.gz"
    mask = np.asanyarray(nib.load(roi).dataobj) > 0
    files = sorted((tree / BETAS.format(subject)).glob("betas_session*.nii.gz"))
    assert len(files) == SESSIONS[subject]
    return np.concatenate([np.asanyarray(nib.load(file).dataobj)[mask].T for file in files])


def test_download_prepare_check_features(
    s3: tuple[Any, int], tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    client, port = s3
    client.create_bucket(Bucket=BUCKET)
    for file in tree.rglob("*"):
        if file.is_file() and not file.is_relative_to(tree / "truth"):
            key = str(file.relative_to(tree))
            client.put_object(Bucket=BUCKET, Key=key, Body=file.read_bytes(), ACL="public-read")
    nsd = tmp_path / "nsd"
    where = ["--endpoint-url", f"http://127.0.0.1:{port}", "--bucket", BUCKET]
    words = ["download", "nsd", str(nsd), "--subjects", "1", "2", "--sessions", "all", *where]
    assert main([*words, "--accept-terms"]) == 0
    made = []
    for subject, options in ((1, []), (2, ["--repeats", "available"])):
        out = tmp_path / f"subj{subject:02d}"
        made.append(str(out))
        if subject == 2:  # ragged: the choice has to be made
            assert main(["prepare", "nsd", str(nsd), str(out), "--subject", "2"]) == 2
            assert "--repeats" in capsys.readouterr().err
        assert main(["prepare", "nsd", str(nsd), str(out), "--subject", str(subject), *options]) == 0
        assert main(["check", str(out)]) == 0
        assert main(["features", str(out), "--encoder", "pixels"]) == 0

        dataset = load_dataset(out)
        assert dataset.trials["session"].nunique() == SESSIONS[subject]
        repeats = np.bincount(dataset.trials["image"].to_numpy(dtype=np.int64))
        assert (set(repeats) == {3}) is (subject == 1)
        assert dataset.responses.shape[0] == SESSIONS[subject] * SIZE.trials_per_session
        percent = np.asarray(dataset.responses, dtype=np.float64)
        stored = stored_betas(tree, subject)
        np.testing.assert_array_equal(np.rint(percent * 300), stored)
        np.testing.assert_array_equal(dataset.responses, stored.astype(np.float32) / np.float32(300))

        tokens = open_tokens(dataset, "pixels")
        assert len(tokens.read(next(iter(tokens.layers)))) == dataset.n_images
    assert main(["check", *made]) == 0  # now with the stored tokens, and against each other
    printed = capsys.readouterr().out
    assert "nothing found" in printed
    assert "pixels" in printed


def swapped_sessions(tree: Path, where: Path) -> list[Path]:
    tree = spoiled(tree, where / "tree")
    first, second = (tree / BETAS.format(1) / f"betas_session{n:02d}.nii.gz" for n in (2, 5))
    contents = first.read_bytes(), second.read_bytes()
    replace(first, contents[1])
    replace(second, contents[0])
    return [prepare(tree, where / "data", 1)]


def shifted_trial(tree: Path, where: Path) -> list[Path]:
    """The first trial of a session was lost, so that all others moved up by one."""
    tree = spoiled(tree, where / "tree")
    path = tree / BETAS.format(1) / "betas_session03.nii.gz"
    image = nib.load(path)
    moved = nib.Nifti1Image(np.roll(np.asanyarray(image.dataobj), -1, axis=3), image.affine, image.header)
    path.unlink()
    nib.save(moved, path)
    return [prepare(tree, where / "data", 1)]


def duplicated_subject(tree: Path, where: Path) -> list[Path]:
    """Sessions of subject 1 copied to where subject 2's belong."""
    tree = spoiled(tree, where / "tree")
    for number in range(1, SESSIONS[2] + 1):
        name = f"betas_session{number:02d}.nii.gz"
        replace(tree / BETAS.format(2) / name, (tree / BETAS.format(1) / name).read_bytes())
    for folder in ("nsddata/ppdata/subj{:02d}/func1pt8mm", "nsddata/freesurfer/subj{:02d}"):
        shutil.rmtree(tree / folder.format(2))
        shutil.copytree(tree / folder.format(1), tree / folder.format(2))
    (tree / BETAS.format(2) / "ncsnr.nii.gz").unlink()
    return [prepare(tree, where / "one", 1), prepare(tree, where / "two", 2, "--repeats", "available")]


def betas_left_at_300(tree: Path, where: Path) -> list[Path]:
    """The integers of the files in a table of one's own that claims to be in percent."""
    dataset = load_dataset(prepare(tree, where / "whole", 1))
    source = where / "source"
    (source / "images").mkdir(parents=True)
    with h5py.File(tree / STIMULI) as file:
        for name, row in zip(dataset.images["name"], dataset.images["row"], strict=True):
            Image.fromarray(file["imgBrick"][row]).save(source / "images" / f"{name}.png")
    trials = dataset.trials.assign(image=dataset.images["name"].to_numpy()[dataset.trials["image"]] + ".png")
    trials[["image", "session", "repeat", "split"]].to_csv(source / "trials.csv", index=False)
    np.save(source / "responses.npy", stored_betas(tree, 1))
    words = ["prepare", "table", str(source), str(where / "data"), "--unit", "percent signal change"]
    assert main(words) == 0
    assert main(["features", str(where / "data"), "--encoder", "pixels"]) == 0
    return [where / "data"]


@pytest.mark.parametrize(
    ("plant", "check", "told"),
    [
        (swapped_sessions, "swapped sessions", "sessions 1 and 4 are swapped"),
        (shifted_trial, "shifted trials", "session 2,"),
        (duplicated_subject, "duplicate subjects", "same recording"),
        (betas_left_at_300, "unit", "300"),
    ],
)
def test_check_finds_what_was_planted(
    plant: Callable[[Path, Path], list[Path]], check: str, told: str, tree: Path, tmp_path: Path
) -> None:
    datasets = [str(path) for path in plant(tree, tmp_path)]
    out = tmp_path / "findings.json"
    assert main(["check", *datasets, "--encoder", "pixels", "--out", str(out)]) == 1
    report = json.loads(out.read_text())
    parts = [*report["datasets"], *([report["between"]] if report["between"] else [])]
    lines = [line for part in parts for line in part["checks"] if line["status"] == "fault"]
    assert [line["check"] for line in lines if line["check"].startswith(check)]
    assert any(told in line["text"] for line in lines if line["check"].startswith(check))
    # what is out of step is told once, not as every other fault too
    assert {line["check"].split(" (")[0] for line in lines} <= {check, "repeats", "images"}
