"""What a store of tokens is made of, and what making one did. Light to import: no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

TOKENS_JSON = "tokens.json"
FORMAT_VERSION = 2  # 1 said "stages" for an encoder's layers


@dataclass(frozen=True)
class ImageSet:
    """Images to encode.

    Attributes:
        n: how many.
        digest: what identifies them and their order: names.
        load: gives one.
        sizes: (n,) of the files, by which pictures that were replaced under their names are known; None
            where there is no file for each picture.
    """

    n: int
    digest: str
    load: Callable[[int], Image.Image]
    sizes: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class Written:
    """What a call of :func:`synbrain.features.writing.write_store` did.

    Attributes:
        folder: the store.
        n_images: images in it.
        n_encoded: how many of them this process encoded in this call.
        seconds: time of this process for those.
        n_bytes: size of the layers that were to be written.
        finished: False where batches of other shards are still missing.
        is_main: whether this process is the one that speaks.
    """

    folder: Path
    n_images: int
    n_encoded: int
    seconds: float
    n_bytes: int
    finished: bool
    is_main: bool
