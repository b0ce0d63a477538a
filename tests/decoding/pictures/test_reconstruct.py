from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from synbrain.cli import main
from synbrain.data.dataset import Dataset
from synbrain.decoding.decoder import Decoder
from synbrain.decoding.options import DecoderOptions
from synbrain.decoding.pictures.reconstruct import Reconstruction, picture_names, reconstruct
from synbrain.decoding.train import train_decoder
from synbrain.errors import SynBrainError
from synbrain.simulate.example import toy_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return toy_dataset(tmp_path_factory.mktemp("toy") / "data")


@pytest.fixture(scope="module")
def decoder(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("decoder") / "ridge"
    options = DecoderOptions(method="ridge", encoder="pixels", grid=0, components=0)
    train_decoder([dataset], options, out=out)
    return out


@pytest.mark.parametrize("renderer", ["pixels", "nearest"])
def test_rows_hold_a_picture_for_each_image(dataset: Dataset, decoder: Path, renderer: str) -> None:
    decoded = reconstruct(Decoder.from_pretrained(decoder), dataset, renderer=renderer, images=3, seed=1)
    assert list(decoded.rows) == ["seen", "measured mean", "measured trial"]
    assert all(len(pictures) == len(decoded.names) == 3 for pictures in decoded.rows.values())
    again = reconstruct(Decoder.from_pretrained(decoder), dataset, renderer=renderer, images=3, seed=1)
    for ours, theirs in zip(decoded.rows["measured mean"], again.rows["measured mean"], strict=True):
        np.testing.assert_array_equal(ours, theirs)
    if renderer == "nearest":
        known = [np.asarray(dataset.load_image(int(row))) for row in dataset.image_rows("train")]
        for picture in decoded.rows["measured mean"]:
            assert any(np.array_equal(picture, other) for other in known), "no training picture"


def test_the_command_writes_pictures_and_refuses_what_it_cannot(
    dataset: Dataset, decoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["decoder", "reconstruct", str(decoder), str(dataset.path), "--out", str(tmp_path / "out")]
    assert main([*words, "--images", "2"]) == 0
    assert len(list((tmp_path / "out" / "measured-mean").glob("*.png"))) == 2
    assert (tmp_path / "out" / "decoded.png").exists()
    assert main(words) == 2
    assert "--overwrite" in capsys.readouterr().err
    with pytest.raises(SynBrainError, match="no renderer 'crayons'"):
        reconstruct(Decoder.from_pretrained(decoder), dataset, renderer="crayons")


def test_info_knows_a_decoder(decoder: Path, dataset: Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(decoder)]) == 0
    assert f"{dataset.n_voxels} voxels" in capsys.readouterr().out
    assert main(["info", str(decoder.parent)]) == 0
    assert f"decoder    {decoder}: method ridge" in capsys.readouterr().out


def test_pictures_of_one_name_in_two_folders_are_both_written(dataset: Dataset, tmp_path: Path) -> None:
    renamed = dataset.images.assign(
        name=[f"{'ab'[row % 2]}/scene.{row // 2}" for row in range(dataset.n_images)]
    )
    named = replace(dataset, images=renamed)
    rows = np.array([3, 4, 5])
    names = picture_names(named, rows)
    assert names == ["scene-3", "scene-4", "scene-5"]
    pictures = [np.full((4, 4, 3), row, np.uint8) for row in rows]
    Reconstruction(names, {"seen": pictures}).save(tmp_path / "out")
    for row in rows:
        assert np.asarray(Image.open(tmp_path / "out" / "seen" / f"scene-{row}.png")).max() == row
    assert picture_names(dataset, rows) == ["patchwork03", "patchwork04", "patchwork05"]
