"""Images as users give them: paths, PIL images or one uint8 array; told apart and checked here."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from synbrain.data.dataset import open_image
from synbrain.errors import SynBrainError

Images: TypeAlias = Sequence[str | Path | Image.Image] | NDArray[np.uint8]
SHAPE = "(n, h, w, 3) uint8"


def check_images(images: Images) -> int:
    """The number of images, after a look at their type.

    Raises:
        SynBrainError: where they are no list of paths or PIL images and no (n, h, w, 3) uint8 array.
    """
    if isinstance(images, np.ndarray):
        if images.ndim == 3 and images.shape[-1] == 3:
            raise SynBrainError(
                f"images have shape {images.shape}", f"give {SHAPE}; one image is images[None]"
            )
        if images.ndim != 4 or images.shape[-1] != 3:
            raise SynBrainError(f"images have shape {images.shape}", f"give {SHAPE}")
        if images.dtype != np.uint8:
            raise SynBrainError(
                f"images have dtype {images.dtype}", f"give {SHAPE}, grey levels 0 to 255 for each of R, G, B"
            )
    elif isinstance(images, (str, Path, Image.Image)):
        raise SynBrainError("one image was given where a list is expected", "put it in a list: [image]")
    else:
        for position, image in enumerate(images):
            if not isinstance(image, (str, Path, Image.Image)):
                raise SynBrainError(
                    f"image {position} is a {type(image).__name__}",
                    f"give paths, PIL images or one array {SHAPE}",
                )
    if len(images) == 0:
        raise SynBrainError("no images were given", "give at least one")
    return len(images)


def image_at(images: Images, position: int) -> Image.Image:
    """Image ``position`` as RGB; an unreadable file is named."""
    image = images[position]
    if isinstance(image, (str, Path)):
        return open_image(Path(image))
    return image.convert("RGB") if isinstance(image, Image.Image) else Image.fromarray(image)


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
            head = (image.mode, image.size) if isinstance(image, Image.Image) else image.shape
            content = image.tobytes()
            key = (head, hashlib.sha256(content).digest())
        if key not in seen:
            seen[key] = len(firsts)
            firsts.append(position)
        which[position] = seen[key]
    return np.array(firsts, dtype=np.int64), which
