"""One decoder for pictures: depth, transparency, orientation, and what it refuses, from wherever they
come.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from synbrain.data.dataset import Stimuli, load_dataset, read_brick
from synbrain.data.options import PictureOptions
from synbrain.data.pictures import array_to_rgb, inspect_image, open_image, to_rgb
from synbrain.errors import SynBrainError
from synbrain.features.encoders import get_encoder
from synbrain.features.encoding import encode_images
from synbrain.features.image_sets import image_set_digest
from synbrain.features.images import first_of_each, image_at
from synbrain.prepare.options import TableOptions
from synbrain.prepare.table import prepare_table

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (12, 10), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (12, 10, 3), dtype=np.uint8)


def reopened(image: Image.Image, name: str, **options: object) -> Image.Image:
    content = io.BytesIO()
    image.save(content, name, **options)
    return Image.open(content)


DEEP = GREY.astype(np.uint16) * 257


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "memory", "array", "array of four axes", "hdf5"])
def test_16_bit_is_the_same_picture_as_8_bit(kind: str, tmp_path: Path) -> None:
    expected = np.asarray(Image.fromarray(GREY).convert("RGB"))
    if kind in ("PNG", "TIFF"):
        made = to_rgb(reopened(Image.fromarray(DEEP), kind))
    elif kind == "memory":
        made = to_rgb(Image.fromarray(DEEP))
    elif kind == "array":
        made = array_to_rgb(DEEP)
    elif kind == "hdf5":
        with h5py.File(tmp_path / "brick.h5", "w") as file:
            file["imgBrick"] = np.stack([DEEP, DEEP])
        made = read_brick(tmp_path / "brick.h5", Stimuli(kind="hdf5", path="brick.h5"), 1)
    else:
        made = image_at(np.repeat(DEEP[None, :, :, None], 3, axis=3), 0)
    assert np.array_equal(np.asarray(made), expected)


def test_16_bit_gives_the_same_tokens() -> None:
    tokens = encode_images(get_encoder("pixels"), [Image.fromarray(GREY), Image.fromarray(DEEP)])
    for values in tokens.layers.values():
        assert np.array_equal(values[tokens.rows[0]], values[tokens.rows[1]])


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
@pytest.mark.parametrize("how", ["file", "memory", "array"])
def test_ranges_that_are_not_known_are_refused(dtype: type, how: str, tmp_path: Path) -> None:
    values = (GREY / 255).astype(dtype)
    Image.fromarray(values).save(tmp_path / "deep.tif")
    read = {
        "file": lambda: open_image(tmp_path / "deep.tif"),
        "memory": lambda: image_at([Image.fromarray(values)], 0),
        "array": lambda: array_to_rgb(values, name="picture 3"),
    }
    with pytest.raises(SynBrainError, match="black and white are not known") as raised:
        read[how]()
    assert {"file": "deep.tif", "memory": "image 0", "array": "picture 3"}[how] in str(raised.value)


def transparent(alpha: np.ndarray) -> Image.Image:
    return Image.fromarray(np.dstack([COLOUR, alpha.astype(np.uint8)]), "RGBA")


def palette_with_a_hole() -> Image.Image:
    image = Image.fromarray(COLOUR).quantize(8)
    return reopened(image, "PNG", transparency=int(np.asarray(image)[0, 0]))


HALF = np.where(np.arange(10)[None] < 5, 0, 255) * np.ones((12, 1))
SEE_THROUGH: dict[str, Callable[[], Image.Image]] = {
    "RGBA": lambda: transparent(HALF),
    "half transparent": lambda: transparent(np.full((12, 10), 254)),
    "LA": lambda: Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(HALF.astype(np.uint8))]),
    "palette": palette_with_a_hole,
    "RGB with a colour key": lambda: reopened(
        Image.fromarray(COLOUR), "PNG", transparency=tuple(int(v) for v in COLOUR[0, 0])
    ),
    "16 bit with a key": lambda: reopened(Image.fromarray(DEEP), "PNG", transparency=int(DEEP[0, 0])),
    "WEBP": lambda: reopened(transparent(HALF), "WEBP", lossless=True),
}


@pytest.mark.parametrize("kind", SEE_THROUGH)
def test_transparency_is_refused_or_shown_on_the_background(kind: str) -> None:
    with pytest.raises(SynBrainError, match=r"transparent pixels.*--background"):
        to_rgb(SEE_THROUGH[kind]())
    white, black = (
        np.asarray(to_rgb(SEE_THROUGH[kind](), PictureOptions(background=colour)))
        for colour in ("white", "black")
    )
    assert (white != black).any()
    if kind == "RGBA":
        assert (white[:, :5] == 255).all()  # whatever lies behind
        assert (black[:, :5] == 0).all()
        assert np.array_equal(white[:, 5:], COLOUR[:, 5:])


def test_opaque_alpha_is_no_transparency() -> None:
    assert np.array_equal(np.asarray(to_rgb(transparent(np.full((12, 10), 255)))), COLOUR)


@pytest.mark.parametrize("colour", ["pink", "#12345", "1,2,3"])
def test_a_background_is_a_colour(colour: str) -> None:
    with pytest.raises(ValueError, match="#rrggbb"):
        PictureOptions(background=colour)


UPRIGHT = {6: lambda a: np.rot90(a, -1), 8: lambda a: np.rot90(a), 3: lambda a: a[::-1, ::-1], 1: lambda a: a}


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("tag", UPRIGHT)
def test_orientation_has_one_rule_and_an_option(kind: str, tag: int, tmp_path: Path) -> None:
    image = Image.fromarray(COLOUR)
    exif = image.getexif()
    exif[0x0112] = tag
    path = tmp_path / f"turned.{kind.lower()}"
    image.save(path, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))
    assert np.array_equal(np.asarray(open_image(path)), UPRIGHT[tag](COLOUR))
    stored, facts = inspect_image(path, PictureOptions(orientation="stored"))
    assert np.array_equal(np.asarray(stored), COLOUR)
    assert facts.has_tag == (tag != 1)
    for decoded in (stored, open_image(path)):  # encoders decode what they are given once more
        assert np.array_equal(np.asarray(to_rgb(decoded)), np.asarray(decoded))


def test_arrays_of_other_shapes_are_told() -> None:
    for shape in ((3, 12, 10), (12, 10, 2), (2, 12, 10, 3)):
        with pytest.raises(SynBrainError, match="has shape"):
            array_to_rgb(np.zeros(shape, np.uint8))


def test_palettes_tell_pictures_apart() -> None:
    indices = Image.fromarray(np.zeros((4, 4), np.uint8), "P")
    other = indices.copy()
    indices.putpalette([255, 0, 0])
    other.putpalette([0, 255, 0])
    assert first_of_each([indices, other, indices])[1].tolist() == [0, 1, 0]


def test_the_dataset_records_how_its_pictures_are_read(
    table_source: Callable[..., Path], tmp_path: Path
) -> None:
    src = table_source()
    for path in sorted((src / "images").iterdir()):
        image = Image.open(path).convert("RGBA")
        image.putalpha(Image.fromarray(np.tile([0, 255], (24, 12)).astype(np.uint8)))
        image.save(path)
    with pytest.raises(SynBrainError, match=r"im000\.png has transparent pixels"):
        prepare_table(src, tmp_path / "none")
    assert not (tmp_path / "none").exists()
    made = prepare_table(src, tmp_path / "ds", options=TableOptions(background="#ff0000"))
    assert np.asarray(load_dataset(tmp_path / "ds").load_image(3))[0, 0].tolist() == [255, 0, 0]
    assert "shown on #ff0000" in " ".join(made.info.provenance["notes"])
    plain = replace(made, info=made.info.model_copy(update={"stimuli": Stimuli(kind="folder", path="x")}))
    assert image_set_digest(plain) != image_set_digest(made)  # tokens of one are no tokens of the other
