"""Bad input through the command line: exit code 2, the mend in the message, nothing written or lost."""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fixtures.training import MICRO
from synbrain.cli import main
from synbrain.files import read_json
from synbrain.networks.fit import vae as vae_stage
from synbrain.networks.presets import PRESETS
from synbrain.simulate.experiment import SimulationSize, simulate

TRAIN = [
    "--encoder=pixels", "--preset=micro", "--vae.epochs=2", "--vae.batch-size=8", "--mapper.steps=6",
    "--mapper.round-steps=6", "--mapper.batch-size=8",
]  # fmt: skip
SHORTEST = " ".join([*TRAIN, "--vae.epochs=1", "--mapper.steps=1", "--mapper.round-steps=1"])
CALIBRATED = ["--linear.n-folds=3", "--linear.windows=0"]
CONSTANT = 3  # a voxel that never varies
Tree = dict[str, bytes]


def files(folder: Path) -> Tree:
    """Every file below a folder with its content, to see that nothing was written, changed or lost."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def folders(folder: Path) -> list[str]:
    """Every folder below one: an empty one is taken for a run, or stands in the way of the next call."""
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_dir())


def do(words: str) -> int:
    return main(words.split())


def record(folder: Path) -> Path:
    """24 images x 2 trials of 6 voxels that see the images' colours, one of them constant."""
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    rows, responses = [], []
    for image in range(24):
        colours = rng.integers(0, 255, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(colours).resize((32, 32)).save(folder / "images" / f"{image:02}.png")
        for repeat in range(2):
            rows.append((f"{image:02}.png", repeat, "test" if image >= 18 else "train"))
            responses.append(colours.reshape(-1)[:6] / 100 + rng.standard_normal(6) / 2)
    pd.DataFrame(rows, columns=["image", "repeat", "split"]).to_csv(folder / "trials.csv", index=False)
    measured = np.array(responses, dtype=np.float32)
    measured[:, CONSTANT] = 0.1  # not a binary fraction: its mean is rounded
    np.save(folder / "responses.npy", measured)
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """source/, data/ with pixels tokens and run/, all by commands; do not change them."""
    root = tmp_path_factory.mktemp("made")
    record(root / "source")
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(PRESETS, "micro", MICRO)
        assert main(["prepare", "table", str(root / "source"), str(root / "data")]) == 0
        assert main(["features", str(root / "data"), "--encoder", "pixels", "--layers", "grid4"]) == 0
        words = ["train", str(root / "data"), "--out", str(root / "run"), *TRAIN, *CALIBRATED]
        assert main(words) == 0
    return root


@pytest.fixture
def own(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of ``made`` that a test may spoil, as the working directory."""
    monkeypatch.setitem(PRESETS, "micro", MICRO)
    shutil.copytree(made, tmp_path / "own")
    monkeypatch.chdir(tmp_path / "own")
    return tmp_path / "own"


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., None]:
    """Run a command that must end with 2 and say these words, and see that the folder stays as it was."""

    def run(words: str, *told: str) -> None:
        before, there = files(Path()), folders(Path())
        capsys.readouterr()
        assert do(words) == 2
        message = capsys.readouterr().err
        for text in told:
            assert text in message, message
        assert "Traceback" not in message
        assert files(Path()) == before
        assert folders(Path()) == there

    return run


def respond(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[], None]:
    def spoil() -> None:
        np.save("source/responses.npy", change(np.load("source/responses.npy")))

    return spoil


def put(value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(responses: np.ndarray) -> np.ndarray:
        responses[5, 2] = value
        return responses

    return change


def cut_image() -> None:
    path = Path("source/images/07.png")
    path.write_bytes(path.read_bytes()[:60])


TABLES: dict[str, tuple[Callable[[], None], str, str]] = {
    "image missing": (Path("source/images/07.png").unlink, "07.png", "restore the files, or drop"),
    "image unreadable": (cut_image, "07.png cannot be read", "save it again as PNG or JPEG"),
    "more responses": (respond(lambda y: np.tile(y, (2, 1))), "96 rows for 48 trials", "one response row"),
    "fewer responses": (respond(lambda y: y[:-1]), "47 rows for 48 trials", "one response row per"),
    "NaN": (respond(put(np.nan)), "not finite in row 5, column 2", "drop that trial"),
    "infinite": (respond(put(np.inf)), "not finite in row 5, column 2", "drop that trial"),
}  # fmt: skip


@pytest.mark.parametrize("case", TABLES)
def test_a_table_that_does_not_fit(case: str, own: Path, refused: Callable[..., None]) -> None:
    spoil, problem, mend = TABLES[case]
    spoil()
    refused("prepare table source new", problem, mend)
    refused("prepare table source data --overwrite", problem, mend)  # the older dataset stays


def test_a_voxel_without_variance_is_reported_and_scored(
    own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert do("prepare table source new") == 0
    assert (
        f"1 unit never varies over the training trials (kept, ncsnr 0): {CONSTANT}" in capsys.readouterr().out
    )
    assert do("features new --encoder pixels --layers grid4") == 0
    for recipe, more in (("calibrated", CALIBRATED), ("reference", [])):
        assert do(f"train new --out {recipe} --recipe {recipe} {SHORTEST} {' '.join(more)}") == 0
        assert do(f"synthesize {recipe} source/images --out {recipe}.npy --samples 3") == 0
        assert np.isfinite(np.load(f"{recipe}.npy")).all()
    np.testing.assert_allclose(np.load("calibrated.npy")[..., CONSTANT], 0.1, atol=1e-3)
    assert do("evaluate calibrated new --out scores.json --samples 20 --n-way 5") == 0
    scores = read_json(Path("scores.json"))["scores"]  # null where a score does not apply, never NaN
    assert set(scores) == {"synbrain", "mean_map", "ridge", "ceiling"}
    for row in ("synbrain", "ridge"):
        for metric in ("mse", "pearson", "voxel_r", "voxel_r_trial"):
            assert abs(scores[row][metric]) < 100, (row, metric)
    assert 0 < scores["ceiling"]["voxel_r"] < 1


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("simulated") / "nsd"
    simulate(out, size=SimulationSize(40, 10, 3, 40, (17, 11, 11), 9.0, 60, 32), seed=5)
    return out


def test_a_mask_of_another_shape_and_a_session_cut_short(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Callable[..., None]
) -> None:
    shutil.copytree(tree, tmp_path / "nsd")
    monkeypatch.chdir(tmp_path)
    nib.save(nib.Nifti1Image(np.ones((4, 4, 4), dtype=np.int16), np.eye(4)), "small.nii.gz")
    refused(
        "prepare nsd nsd data --subject 1 --mask small.nii.gz",
        "different spaces: they have shapes (4, 4, 4) and (17, 11, 11)",
        "resample one of them to the grid of the betas",
    )
    roi = Path("nsd/nsddata/ppdata/subj01/func1pt8mm/roi/nsdgeneral.nii.gz")
    good = roi.read_bytes()
    shutil.copy("small.nii.gz", roi)
    refused(
        "prepare nsd nsd data --subject 1",
        "have shapes (4, 4, 4) and (17, 11, 11)",
        "to the grid of the betas",
    )
    roi.write_bytes(good)
    (session,) = Path("nsd").rglob("betas_session02.nii.gz")
    whole = session.read_bytes()
    session.write_bytes(whole[:-3000])
    assert do("prepare nsd nsd data --subject 1") == 2
    assert not Path("data").exists()
    session.write_bytes(whole)
    assert do("prepare nsd nsd data --subject 1") == 0  # finished sessions were kept


def test_an_image_that_became_unreadable(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cut_image()
    shutil.rmtree("data/tokens")
    words = "features data --encoder pixels --layers grid4 --batch-size 4"
    assert do(words) == 2
    assert "save it again as PNG or JPEG" in capsys.readouterr().err
    assert not Path("data/tokens/pixels").exists()
    assert do("synthesize run source/images --out y.npy --batch-size 4") == 2
    assert "07.png cannot be read" in capsys.readouterr().err
    assert not Path("y.npy").exists()
    Image.new("RGB", (32, 32)).save("source/images/07.png")
    assert do(words) == 0
    assert do("synthesize run source/images --out y.npy --batch-size 4") == 0


def test_tokens_of_another_encoder_than_the_runs(own: Path, refused: Callable[..., None]) -> None:
    """The dataset's tokens carry another digest: other weights or preprocessing."""
    path = Path("data/tokens/pixels/tokens.json")
    said = path.read_text()
    digest = read_json(path)["digest"]
    path.write_text(said.replace(digest, "0" * len(digest)))
    mend = "synbrain features"
    refused("evaluate run data --out s.json", mend)
    refused("calibrate run data --out other", mend)
    refused("report run data --out page", mend)
    shutil.rmtree("data/tokens")  # and none of its encoder at all
    refused("evaluate run data --out s.json", "no tokens of pixels", mend)
    refused("train data --out new --encoder pixels", "no tokens of pixels", mend)


@pytest.mark.parametrize(
    "words",
    [
        "simulate taken --size tiny",
        "prepare table source taken",
        "train data --out taken --encoder pixels",
        "synthesize run source/images --out taken.npy",
        "evaluate run data --out taken",
        "report run data --out taken-page",
        "calibrate run data --out taken",
        "check data --out taken",
        "compare data --out taken --encoder pixels",
        "demo --out taken",
    ],
)
def test_an_output_that_exists(words: str, own: Path, refused: Callable[..., None]) -> None:
    if re.search("evaluate|synthesize|check", words):
        Path("taken").write_text("precious")
        Path("taken.npy").write_text("precious")
    else:
        Path("taken").mkdir()
        Path("taken/thesis.txt").write_text("precious")
    Path("taken-page").mkdir()
    Path("taken-page/report.html").write_text("precious")
    refused(words, "pass --overwrite")


@pytest.mark.parametrize(
    "words",
    [
        "simulate new --size tiny",
        "prepare table source new",
        "features data --encoder pixels --layers grid4 --overwrite",
        "train data --out new --recipe=reference " + SHORTEST,
        "synthesize run source/images --out new.npy",
        "evaluate run data --out new --samples 20 --n-way 5 --rows mean_map",
        "calibrate run data --out new",
    ],
)
def test_a_full_disk(
    words: str, own: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every write through synbrain.files ends in ENOSPC."""
    before = files(own)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        patched.setattr(os, "posix_fallocate", full)
        assert do(words) == 2
    message = capsys.readouterr().err
    assert "disk is full" in message
    assert "free some space" in message
    after = files(own)
    assert {name: after.get(name) for name in before} == before  # nothing was lost
    assert not Path("new").is_file()
    assert not Path("new.npy").exists()
    assert not (Path("new") / "checksums.json").exists()
    assert do(words) == 0  # and the same command does it once there is space


def interrupting(at: int) -> Callable[..., Any]:
    batch_rows, calls = vae_stage.batch_rows, []

    def pressing(*given: Any) -> Any:
        calls.append(1)
        if len(calls) == at:
            os.kill(os.getpid(), signal.SIGINT)
        return batch_rows(*given)

    return pressing


def test_ctrl_c_then_a_tampered_checkpoint_then_resume(
    own: Path, monkeypatch: pytest.MonkeyPatch, refused: Callable[..., None]
) -> None:
    words = "train data --out new --recipe reference " + " ".join(TRAIN)
    with monkeypatch.context() as patched:
        patched.setattr(vae_stage, "batch_rows", interrupting(3))
        assert do(words) == 130
    (weights,) = Path("new/training/vae").glob("step-*/weights.safetensors")
    for path in (weights, weights.with_name("state.json"), weights.with_name("checksums.json")):
        good = path.read_bytes()
        path.write_bytes(good[:-2] + b"  " if path.suffix == ".json" else good[:-1] + bytes([good[-1] ^ 1]))
        refused(f"{words} --resume", "step-", "--overwrite")
        path.write_bytes(good)
    assert do(f"{words} --resume") == 0


def test_an_interrupted_overwrite_keeps_both_the_run_and_the_checkpoint(
    own: Path, monkeypatch: pytest.MonkeyPatch, refused: Callable[..., None]
) -> None:
    words = "train data --out run --recipe reference " + " ".join(TRAIN)
    older = files(Path("run/subjects")), Path("run/config.json").read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(vae_stage, "batch_rows", interrupting(3))
        assert do(f"{words} --overwrite") == 130
    assert (files(Path("run/subjects")), Path("run/config.json").read_bytes()) == older
    refused(f"{words} --resume", "--overwrite")
    calls: list[int] = []
    batch_rows = vae_stage.batch_rows
    monkeypatch.setattr(vae_stage, "batch_rows", lambda *given: calls.append(1) or batch_rows(*given))
    assert do(f"{words} --resume --overwrite") == 0
    assert len(calls) < 8, "2 epochs of 4 steps: it went on at the checkpoint"
    assert read_json(Path("run/config.json"))["recipe"] == "reference"


def test_the_sidecar_of_a_synthesis_replaces_nothing(own: Path, refused: Callable[..., None]) -> None:
    for precious in ("precious", '{"scores": {}}'):
        Path("scores.json").write_text(precious)
        for words in ("", " --overwrite"):
            refused(
                f"synthesize run source/images --out scores.npy{words}", "scores.json, which", "another name"
            )
        assert Path("scores.json").read_text() == precious


@pytest.mark.parametrize("name", ["config.json", "vae/model.safetensors", "subjects/source/subject.json"])
def test_a_run_that_was_tampered_with(name: str, own: Path, refused: Callable[..., None]) -> None:
    path = Path("run") / name
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    for words in ("synthesize run source/images --out y.npy", "evaluate run data --out s.json", "info run"):
        refused(words, f"{path.name} was altered after it was written", "copy it again")


@pytest.mark.parametrize("name", ["dataset.json", "trials.parquet", "images.parquet", "space/space.json"])
def test_a_dataset_that_was_tampered_with(name: str, own: Path, refused: Callable[..., None]) -> None:
    path = Path("data") / name
    path.write_bytes(path.read_bytes()[:-1] + b" ")
    for words in ("train data --out new --encoder pixels", "evaluate run data --out s.json", "info data"):
        refused(words, f"{path.name} was altered after it was written", "copy it again")


@pytest.mark.parametrize(
    "name", ["run/checksums.json", "data/checksums.json", "data/tokens/pixels/tokens.json"]
)
@pytest.mark.parametrize("content", ["{", "[]", "null", ""])
def test_json_that_is_broken(name: str, content: str, own: Path, refused: Callable[..., None]) -> None:
    Path(name).write_text(content)
    refused("evaluate run data --out s.json", Path(name).name, "")


@pytest.mark.parametrize(
    ("content", "named"),
    [("vae:\n  lrr: 0.1\n", "lrr"), ("mappper:\n  lr: 0.1\n", "mappper"), ("vae: [\n", "parsing config")],
)
def test_a_config_key_with_a_typo(
    content: str, named: str, own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("c.yaml").write_text(content)
    before = files(own)
    with pytest.raises(SystemExit) as stopped:
        do("train data --out new --config c.yaml")
    assert stopped.value.code == 2
    assert named in capsys.readouterr().err
    assert files(own) == before


MISTAKES = {
    "a device that torch does not know": ("evaluate run data --device gpu9", "no device 'gpu9'", "auto, cpu"),
    "a device, features": ("features data --encoder pixels --device gpu9", "no device 'gpu9'", "auto, cpu"),
    "a device, compare": ("compare data --out new --encoder pixels --device gpu", "knows none", "auto, cpu"),
    "a device that holds nothing": ("evaluate run data --device meta", "no device 'meta'", "auto, cpu"),
    "a numbered CPU": (
        "train data --out new --encoder pixels --device cpu:0", "put on 'cpu:0'", "pass --device cpu\n",
    ),
    "two images": ("train data --out new --encoder pixels --leave-out 0.9", "2 images to", "give 3 at"),
    "two images, adapt": ("adapt run data --out new --budget 2 --by images", "2 images to", "give 3 at"),
    "a negative seed, report": ("report run data --out page --seed -1", "--seed -1", "from 0 on"),
    "a negative seed, check": ("check data --seed -1", "--seed -1", "from 0 on"),
    "a negative seed, calibrate": ("calibrate run data --out new --seed -1", "--seed -1", "from 0 on"),
    "a negative seed, simulate": ("simulate new --size tiny --seed -1", "--seed -1", "from 0 on"),
    "a negative seed, demo": ("demo --out new --size tiny --seed -1", "--seed -1", "from 0 on"),
    "no image at a time": (
        "synthesize run source --out y.npy --batch-size 0", "size cannot be 0", "equal to 1"
    ),
    "a run as a dataset": ("train run --out new", "run is not a dataset", "synbrain prepare"),
    "a dataset as a run": ("evaluate data data", "data is not a run", "synbrain train"),
    "run and dataset swapped": ("report data run --out page", "data is not a run", "synbrain train"),
    "the wrong encoder": ("train data --out new --encoder clip", "no tokens of clip", "synbrain features"),
    "an unknown encoder": ("features data --encoder vgg", "no encoder 'vgg'", "choose from"),
    "a stage without tokens": (
        "train data --out new --encoder pixels --layers nope",
        "have layers grid4, not nope",
        "--encoder pixels --layers nope`",
    ),
    "an unknown network stage": (
        "train data --out new --encoder pixels --network-layer nope", "not ['nope']", "synbrain features",
    ),
    "an unknown preset": ("train data --out new --encoder pixels --preset huge", "'huge'", "choose one of"),
    "a share above 1": (
        "train data --out new --encoder pixels --validation-fraction 2", "--validation-fraction", "--help",
    ),
    "one dataset twice": ("train data data --out new --encoder pixels", "two subjects", "--name"),
    "an unknown method": ("compare data --out new --encoder pixels --methods gnet", "gnet", "ridge"),
    "one candidate": ("compare data --out new --encoder pixels --n-way 1", "--n-way", "2"),
    "an unknown row": ("evaluate run data --rows gnet", "gnet", "mean_map"),
    "a budget that is none": ("adapt run data --out new --budget lots", "'lots' is no budget", "1h"),
    "a curve that is none": ("adaptation-curve run data --out new --budgets lots", "'lots'", "a number"),
    "a file as a folder": ("report run data --out source/trials.csv", "is a file", "name a folder"),
    "no path": ("info nowhere", "neither a dataset nor a run", "synbrain prepare"),
}  # fmt: skip


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_on_the_command_line(case: str, own: Path, refused: Callable[..., None]) -> None:
    refused(*MISTAKES[case])


def test_a_run_is_not_scored_on_what_it_was_trained_on(
    own: Path, refused: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    """A dataset that is prepared again with another split: the run knows what it saw of its test images."""
    table = pd.read_csv("source/trials.csv")
    table["split"] = np.where(table["image"] < "03.png", "test", "train")
    table.to_csv("source/trials.csv", index=False)
    assert do("prepare table source data --overwrite") == 0
    assert do("features data --encoder pixels --layers grid4") == 0
    for command in ("evaluate run data", "report run data --out page"):
        refused(command, "trained on 3 of 3 test images of data", "train it again on this split")
    shutil.rmtree("source/images")
    assert do("evaluate run data --rows mean_map --samples 2") == 0
    assert "trained on test images of data is not known" in capsys.readouterr().err
