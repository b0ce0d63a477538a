from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from synbrain.cli import main
from synbrain.data.dataset import Dataset
from synbrain.data.marks import image_marks, packed
from synbrain.errors import SynBrainError
from synbrain.features.encoders import get_encoder
from synbrain.features.encoding import encode_images
from synbrain.features.options import StoreOptions
from synbrain.features.store import copy_tokens, open_tokens, stored_encoders, verify_tokens, write_tokens

PIXELS = get_encoder("pixels")
OTHER = replace(PIXELS, digest="0" * 64)
Make = Callable[..., Dataset]


def layer_bytes(dataset: Dataset, layer: str = "final") -> bytes:
    return (dataset.path / "tokens" / "pixels" / f"{layer}.npy").read_bytes()


def left_over(dataset: Dataset) -> list[str]:
    return sorted(path.name for path in (dataset.path / "tokens").glob(".*"))


def test_one_row_per_image_in_the_datasets_order(dataset: Dataset) -> None:
    written = write_tokens(dataset, PIXELS, options=StoreOptions(batch_size=3))
    assert (written.n_images, written.n_encoded, written.finished) == (7, 7, True)
    tokens = open_tokens(dataset, "pixels")
    images = [dataset.load_image(row) for row in range(7)]
    np.testing.assert_array_equal(tokens.read("final"), encode_images(PIXELS, images).read("final"))
    assert isinstance(tokens.layers["final"], np.memmap)
    assert tokens.layers["final"].dtype == np.float16
    assert tokens.digest == PIXELS.digest
    assert stored_encoders(dataset) == ["pixels"]
    assert left_over(dataset) == []
    verify_tokens(dataset, "pixels")


def test_further_layers_are_added_without_encoding_the_old_ones(dataset: Dataset) -> None:
    write_tokens(dataset, PIXELS)
    before = layer_bytes(dataset)
    assert write_tokens(dataset, PIXELS, ["final"]).n_encoded == 0
    asked: list[tuple[str, ...]] = []

    def watching(batch, layers):  # type: ignore[no-untyped-def]
        asked.append(layers)
        return PIXELS.network(batch, layers)

    write_tokens(dataset, replace(PIXELS, network=watching), ["grid4", "final"])
    assert set(asked) == {("grid4",)}
    assert open_tokens(dataset, "pixels").shapes == {"grid4": (16, 3), "final": (256, 3)}
    assert open_tokens(dataset, "pixels", ["final"]).shapes == {"final": (256, 3)}
    assert layer_bytes(dataset) == before
    assert left_over(dataset) == []


@pytest.mark.parametrize("fault", [KeyboardInterrupt, SynBrainError("image broken", "mend it")])
def test_an_interrupted_run_goes_on_and_gives_equal_bytes(
    dataset: Dataset, make_dataset: Make, tmp_path: Path, fault: BaseException
) -> None:
    whole = make_dataset(tmp_path / "whole")
    write_tokens(whole, PIXELS, options=StoreOptions(batch_size=2))

    class Interrupted(Dataset):
        def load_image(self, row: int) -> Image.Image:
            if row == 4:
                raise fault
            return super().load_image(row)

    with pytest.raises(fault if isinstance(fault, type) else type(fault)):
        write_tokens(Interrupted(**vars(dataset)), PIXELS, options=StoreOptions(batch_size=2))
    assert not (dataset.path / "tokens" / "pixels").exists()
    with pytest.raises(SynBrainError, match=r"no tokens of pixels: run `synbrain features"):
        open_tokens(dataset, "pixels")
    with pytest.raises(SynBrainError, match=r"no tokens of tuned-v4: run .* --encoder FOLDER`"):
        open_tokens(dataset, "tuned-v4")
    again = write_tokens(dataset, PIXELS, options=StoreOptions(batch_size=2))
    assert again.n_encoded == 3  # rows 4, 5, 6
    assert layer_bytes(dataset) == layer_bytes(whole)
    assert left_over(dataset) == []


