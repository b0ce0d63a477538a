"""Dataset folders: opening lazily, refusing what was altered, publishing whole folders."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from synbrain.data.dataset import (
    Dataset,
    DatasetInfo,
    NsdOrigin,
    Stimuli,
    load_dataset,
    open_image,
    write_tables,
)
from synbrain.data.space import VoxelSpace
from synbrain.errors import SynBrainError
from synbrain.files import allocate_array, new_folder, publish_folder, verify_manifest


def make(folder: Path, split: tuple[str, ...] = ("train", "train", "test"), **changes: object) -> None:
    trials = pd.DataFrame({"image": [0, 1, 2], "session": 0, "repeat": 0, "split": split})
    images = pd.DataFrame({"name": ["a.png", "b.png", "c.png"], "row": [2, 0, 1], "split": split})
    fields: dict[str, object] = {
        "name": "toy", "subject": "s", "unit": "mV", "n_trials": 3, "n_voxels": 4, "n_images": 3,
        "stimuli": Stimuli(kind="folder", path="../pictures"),
    }  # fmt: skip
    array = allocate_array(folder / "responses.npy", (3, 4), np.float32)
    array[:] = np.arange(12).reshape(3, 4)
    array.flush()
    write_tables(folder, DatasetInfo(**(fields | changes)), trials, images, VoxelSpace(n_voxels=4))  # type: ignore[arg-type]


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    with new_folder(tmp_path / "toy") as building:
        make(building)
    return tmp_path / "toy"


def test_opens_with_a_memory_map_and_rows_by_split(toy: Path) -> None:
    made = load_dataset(toy)
    assert isinstance(made, Dataset)
    assert isinstance(made.responses, np.memmap)
    assert made.image_rows("train").tolist() == [0, 1]
    assert made.trial_rows("test").tolist() == [2]
    assert (made.n_trials, made.n_voxels, made.n_images) == (3, 4, 3)
    verify_manifest(toy)


def test_images_from_a_folder_and_from_hdf5(toy: Path, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    Image.new("L", (5, 4), 9).save(tmp_path / "pictures" / "b.png")
    assert load_dataset(toy).load_image(1).mode == "RGB"
    with pytest.raises(SynBrainError, match=r"a\.png is missing"):
        load_dataset(toy).load_image(0)
    brick = np.arange(3 * 2 * 2 * 3, dtype=np.uint8).reshape(3, 2, 2, 3)
    with new_folder(tmp_path / "h5") as building:
        make(building, stimuli=Stimuli(kind="hdf5", path="../brick.hdf5"))
    with pytest.raises(SynBrainError, match="is missing"):
        load_dataset(tmp_path / "h5").load_image(0)
    with h5py.File(tmp_path / "brick.hdf5", "w") as file:
        file["imgBrick"] = brick
    assert np.array_equal(np.asarray(load_dataset(tmp_path / "h5").load_image(0)), brick[2])


@pytest.mark.parametrize("name", ["dataset.json", "trials.parquet", "images.parquet", "space/space.json"])
def test_altered_or_missing_small_file_is_refused(name: str, toy: Path) -> None:
    path = toy / name
    path.write_bytes(path.read_bytes().replace(b"toy", b"top") + b" ")
    with pytest.raises(SynBrainError, match=r"altered|not a dataset"):
        load_dataset(toy)
    path.unlink()
    with pytest.raises(SynBrainError, match=r"missing|not a dataset"):
        load_dataset(toy)


def test_cut_responses_are_refused_when_opened_and_altered_ones_when_verified(toy: Path) -> None:
    path = toy / "responses.npy"
    content = path.read_bytes()
    path.write_bytes(content[:-4] + b"abcd")
    load_dataset(toy)  # opening does not read the large file
    with pytest.raises(SynBrainError, match=r"responses\.npy was altered"):
        verify_manifest(toy)
    path.write_bytes(content[:-8])
    with pytest.raises(SynBrainError, match="cut short"):
        load_dataset(toy)


def test_other_format_and_unknown_keys_are_refused(toy: Path) -> None:
    manifest = json.loads((toy / "checksums.json").read_text())
    about = json.loads((toy / "dataset.json").read_text())
    manifest.pop("dataset.json")
    (toy / "checksums.json").write_text(json.dumps(manifest))
    (toy / "dataset.json").write_text(json.dumps(about | {"format": 99}))
    with pytest.raises(SynBrainError, match="has format 99"):
        load_dataset(toy)
    (toy / "dataset.json").write_text(json.dumps(about | {"colour": "red"}))
    with pytest.raises(SynBrainError, match="not valid"):
        load_dataset(toy)
    with pytest.raises(SynBrainError, match="is not a dataset"):
        load_dataset(toy.parent)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_trials": 4}, "3 trials"),
        ({"n_images": 2}, "images that are not listed"),
        ({"split": ("train", "test", "test")}, None),
    ],
)
def test_tables_that_do_not_fit_are_not_written(
    changes: dict[str, object], message: str | None, tmp_path: Path
) -> None:
    out = tmp_path / "toy"
    if message is None:
        with new_folder(out) as building:
            make(building, **changes)  # type: ignore[arg-type]
        assert load_dataset(out).image_rows("test").tolist() == [1, 2]
        return
    with pytest.raises(SynBrainError, match=message), new_folder(out) as building:
        make(building, **changes)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_interrupted_folder_leaves_the_older_one(toy: Path) -> None:
    def interrupted() -> None:
        with new_folder(toy, overwrite=True) as building:
            make(building, name="newer")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert load_dataset(toy).info.name == "toy"
    assert [path.name for path in toy.parent.iterdir()] == ["toy"]
    with pytest.raises(SynBrainError, match="exists already"), new_folder(toy):
        raise AssertionError


def test_published_folder_replaces_the_older_whole(toy: Path) -> None:
    building = toy.with_name("building")
    building.mkdir()
    (building / "only").write_text("this")
    publish_folder(building, toy)
    assert [path.name for path in toy.iterdir()] == ["only"]
    assert [path.name for path in toy.parent.iterdir()] == ["toy"]


def test_failed_publication_puts_the_older_folder_back(toy: Path) -> None:
    with pytest.raises(FileNotFoundError):
        publish_folder(toy.with_name("nowhere"), toy)
    assert load_dataset(toy).info.name == "toy"


def test_image_bomb_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (40, 40)).save(tmp_path / "big.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(SynBrainError, match=r"big\.png cannot be read"):
        open_image(tmp_path / "big.png")


def test_a_dataset_tells_what_it_is_and_becomes_xarray(toy: Path) -> None:
    made = load_dataset(toy)
    assert "3 trials x 4 units, mV" in repr(made)
    assert "<table>" in made._repr_html_()
    pytest.importorskip("xarray", reason="xarray is not installed")
    pytest.importorskip("h5netcdf", reason="h5netcdf is not installed")
    array = made.to_xarray()
    assert array.dims == ("trial", "voxel")
    assert array.attrs["units"] == "mV"
    np.testing.assert_array_equal(array[array["image"] == "b.png"], [[4, 5, 6, 7]])
    assert array["split"].values.tolist() == ["train", "train", "test"]


def test_facts_that_older_datasets_keep_under_provenance_become_fields() -> None:
    lineage = {
        "run": "d", "recipe": "calibrated", "subject": "s", "seed": 3, "kind": "trial", "hours": 1.0,
        "images_of": "x", "n_images": 9,
    }  # fmt: skip
    older = {
        "name": "x", "subject": "s", "unit": "u", "n_trials": 1, "n_voxels": 1, "n_images": 1,
        "stimuli": {"kind": "folder", "path": "images"},
        "provenance": {
            "synthetic": lineage, "design_is_nsd": True, "subject": 2, "n_sessions": 40,
            "trials_per_session": 750,
        },
    }  # fmt: skip
    info = DatasetInfo.model_validate(older)
    assert info.synthetic is not None
    assert (info.synthetic.seed, info.trials_per_session) == (3, 750)
    assert info.nsd == NsdOrigin(subject=2, n_sessions=40)
    assert DatasetInfo.model_validate(info.model_dump()) == info
    assert DatasetInfo.model_validate(older | {"provenance": {"design_is_nsd": False}}).nsd is None
