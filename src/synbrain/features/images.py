"""Images as users give them: paths, PIL images or one uint8 array; told apart and checked here."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from synbrain.data.options import PictureOptions
from synbrain.data.pictures import ORIENTATION_TAG, RULES, array_to_rgb, open_image, to_rgb
from synbrain.errors import SynBrainError

Images: TypeAlias = Sequence[str | Path | Image.Image] | NDArray[np.uint8] | NDArray[np.uint16]
SHAPE = "(n, h, w, 3) uint8"
DEPTHS = (np.uint8, np.uint16)


def check_images(images: Images) -> Images:
    """The images as an array or a list, after a look at their type.

    What gives them one by one (a generator, a column of a table) is listed in its order: a pandas column
    looks its values up by label, which a sorted table has in another order.

    Raises:
        SynBrainError: where they are no list of paths or PIL images and no (n, h, w, 3) array of uint8 or
            uint16.
    """
    if isinstance(images, np.ndarray) and images.dtype.kind in "UO":
        images = images.tolist()
    if isinstance(images, np.ndarray):
        _check_array(images)
    elif isinstance(images, (str, Path, Image.Image)):
        raise SynBrainError("one image was given where a list is expected", "put it in a list: [image]")
    elif hasattr(images, "columns"):  # a pandas table is listed by the names of its columns
        raise SynBrainError("a table was given where images are expected", 'give its column: table["image"]')
    elif hasattr(images, "permute"):
        raise SynBrainError(
            f"images are a tensor of shape {tuple(getattr(images, 'shape', ()))}",
            f"give {SHAPE}; of (n, 3, h, w) in 0 to 1: (x.permute(0, 2, 3, 1) * 255).round().byte().numpy()",
        )
    elif isinstance(images, AbstractSet) or not isinstance(images, Iterable):
        raise SynBrainError(
            f"a {type(images).__name__} was given where images in order are expected",
            f"give a list of paths or PIL images, or one array {SHAPE}",
        )
    else:
        images = list(images)
        for position, image in enumerate(images):
            if not isinstance(image, (str, Path, Image.Image)):
                raise SynBrainError(
                    f"image {position} is a {type(image).__name__}",
                    f"give paths, PIL images or one array {SHAPE}",
                )
    if len(images) == 0:
        raise SynBrainError("no images were given", "give at least one")
    return images


def _check_array(images: NDArray[Any]) -> None:
    if images.ndim == 3 and images.shape[-1] == 3:
        raise SynBrainError(f"images have shape {images.shape}", f"give {SHAPE}; one image is images[None]")
    if images.ndim != 4 or images.shape[-1] not in (1, 3, 4):
        turned = images.ndim == 4 and images.shape[1] in (1, 3)
        raise SynBrainError(
            f"images have shape {images.shape}",
            f"give {SHAPE}" + (": np.moveaxis(images, 1, -1)" if turned else ""),
        )
    if images.dtype not in DEPTHS:
        raise SynBrainError(
            f"images have dtype {images.dtype}",
            f"give {SHAPE}, grey levels 0 to 255 for each of R, G, B; of 0 to 1: "
            "np.round(images * 255).astype(np.uint8)",
        )


def image_at(images: Images, position: int, rules: PictureOptions = RULES) -> Image.Image:
    """Image ``position`` as RGB, by the rules of :mod:`synbrain.data.pictures`; an unreadable one is
    named.
    """
    image = images[position]
    if isinstance(image, (str, Path)):
        return open_image(Path(image), rules)
    if isinstance(image, Image.Image):
        return to_rgb(image, rules, f"image {position}")
    return array_to_rgb(image, rules, f"image {position}")


def first_of_each(images: Images) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions of the distinct images, and for every image which of those it is.

    Files are told apart by path, pixels by their bytes.

    Returns:
        (n_distinct,) int64 positions ascending; (n_images,) int64 indices into them.
    """
    seen: dict[object, int] = {}
    which = np.empty(len(images), dtype=np.int64)
    firsts: list[int] = []
    for position in range(len(images)):
        image = images[position]
        key: object
        if isinstance(image, (str, Path)):
            key = str(image)
        else:
            head = _head(image) if isinstance(image, Image.Image) else (image.shape, image.dtype.str)
            content = image.tobytes()
            key = (head, hashlib.sha256(content).digest())
        if key not in seen:
            seen[key] = len(firsts)
            firsts.append(position)
        which[position] = seen[key]
    return np.array(firsts, dtype=np.int64), which


def _head(image: Image.Image) -> tuple[object, ...]:
    """What decides, beside the stored values, which picture they are: palette, transparency, orientation."""
    palette = image.palette.tobytes() if image.palette is not None else b""
    tag = image.getexif().get(ORIENTATION_TAG, 1)
    return image.mode, image.size, palette, repr(image.info.get("transparency")), tag
