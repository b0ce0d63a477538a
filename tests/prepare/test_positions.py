"""Arrays that bring their positions and ROIs: voxels.csv, a mask, vertices; and pictures under two names."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fixtures.recordings import AFFINE, GRID, INSIDE, save
from synbrain.cli import main
from synbrain.data.dataset import load_dataset
from synbrain.data.thumbnails import coarsely_alike, copies, same_picture, thumbnail
from synbrain.errors import SynBrainError
from synbrain.prepare.options import TableOptions
from synbrain.prepare.table import prepare_table
from synbrain.simulate.scenes import draw_image, draw_scenes

PLACES = np.argwhere(INSIDE)
MM = PLACES @ AFFINE[:3, :3].T + AFFINE[:3, 3]


def voxels(**columns: Any) -> pd.DataFrame:
    table = pd.DataFrame(MM, columns=["x", "y", "z"])
    table["hemisphere"] = ["L"] * 6 + ["right"] * 6
    table["visual"] = ["V1", "V2", "", "n/a"] * 3
    table["FFA"] = [0, 1] * 6
    table["ncsnr"] = np.linspace(0, 1.1, 12)
    return table.assign(**columns)


def test_positions_rois_and_reliability_come_with_the_array(
    table_source: Callable[..., Path], tmp_path: Path
) -> None:
    src = table_source()
    voxels(r2=0.5, voxel_id=range(12), cell=list("abcdefghijkl")).to_csv(src / "voxels.csv", index=False)
    space = prepare_table(src, tmp_path / "ds").space
    space = load_dataset(tmp_path / "ds").space
    assert space.kind == "points"
    assert np.allclose(space.coordinates(), MM)
    masks = space.roi_masks()
    assert set(masks) == {"hemisphere/left", "hemisphere/right", "visual/V1", "visual/V2", "FFA/FFA"}
    assert np.flatnonzero(masks["visual/V2"]).tolist() == [1, 5, 9]
    assert np.flatnonzero(masks["hemisphere/right"]).tolist() == list(range(6, 12))
    assert np.allclose(space.ncsnr, np.linspace(0, 1.1, 12))  # type: ignore[arg-type]
    info = load_dataset(tmp_path / "ds").info
    assert info.provenance["ncsnr_from"] == "voxels.csv"
    told = " ".join(info.provenance["notes"])
    assert all(f"column {name} of" in told for name in ("r2", "voxel_id", "cell"))


def test_a_mask_of_truth_values_is_one_roi(table_source: Callable[..., Path], tmp_path: Path) -> None:
    """As ``pandas.DataFrame.to_csv`` writes booleans; units outside are no ROI called False."""
    src = table_source()
    voxels(V4=[True, False, False] * 4, ncsnr=np.linspace(0, 90, 12)).to_csv(src / "voxels.csv", index=False)
    made = prepare_table(src, tmp_path / "ds")
    masks = made.space.roi_masks("V4")
    assert list(masks) == ["V4/V4"]
    assert np.flatnonzero(masks["V4/V4"]).tolist() == [0, 3, 6, 9]
    assert "ncsnr reaches 90" in " ".join(made.info.provenance["notes"])


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_mask_gives_a_volume(order: Any, table_source: Callable[..., Path], tmp_path: Path) -> None:
    src = table_source()
    save(src / "mask.nii.gz", INSIDE.astype(np.uint8))
    save(tmp_path / "atlas-mine_dseg.nii.gz", (np.arange(np.prod(GRID)).reshape(GRID) % 3).astype(np.int16))
    places = PLACES if order == "C" else PLACES[np.lexsort(PLACES.T)]
    options = TableOptions(mask_order=order, atlases=[tmp_path / "atlas-mine_dseg.nii.gz"])
    space = prepare_table(src, tmp_path / "ds", options=options).space
    assert space.kind == "volume"
    assert np.allclose(space.coordinates(), places @ AFFINE[:3, :3].T + AFFINE[:3, 3])
    expected = (np.arange(np.prod(GRID)).reshape(GRID) % 3)[tuple(places.T)]
    assert np.array_equal(space.atlases["mine"].values, expected)
    voxels().to_csv(src / "voxels.csv", index=False)  # in C order
    if order == "C":
        assert "visual" in prepare_table(src, tmp_path / "both", options=options).space.atlases
    else:
        with pytest.raises(SynBrainError, match="mask-order"):
            prepare_table(src, tmp_path / "both", options=options)


def test_vertices_give_a_surface(table_source: Callable[..., Path], tmp_path: Path) -> None:
    src = table_source()
    table = voxels().drop(columns=["x", "y", "z"])
    table["vertex"] = np.arange(12) * 800
    table.to_csv(src / "voxels.csv", index=False, sep=";")
    space = prepare_table(src, tmp_path / "ds", options=TableOptions(mesh="fsaverage5")).space
    assert (space.kind, space.shape) == ("surface", (10242, 10242))
    assert space.index is not None
    assert space.index.tolist() == [*range(0, 4800, 800), *range(10242 + 4800, 10242 + 9600, 800)]
    table["vertex"] += 9000
    table.to_csv(src / "voxels.csv", index=False)
    with pytest.raises(SynBrainError, match="the mesh has 0 to 10241"):
        prepare_table(src, tmp_path / "no", options=TableOptions(mesh="fsaverage5"))


BAD: dict[str, tuple[Callable[[pd.DataFrame], pd.DataFrame], str]] = {
    "rows": (lambda t: t.iloc[:-1], "11 lines for 12 response columns"),
    "one axis": (lambda t: t.drop(columns="z"), "x, y alone"),
    "no number": (lambda t: t.assign(y=["a"] * 12), "line 2: y is a"),
    "hemisphere": (lambda t: t.assign(hemisphere="up"), "hemisphere is up"),
    "percent": (lambda t: t.assign(ncsnr=-t["ncsnr"]), "below 0"),
    "order": (lambda t: t.assign(voxel=np.arange(12)[::-1]), "ascending order"),
    "vertex": (lambda t: t.drop(columns="hemisphere").assign(vertex=range(12)), "without a hemisphere"),
    "twice": (lambda t: t.assign(vertex=3), "a vertex twice"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_voxel_tables_are_told(case: str, table_source: Callable[..., Path], tmp_path: Path) -> None:
    src = table_source()
    change, message = BAD[case]
    change(voxels()).to_csv(src / "voxels.csv", index=False)
    with pytest.raises(SynBrainError, match=message):
        prepare_table(src, tmp_path / "ds")
    assert not (tmp_path / "ds").exists()


def test_session_labels_are_counted_naturally(table_source: Callable[..., Path], tmp_path: Path) -> None:
    src = table_source(session=["session10"] * 26 + ["session2"] * 26)
    made = prepare_table(src, tmp_path / "ds")
    assert made.trials["session"].tolist() == [1] * 26 + [0] * 26


def test_one_picture_under_two_names(
    table_source: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    src = table_source()
    coarse = np.random.default_rng(3).integers(0, 255, (6, 6, 3), dtype=np.uint8)  # as smooth as photographs
    first = Image.fromarray(coarse).resize((24, 24), Image.Resampling.BICUBIC)
    first.save(src / "images" / "im000.png")  # training
    first.save(src / "images" / "im025.png", compress_level=1, optimize=True)  # other bytes, equal pixels
    with pytest.raises(SynBrainError, match=r"im025\.png \(test\) and im000\.png .* the same image"):
        prepare_table(src, tmp_path / "same")
    first.resize((60, 50), Image.Resampling.BICUBIC).save(src / "images" / "x.jpg", quality=80)
    (src / "images" / "x.jpg").rename(src / "images" / "im025.png")  # other size and encoding
    assert main(["prepare", "table", str(src), str(tmp_path / "ds")]) == 0
    told = capsys.readouterr().out
    assert "1 test image looks like training images" in told
    assert "im025.png ~ im000.png" in told
    assert "25 of 24 x 24 pixels" in told
    assert "mixed sizes" in told


def test_different_pictures_do_not_look_alike(table_source: Callable[..., Path], tmp_path: Path) -> None:
    src = table_source()
    for i in range(26):  # flat pictures of different colours, and gradients of different slopes
        values = np.full((24, 24, 3), 9 * i, np.uint8) if i % 2 else np.zeros((24, 24, 3), np.uint8)
        values[: i + 1, ::2] += 20 + i
        Image.fromarray(values).save(src / "images" / f"im{i:03d}.png")
    made = prepare_table(src, tmp_path / "ds")
    assert "look like" not in " ".join(made.info.provenance["notes"])


def grating(frequency: float, angle: float, phase: float) -> Image.Image:
    """A Gabor patch, 128 pixels."""
    y, x = np.mgrid[:128, :128] / 128
    wave = np.sin(2 * np.pi * frequency * (x * np.cos(angle) + y * np.sin(angle)) + phase)
    window = np.exp(-((x - 0.5) ** 2 + (y - 0.5) ** 2) / (2 * 0.18**2))
    return Image.fromarray((127 + 100 * wave * window).astype(np.uint8)).convert("RGB")


def test_gratings_are_told_apart_and_their_copies_found(
    table_source: Callable[..., Path], tmp_path: Path
) -> None:
    src = table_source()  # the last test image is im025.png
    angles = [(f, a * np.pi / 12, p * np.pi / 4) for f in (4, 8) for a in (0, 3, 6) for p in range(8)]
    pictures = [grating(*which) for which in angles]
    small = np.stack([thumbnail(picture) for picture in pictures])
    coarse = [(i, j) for i, j in coarsely_alike(small, small) if i < j]
    assert coarse, "fine gratings leave the same blobs on a coarse grid"
    first, other = (pictures[k] for k in coarse[0])
    first.save(src / "images" / "im000.png")
    other.save(src / "images" / "im025.png")
    notes = prepare_table(src, tmp_path / "ds").info.provenance["notes"]
    assert "look like" not in " ".join(notes)
    first.resize((48, 48), Image.Resampling.BICUBIC).save(src / "images" / "copy.jpg", quality=60)
    (src / "images" / "copy.jpg").rename(src / "images" / "im025.png")
    notes = prepare_table(src, tmp_path / "copied").info.provenance["notes"]
    assert "1 test image looks like training images" in " ".join(notes)
    assert "im025.png ~ im000.png" in " ".join(notes)


def test_scenes_are_told_apart_and_their_copies_found() -> None:
    scenes = draw_scenes(60, seed=0)
    pictures = [Image.fromarray(draw_image(scenes, i, 64, seed=0)) for i in range(60)]
    small = np.stack([thumbnail(picture) for picture in pictures])
    stored = []
    for picture in pictures:
        content = io.BytesIO()
        picture.resize((109, 90), Image.Resampling.BICUBIC).save(content, "JPEG", quality=60)
        stored.append(thumbnail(Image.open(content)))
    assert sorted(copies(np.stack(stored), small)) == [(i, i) for i in range(60)]


def test_harsh_copies_of_scenes_stay_copies_on_the_finer_grid() -> None:
    scenes = draw_scenes(60, seed=1)
    pictures = [Image.fromarray(draw_image(scenes, i, 224, seed=1)) for i in range(60)]
    for size, quality in ((60, 30), (48, 60)):
        for picture in pictures:
            content = io.BytesIO()
            picture.resize((size, size), Image.Resampling.BICUBIC).save(content, "JPEG", quality=quality)
            assert same_picture(thumbnail(picture), thumbnail(Image.open(content)))