def test_what_another_plan_left_is_neither_continued_nor_dropped_unasked(dataset: Dataset) -> None:
    asked = StoreOptions(batch_size=2)
    write_tokens(dataset, PIXELS, ["final"], options=asked, shard=(0, 2))
    assert left_over(dataset) == [".pixels.partial"]
    with pytest.raises(SynBrainError, match=r"holds 50 % .* other weights or preprocessing: .*--overwrite"):
        write_tokens(dataset, OTHER, options=asked)
    with pytest.raises(SynBrainError, match=r"run with --layers final: give the same"):
        write_tokens(dataset, PIXELS, ["final", "grid4"], options=asked)
    with pytest.raises(SynBrainError, match=r"run with --batch-size 2: "):
        write_tokens(dataset, PIXELS, ["final"], options=StoreOptions(batch_size=3))
    assert write_tokens(dataset, PIXELS, ["final"], options=asked).n_encoded == 3
    write_tokens(dataset, PIXELS, ["grid4"], options=asked, shard=(0, 2))
    assert write_tokens(dataset, OTHER, options=asked, overwrite=True).n_encoded == 7
    assert open_tokens(dataset, "pixels").digest == OTHER.digest


def test_shards_give_the_bytes_of_one_process(dataset: Dataset, make_dataset: Make, tmp_path: Path) -> None:
    whole = make_dataset(tmp_path / "whole")
    write_tokens(whole, PIXELS, options=StoreOptions(batch_size=2))
    first = write_tokens(dataset, PIXELS, options=StoreOptions(batch_size=2), shard=(2, 3))
    second = write_tokens(dataset, PIXELS, options=StoreOptions(batch_size=2), shard=(0, 3))
    assert not first.finished
    assert not second.finished
    third = write_tokens(dataset, PIXELS, options=StoreOptions(batch_size=2), shard=(1, 3))
    assert third.finished
    assert first.n_encoded + second.n_encoded + third.n_encoded == 7
    assert layer_bytes(dataset) == layer_bytes(whole)
    with pytest.raises(SynBrainError, match="no shard 3 of 3"):
        write_tokens(dataset, PIXELS, ["grid4"], shard=(3, 3))


def test_tokens_of_another_digest_stay_unless_overwritten(dataset: Dataset) -> None:
    write_tokens(dataset, PIXELS, ["final", "grid4"])
    with pytest.raises(SynBrainError, match=r"other weights or preprocessing: pass --overwrite"):
        write_tokens(dataset, OTHER)
    assert open_tokens(dataset, "pixels").digest == PIXELS.digest
    write_tokens(dataset, OTHER, overwrite=True)
    tokens = open_tokens(dataset, "pixels")
    assert tokens.digest == OTHER.digest
    assert list(tokens.layers) == ["final"]
    assert left_over(dataset) == []


def test_tokens_of_other_images_are_refused(dataset: Dataset) -> None:
    write_tokens(dataset, PIXELS)
    reordered = replace(dataset, images=dataset.images.iloc[::-1].reset_index(drop=True))
    with pytest.raises(SynBrainError, match=r"other images than the dataset's.*--overwrite"):
        open_tokens(reordered, "pixels")
    with pytest.raises(SynBrainError, match=r"tokens of other images: pass --overwrite"):
        write_tokens(reordered, PIXELS)


def test_an_unknown_and_a_missing_layer_are_told(dataset: Dataset) -> None:
    with pytest.raises(SynBrainError, match="choose from grid4, final"):
        write_tokens(dataset, PIXELS, ["block0"])
    write_tokens(dataset, PIXELS)
    with pytest.raises(SynBrainError, match=r"layers final, not grid4.*--layers grid4"):
        open_tokens(dataset, "pixels", ["grid4"])


def test_an_unreadable_image_is_named_and_nothing_is_finished(dataset: Dataset) -> None:
    path = dataset.path / "stimuli" / "image3.png"
    whole = path.read_bytes()
    path.write_bytes(whole[:50])
    with pytest.raises(SynBrainError, match=r"image3\.png cannot be read"):
        write_tokens(dataset, PIXELS, options=StoreOptions(batch_size=1))
    assert stored_encoders(dataset) == []
    path.write_bytes(whole)
    assert write_tokens(dataset, PIXELS, options=StoreOptions(batch_size=1)).n_encoded == 4


