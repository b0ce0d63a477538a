"""prepare table: what it makes, and every bad input told without writing anything."""

from __future__ import annotations

import errno
import os
import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from synbrain.cli import main
from synbrain.data.dataset import load_dataset
from synbrain.errors import SynBrainError
from synbrain.prepare.options import TableOptions
from synbrain.prepare.split import split_images
from synbrain.prepare.table import prepare_table

RECORDINGS = Path(__file__).parents[2] / "../shared/data"


@pytest.fixture
def src(tmp_path: Path) -> Path:
    """Six images (two of them test), repeats 3 3 2 1 2 2, five units."""
    folder = tmp_path / "mine"
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    rows = []
    for i, repeats in enumerate([3, 3, 2, 1, 2, 2]):
        pixels = rng.integers(0, 255, (8, 9, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"im{i}.png")
        rows += [(f"im{i}.png", r, r % 2, "test" if i >= 4 else "train") for r in range(repeats)]
    rng.shuffle(rows)
    pd.DataFrame(rows, columns=["image", "repeat", "session", "split"]).to_csv(
        folder / "trials.csv", index=False
    )
    np.save(folder / "responses.npy", rng.normal(size=(13, 5)).astype(np.float32))
    return folder


def edit_trials(src: Path, change: object) -> None:
    table = pd.read_csv(src / "trials.csv")
    table = change(table)  # type: ignore[operator]
    table.to_csv(src / "trials.csv", index=False)


def test_dataset_holds_what_the_table_said(src: Path, tmp_path: Path) -> None:
    made = prepare_table(src, tmp_path / "out", unit="spikes", name="unit test")
    given = pd.read_csv(src / "trials.csv")
    assert made.images["name"][made.trials["image"]].tolist() == given["image"].tolist()
    for column in ("repeat", "session", "split"):
        assert made.trials[column].tolist() == given[column].tolist()
    assert np.array_equal(made.responses, np.load(src / "responses.npy"))
    assert isinstance(made.responses, np.memmap)
    assert (made.info.unit, made.info.name) == ("spikes", "unit test")
    row = int(made.trials["image"][0])
    with Image.open(src / "images" / given["image"][0]) as expected:
        assert np.array_equal(np.asarray(made.load_image(row)), np.asarray(expected))


def test_stimuli_path_is_relative_and_survives_a_move_of_both(src: Path, tmp_path: Path) -> None:
    prepare_table(src, src.parent / "out")
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for name in ("mine", "out"):
        shutil.move(src.parent / name, moved / name)
    made = load_dataset(moved / "out")
    assert not Path(made.info.stimuli.path).is_absolute()
    assert made.load_image(0).size == (9, 8)


def test_copied_images_make_the_dataset_self_contained(src: Path, tmp_path: Path) -> None:
    prepare_table(src, tmp_path / "out", copy_images=True)
    shutil.rmtree(src)
    assert load_dataset(tmp_path / "out").load_image(5).size == (9, 8)


def test_session_defaults_to_zero_and_doubles_become_float32(src: Path, tmp_path: Path) -> None:
    edit_trials(src, lambda t: t.drop(columns="session"))
    np.save(src / "responses.npy", np.load(src / "responses.npy").astype(np.float64))
    made = prepare_table(src, tmp_path / "out")
    assert made.responses.dtype == np.float32
    assert set(made.trials["session"]) == {0}


def test_rows_of_zeros_are_told(src: Path, tmp_path: Path) -> None:
    """Censored trials, as some programs write them, were taken for responses without a word."""
    responses = np.random.default_rng(0).normal(size=(13, 20))
    responses[[4, 9]] = 0
    np.save(src / "responses.npy", responses)
    made = prepare_table(src, tmp_path / "out")
    notes = [note for note in made.info.provenance["notes"] if "censored" in note]
    assert notes == ["2 response rows are 0 in all 20 units, row 4 first: drop trials that were censored"]
    np.save(src / "responses.npy", responses[:, :5])  # counts of few units are 0 by chance
    few = prepare_table(src, tmp_path / "few")
    assert not any("censored" in note for note in few.info.provenance["notes"])


def test_constant_voxel_is_kept_listed_and_told(
    src: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit_trials(src, lambda table: pd.concat([table, table.assign(repeat=table["repeat"] + 3)]))
    responses = np.random.default_rng(0).normal(size=(26, 5)).astype(np.float32)
    train = (pd.read_csv(src / "trials.csv")["split"] == "train").to_numpy()
    responses[:, 1] = 0.25
    responses[train, 3] = -1.0  # varies over test trials only
    np.save(src / "responses.npy", responses)
    assert main(["prepare", "table", str(src), str(tmp_path / "out")]) == 0
    assert "2 units never vary" in capsys.readouterr().out
    made = load_dataset(tmp_path / "out")
    assert made.info.provenance["constant_voxels"] == [1, 3]
    assert made.n_voxels == 5
    assert made.space.ncsnr is not None
    assert np.isfinite(made.space.ncsnr).all()
    assert made.space.ncsnr[[1, 3]].tolist() == [0, 0]


def _missing_image(src: Path) -> None:
    (src / "images" / "im2.png").unlink()


def _cut_image(src: Path) -> None:
    path = src / "images" / "im2.png"
    path.write_bytes(path.read_bytes()[:60])


def _no_image(src: Path) -> None:
    (src / "images" / "im2.png").write_text("not an image")


def _same_image_in_both(src: Path) -> None:
    shutil.copy(src / "images" / "im0.png", src / "images" / "im5.png")


def _responses(change: object) -> object:
    def do(src: Path) -> None:
        np.save(src / "responses.npy", change(np.load(src / "responses.npy")))  # type: ignore[operator]

    return do


def _with(value: float) -> object:
    def do(array: np.ndarray) -> np.ndarray:
        array[3, 2] = value
        return array

    return do


def _trials(change: object) -> object:
    return lambda src: edit_trials(src, change)


def _set(column: str, value: object, row: int = 0) -> object:
    def do(table: pd.DataFrame) -> pd.DataFrame:
        table[column] = table[column].astype(object)
        table.loc[row, column] = value
        return table

    return do


def _split_one_image(table: pd.DataFrame) -> pd.DataFrame:
    first = table.index[table["image"] == "im0.png"][0]
    table.loc[first, "split"] = "test"
    return table


def _double(table: pd.DataFrame) -> pd.DataFrame:
    table.loc[table["image"] == "im0.png", "repeat"] = 0
    return table


def _cut_responses(src: Path) -> None:
    path = src / "responses.npy"
    path.write_bytes(path.read_bytes()[:-20])


BAD = {
    "missing image": (_missing_image, "1 of 6 images named in the trials are missing"),
    "missing image, others named": (_missing_image, "restore the files, or drop their trials"),
    "cut image": (_cut_image, "im2.png cannot be read"),
    "no image": (_no_image, "im2.png cannot be read"),
    "one picture, two names, two splits": (_same_image_in_both, "are the same image"),
    "fewer responses": (_responses(lambda r: r[:-1]), "12 rows for 13 trials"),
    "more responses": (_responses(lambda r: np.concatenate([r, r])), "26 rows for 13 trials"),
    "NaN": (_responses(_with(np.nan)), "not finite in row 3, column 2"),
    "infinite": (_responses(_with(-np.inf)), "not finite in row 3, column 2"),
    "too large for float32": (
        _responses(lambda r: _with(1e300)(r.astype(np.float64))),  # type: ignore[operator]
        "not finite in row 3, column 2",
    ),
    "all constant": (_responses(lambda r: r * 0), "no unit"),
    "one axis": (_responses(lambda r: r[:, 0]), "shape (13,)"),
    "images, repeats, units": (_responses(lambda r: r[None]), "r.reshape(-1, r.shape[-1])"),
    "no numbers": (_responses(lambda r: r.astype(str)), "save real numbers"),
    "cut responses": (_cut_responses, "damaged or cut short"),
    "no responses": (lambda src: (src / "responses.npy").unlink(), "is missing"),
    "no trials.csv": (lambda src: (src / "trials.csv").unlink(), "trials.csv is missing"),
    "empty trials.csv": (lambda src: (src / "trials.csv").write_text(""), "is empty"),
    "header alone": (_trials(lambda t: t[:0]), "has no trials"),
    "column lacks": (_trials(lambda t: t.drop(columns="image")), "lacks the columns ['image']"),
    "split in capitals": (_trials(lambda t: t.rename(columns={"split": "Split"})), "there is 'Split'"),
    "table of another name": (
        lambda src: (src / "trials.csv").rename(src / "trials.tsv"),
        "trials.csv is missing: rename trials.tsv to it",
    ),
    "array of another name": (
        lambda src: (src / "responses.npy").rename(src / "betas.npy"),
        "has no responses.npy, but betas.npy: rename betas.npy to it",
    ),
    "no images": (lambda src: (src / "images").rename(src / "pictures"), "pass --images with the folder"),
    "image in both splits": (_trials(_split_one_image), "1 image is in both splits"),
    "unknown split": (_trials(_set("split", "val", 4)), "line 6: split is val"),
    "negative repeat": (_trials(_set("repeat", -1, 2)), "line 4: repeat is"),
    "fractional session": (_trials(_set("session", 0.5)), "line 2: session is 0.5"),
    "word for a repeat": (_trials(_set("repeat", "one")), "line 2: repeat is one"),
    "double repeat": (_trials(_double), "has repeat 0 twice (2 such rows)"),
    "image outside the folder": (_trials(_set("image", "../mine/images/im0.png")), "line 2: no image"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_told_and_nothing_written(
    case: str, src: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil, message = BAD[case]
    spoil(src)  # type: ignore[operator]
    before = sorted(path.name for path in tmp_path.iterdir())
    assert main(["prepare", "table", str(src), str(tmp_path / "out")]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_existing_output_is_kept_unless_overwrite_is_asked(src: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepare_table(src, out, unit="first")
    with pytest.raises(SynBrainError, match="pass --overwrite"):
        prepare_table(src, out, unit="second")
    assert load_dataset(out).info.unit == "first"
    assert prepare_table(src, out, unit="second", overwrite=True).info.unit == "second"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "out"]


def test_failed_overwrite_keeps_the_older_dataset(src: Path, tmp_path: Path) -> None:
    prepare_table(src, tmp_path / "out", unit="first")
    _missing_image(src)
    with pytest.raises(SynBrainError):
        prepare_table(src, tmp_path / "out", overwrite=True)
    assert load_dataset(tmp_path / "out").info.unit == "first"


@pytest.mark.parametrize("out", ["mine", "."])
def test_output_that_holds_the_input_is_refused(out: str, src: Path, tmp_path: Path) -> None:
    with pytest.raises(SynBrainError, match="holds the input"):
        prepare_table(src, tmp_path / out, overwrite=True)
    assert (src / "trials.csv").exists()


def test_folder_of_something_else_is_not_overwritten(src: Path, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("dear")
    with pytest.raises(SynBrainError, match="not written by synbrain"):
        prepare_table(src, tmp_path / "home", overwrite=True)
    assert (tmp_path / "home" / "thesis.txt").exists()


def test_disk_too_small_is_told_before_anything_is_written(
    src: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(100, 90, 10))
    with pytest.raises(SynBrainError, match="free some space"):
        prepare_table(src, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine"]


def test_disk_that_fills_while_writing_is_told_and_leaves_nothing(
    src: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(SynBrainError, match="disk is full"):
        prepare_table(src, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine"]


@pytest.mark.parametrize(
    ("name", "n_trials", "n_units", "n_images"),
    [
        ("v4_210325", 4840, 50, 640),
        ("v4_190923", 1200, 33, 1200),
        ("v4_201017", 600, 88, 600),
        ("v4_210224", 800, 67, 800),
        ("v4_210322", 1200, 59, 1200),
        ("miyawaki_v1", 80, 797, 10),
    ],
)
def test_real_recordings(name: str, n_trials: int, n_units: int, n_images: int, tmp_path: Path) -> None:
    if not (RECORDINGS / name).exists():
        pytest.skip("the recordings of shared/data are not beside this checkout")
    made = prepare_table(RECORDINGS / name, tmp_path / "out")
    assert (made.n_trials, made.n_voxels, made.n_images) == (n_trials, n_units, n_images)
    assert len(made.image_rows("test")) == (0 if name == "miyawaki_v1" else round(0.2 * n_images))
    repeated = n_trials > n_images
    assert (made.space.ncsnr is not None) == repeated
    if name == "v4_210325":  # the folder's README says .69
        assert made.space.ncsnr is not None
        assert made.space.ncsnr.mean() == pytest.approx(0.69, abs=0.01)


def test_repeats_and_split_may_be_left_out(src: Path, tmp_path: Path) -> None:
    given = pd.read_csv(src / "trials.csv")
    edit_trials(src, lambda table: table[["image", "session"]])
    made = prepare_table(src, tmp_path / "out", options=TableOptions(test_fraction=0.5, seed=3))
    assert made.trials["repeat"].tolist() == given.groupby("image").cumcount().tolist()
    assert len(made.image_rows("test")) == 3
    assert "no split was given: 3 of 6 images were drawn as test, seed 3" in made.info.provenance["notes"]
    again = prepare_table(src, tmp_path / "again", options=TableOptions(test_fraction=0.5, seed=3))
    assert again.images.equals(made.images)
    edit_trials(src, lambda table: table.assign(set=np.where(np.arange(len(table)) % 2, "train", "test")))
    other = prepare_table(src, tmp_path / "other", options=TableOptions(test_fraction=0.5, seed=3))
    note = "the column set holds train and test, and is not read: call it split"
    assert note in other.info.provenance["notes"]
    assert note not in made.info.provenance["notes"]


def test_test_images_may_be_listed_and_pictures_lie_elsewhere(src: Path, tmp_path: Path) -> None:
    (src / "images").rename(tmp_path / "pictures")
    (tmp_path / "test.txt").write_text("im0.png\nim3.png\n")
    words = ["--images", str(tmp_path / "pictures"), "--test-images", str(tmp_path / "test.txt")]
    assert main(["prepare", "table", str(src), str(tmp_path / "out"), *words]) == 0
    made = load_dataset(tmp_path / "out")
    assert made.images["name"][made.image_rows("test")].tolist() == ["im0.png", "im3.png"]
    assert made.load_image(0).size == (9, 8)


def test_repeated_images_may_be_the_test_images() -> None:
    options = TableOptions(test_images=Path("repeated"))
    split, notes = split_images(pd.DataFrame({"image": ["a", "b", "a", "c"], "split": "train"}), options)
    assert split["split"].tolist() == ["test", "train", "test", "train"]
    assert notes == ["test images are the 1 of 3 that were shown more than once"]
    drawn = split_images(pd.DataFrame({"image": ["a", "b", "a", "c"]}), TableOptions())[1]
    assert "1 image of them was shown more than once" in drawn[1]
    assert "trial noise is fitted on repeats of training images" in drawn[1]
    for names in (["a", "b"], ["a", "a", "b", "b"]):
        assert len(split_images(pd.DataFrame({"image": names}), TableOptions())[1]) == 1
    for names in (["a", "b"], ["a", "a"]):
        with pytest.raises(SynBrainError, match="shown more than once: pass --test-images with a list"):
            split_images(pd.DataFrame({"image": names}), options)


def test_a_missing_table_is_told_with_what_it_holds(src: Path, tmp_path: Path) -> None:
    (src / "trials.csv").unlink()
    with pytest.raises(SynBrainError, match="write the column image"):
        prepare_table(src, tmp_path / "out")


def test_the_mend_for_an_archive_can_be_run(
    src: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(src)
    np.savez("responses.npz", np.load("responses.npy"))
    Path("responses.npy").unlink()
    with pytest.raises(SynBrainError) as told:
        prepare_table(src, tmp_path / "out")
    exec(str(told.value).split("save the array alone: ")[1], {"np": np})
    prepare_table(src, tmp_path / "out")
