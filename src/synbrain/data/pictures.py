"""Pictures to RGB by one set of rules, wherever they come from: files, PIL images, arrays, HDF5.

==================  ==========================================================================================
8-bit               colour as it is; grey, palette, CMYK and other colour models are converted
16-bit grey         scaled to 8 bit, ``round(v / 257)``: a picture stored with either depth is the same
32-bit, float       refused: their range is not known
transparent         refused where a pixel lets something through, unless a background is given; opaque is
dropped orientation tag     followed ("upright", as viewers show it), or left ("stored")
several frames      the first
==================  ==========================================================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from synbrain.data.options import PictureOptions
from synbrain.errors import SynBrainError, unreadable

ORIENTATION_TAG = 0x0112
ALPHA_MODES = ("RGBA", "LA", "PA", "RGBa", "La")
RULES = PictureOptions()
# what puts a picture back that was turned as its orientation tag says
_BACK = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}  # fmt: skip


@dataclass(frozen=True)
class PictureFacts:
    """How a picture was stored: its mode in words, (width, height) as decoded, and what was done to it."""

    mode: str
    size: tuple[int, int]
    is_turned: bool = False
    has_tag: bool = False
    n_frames: int = 1


def open_image(path: Path, rules: PictureOptions = RULES) -> Image.Image:
    """Decode an image file to RGB, or say which file is wrong.

    Raises:
        SynBrainError: where it is missing, damaged, or of a kind that the rules refuse.
    """
    return inspect_image(path, rules)[0]


def inspect_image(path: Path, rules: PictureOptions = RULES) -> tuple[Image.Image, PictureFacts]:
    """An image file as RGB, and how it was stored."""
    try:
        with Image.open(path) as image:
            return _decode(image, rules, f"image {path}")
    except SynBrainError:
        raise
    except FileNotFoundError as error:
        problem = unreadable(path, error)
        if path.is_symlink():
            raise problem from error
        raise SynBrainError(
            f"image {path} is missing", "check the path (of a dataset's image: restore the file)"
        ) from error
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        problem = unreadable(path, error)
        if "damaged" not in problem.problem:
            raise problem from error
        raise SynBrainError(
            f"image {path} cannot be read ({error})", "save it again as PNG or JPEG"
        ) from error


def to_rgb(image: Image.Image, rules: PictureOptions = RULES, name: str = "the image") -> Image.Image:
    """A PIL image of any mode as RGB by the rules above; ``name`` is what errors call it.

    >>> to_rgb(Image.new("I;16", (1, 1), 257 * 9)).getpixel((0, 0))
    (9, 9, 9)
    """
    return _decode(image, rules, name)[0]


def array_to_rgb(
    pixels: NDArray[np.generic], rules: PictureOptions = RULES, name: str = "the image"
) -> Image.Image:
    """One picture of an array or HDF5 file as RGB.

    Args:
        pixels: (h, w), (h, w, 1), (h, w, 3) or (h, w, 4 with alpha), uint8 or uint16.
        rules: how transparency is taken.
        name: what errors call it.

    Raises:
        SynBrainError: for other shapes and types.
    """
    if pixels.dtype.kind != "u" or pixels.dtype.itemsize > 2:
        raise _unknown_range(name, f"{pixels.dtype} numbers")
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] not in (3, 4)):
        raise SynBrainError(
            f"{name} has shape {pixels.shape}", "give (h, w, 3): rows, columns, red green blue"
        )
    return to_rgb(Image.fromarray(_to_8_bit(np.asarray(pixels))), rules, name)


def _decode(image: Image.Image, rules: PictureOptions, name: str) -> tuple[Image.Image, PictureFacts]:
    tag = image.getexif().get(ORIENTATION_TAG, 1)
    mode, frames = image.mode, getattr(image, "n_frames", 1)
    image.load()
    was_turned = (
        image.format == "TIFF" and image.getexif().get(ORIENTATION_TAG, 1) != tag
    )  # Pillow turns TIFF
    if rules.orientation == "upright" and tag in _BACK and not was_turned:
        image = ImageOps.exif_transpose(image)
    elif rules.orientation == "stored" and was_turned and tag in _BACK:
        image = image.transpose(_BACK[tag])
    is_turned = rules.orientation == "upright" and tag in _BACK
    rgb = _flatten(image, rules, name)
    if tag in _BACK:  # without its tag: whoever decodes the result once more would turn it (again)
        rgb = Image.fromarray(np.asarray(rgb))
    words = _words(mode, image)
    return rgb, PictureFacts(words, rgb.size, is_turned, tag in _BACK, int(frames))


def _words(mode: str, image: Image.Image) -> str:
    plain = {
        "RGB": "8-bit colour", "L": "8-bit grey", "P": "palette", "1": "black and white", "CMYK": "CMYK",
    }  # fmt: skip
    if _has_alpha(image):
        return f"{mode} with transparency"
    return "16-bit grey" if mode.startswith("I;16") or mode == "I" else plain.get(mode, mode)


def _has_alpha(image: Image.Image) -> bool:
    return image.mode in ALPHA_MODES or "transparency" in image.info


def _flatten(image: Image.Image, rules: PictureOptions, name: str) -> Image.Image:
    """RGB without depth, palette and transparency."""
    is_png = image.mode == "I" and image.format == "PNG"  # 16 bit, as some versions of Pillow open it
    if image.mode.startswith("I;16") or is_png:
        deep = np.asarray(image).astype(np.uint16)
        clear = image.info.get("transparency")
        image = Image.fromarray(_to_8_bit(deep))
        if isinstance(clear, int) and (deep == clear).any():
            image.putalpha(Image.fromarray(np.where(deep == clear, 0, 255).astype(np.uint8)))
    elif image.mode in ("I", "F") or image.mode.startswith(("I;", "F;")):
        raise _unknown_range(
            name, "32-bit whole numbers" if image.mode.startswith("I") else "floating-point numbers"
        )
    if not _has_alpha(image):
        return image.convert("RGB")
    layered = image.convert("RGBA")
    lowest = layered.getchannel("A").getextrema()[0]
    if lowest == 255:
        return layered.convert("RGB")
    if rules.background is None:
        raise SynBrainError(
            f"{name} has transparent pixels, and what they were shown on is not known",
            "save it without transparency, on the colour that the subject saw, or name that colour with "
            "--background (black, grey, white or #rrggbb; in Python PictureOptions(background=...))",
        )
    below = Image.new("RGBA", layered.size, rules.background)
    return Image.alpha_composite(below, layered).convert("RGB")


def _to_8_bit(pixels: NDArray[np.generic]) -> NDArray[np.uint8]:
    """``round(v / 257)`` of 16-bit values, which takes 0 to 0 and 65535 to 255."""
    if pixels.dtype == np.uint8:
        return np.asarray(pixels, dtype=np.uint8)
    return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _unknown_range(name: str, what: str) -> SynBrainError:
    return SynBrainError(
        f"{name} holds {what}, of which black and white are not known",
        "save it with 8 or 16 bit per channel, scaled as the subject saw it",
    )