def test_a_full_disk_is_told_before_anything_is_written(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9, 1000))
    with pytest.raises(SynBrainError, match="GB free"):
        write_tokens(dataset, PIXELS)
    assert stored_encoders(dataset) == []
    assert left_over(dataset) == []


def test_damage_is_found(dataset: Dataset) -> None:
    write_tokens(dataset, PIXELS)
    path = dataset.path / "tokens" / "pixels" / "final.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    open_tokens(dataset, "pixels")  # large files are not read through on opening
    with pytest.raises(SynBrainError, match="altered"):
        verify_tokens(dataset, "pixels")
    path.write_bytes(content[:-100])
    with pytest.raises(SynBrainError, match=r"final\.npy is damaged"):
        open_tokens(dataset, "pixels")
    np.save(path, np.zeros((6, 256, 3), np.float16))
    with pytest.raises(SynBrainError, match=r"shape \(6, 256, 3\) float16, expected \(7"):
        open_tokens(dataset, "pixels")
    (path.parent / "tokens.json").write_text(json.dumps({"format": 2}))
    with pytest.raises(SynBrainError, match=r"tokens\.json is not valid"):
        open_tokens(dataset, "pixels")


def test_pictures_that_were_replaced_under_their_names_are_encoded_again(dataset: Dataset) -> None:
    write_tokens(dataset, PIXELS)
    path = dataset.stimulus_path() / str(dataset.images["name"].iloc[3])
    kept = path.read_bytes()
    Image.fromarray(np.full((9, 9, 3), 200, dtype=np.uint8)).save(path)
    with pytest.raises(SynBrainError, match=r"were changed after .* --overwrite"):
        open_tokens(dataset, "pixels")
    with pytest.raises(SynBrainError, match="of pictures that were changed since"):
        write_tokens(dataset, PIXELS)
    path.write_bytes(kept)
    open_tokens(dataset, "pixels")
    path.unlink()
    assert write_tokens(dataset, PIXELS).n_encoded == 0  # once they are encoded pictures may be gone
    open_tokens(dataset, "pixels")


def test_what_an_interruption_left_of_other_pictures_is_not_taken_up(dataset: Dataset) -> None:
    options = StoreOptions(batch_size=2)
    last = dataset.stimulus_path() / str(dataset.images["name"].iloc[6])
    kept = last.read_bytes()
    last.write_bytes(b"broken")
    with pytest.raises(SynBrainError):
        write_tokens(dataset, PIXELS, options=options)
    last.write_bytes(kept)
    first = dataset.stimulus_path() / str(dataset.images["name"].iloc[0])
    Image.fromarray(np.full((9, 9, 3), 200, dtype=np.uint8)).save(first)
    write_tokens(dataset, PIXELS, options=options)
    expected = encode_images(PIXELS, [dataset.load_image(row) for row in range(7)])
    np.testing.assert_array_equal(open_tokens(dataset, "pixels").read("final"), expected.read("final"))


def test_a_store_of_the_old_format_names_the_command_that_makes_it_again(dataset: Dataset) -> None:
    write_tokens(dataset, PIXELS)
    path = dataset.path / "tokens" / "pixels" / "tokens.json"
    said = json.loads(path.read_text())
    path.write_text(json.dumps(said | {"format": 1, "stages": said.pop("layers")}))
    with pytest.raises(SynBrainError, match="features DATASET --encoder pixels --overwrite"):
        open_tokens(dataset, "pixels")


class TestSharedStore:
    def test_two_subjects_share_one_row_per_picture(
        self, tmp_path: Path, brick: Path, make_dataset: Make
    ) -> None:
        one = make_dataset(tmp_path / "one", rows=[0, 3, 5, 7, 8, 9, 11], brick=brick)
        two = make_dataset(tmp_path / "two", rows=[11, 1, 2, 3, 4, 5, 6], brick=brick)
        store = tmp_path / "shared"
        assert write_tokens(one, PIXELS, options=StoreOptions(store=store)).n_encoded == 12
        assert write_tokens(two, PIXELS, options=StoreOptions(store=store)).n_encoded == 0
        for subject in (one, two):
            shared = open_tokens(subject, "pixels").read("final")
            images = [subject.load_image(row) for row in range(7)]
            np.testing.assert_array_equal(shared, encode_images(PIXELS, images).read("final"))
            assert not list(subject.path.glob("tokens/**/*.npy"))
            verify_tokens(subject, "pixels")

    def test_copies_know_the_tuned_images_of_their_own_dataset(
        self, tmp_path: Path, brick: Path, make_dataset: Make
    ) -> None:
        """The shared store knows those of the first dataset, as copies of a picture have other marks."""
        one = make_dataset(tmp_path / "one", rows=list(range(7)), brick=brick)
        two = make_dataset(tmp_path / "two", rows=list(range(7)), brick=brick)
        write_tokens(one, PIXELS, options=StoreOptions(store=tmp_path / "shared"))
        pointer = one.path / "tokens/pixels/tokens.json"
        content = json.loads(pointer.read_text())
        pointer.write_text(json.dumps(content | {"tuned_on": packed(image_marks(one, np.array([1, 4])))}))
        tokens = open_tokens(one, "pixels")
        assert np.flatnonzero(tokens.is_tuned).tolist() == [1, 4]
        copy_tokens(tokens, one, two, np.arange(7))
        assert np.flatnonzero(open_tokens(two, "pixels").is_tuned).tolist() == [1, 4]

    def test_a_missing_or_replaced_store_is_told(
        self, tmp_path: Path, brick: Path, make_dataset: Make
    ) -> None:
        one = make_dataset(tmp_path / "one", rows=list(range(7)), brick=brick)
        store = tmp_path / "shared"
        write_tokens(one, PIXELS, options=StoreOptions(store=store))
        with pytest.raises(SynBrainError, match="points to a shared store"):
            write_tokens(one, PIXELS, ["grid4"])
        write_tokens(one, PIXELS, ["grid4"], options=StoreOptions(store=store))
        assert set(open_tokens(one, "pixels").layers) == {"grid4", "final"}
        two = make_dataset(tmp_path / "two", rows=list(range(7)), brick=brick)
        write_tokens(two, OTHER, options=StoreOptions(store=store), overwrite=True)
        with pytest.raises(SynBrainError, match="were replaced"):
            open_tokens(one, "pixels")
        shutil.rmtree(store)
        with pytest.raises(SynBrainError, match="are missing: restore them"):
            open_tokens(one, "pixels")
        write_tokens(one, PIXELS, overwrite=True)
        assert open_tokens(one, "pixels").shapes == {"final": (256, 3)}

    def test_stimuli_in_a_folder_cannot_share(self, dataset: Dataset, tmp_path: Path) -> None:
        with pytest.raises(SynBrainError, match="leave --store out"):
            write_tokens(dataset, PIXELS, options=StoreOptions(store=tmp_path / "shared"))


def test_the_command_encodes_and_tells_the_rate(dataset: Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["features", str(dataset.path), "--encoder", "pixels", "--layers", "grid4", "final"]
    assert main([*words, "--device", "cpu", "--batch-size", "2"]) == 0
    assert "encoded 7 in" in capsys.readouterr().out
    assert set(open_tokens(dataset, "pixels").layers) == {"grid4", "final"}
    assert main(words) == 0
    assert "nothing was missing" in capsys.readouterr().out
    assert main(["features", str(dataset.path), "--encoder", "nonsense"]) == 2
    assert "choose from" in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_of_accelerate_share_the_work(
    dataset: Dataset, make_dataset: Make, tmp_path: Path
) -> None:
    whole = make_dataset(tmp_path / "whole")
    write_tokens(whole, PIXELS, options=StoreOptions(batch_size=2))
    words = ["features", str(dataset.path), "--encoder", "pixels", "--device", "cpu", "--batch-size", "2"]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    ran = subprocess.run(
        [*launch, "-m", "synbrain.cli", *words],
        env=os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert "encoded 4 in" in ran.stdout  # batches 0 and 2 of four; the other process did 1 and 3
    assert layer_bytes(dataset) == layer_bytes(whole)
