"""Marks of images: what tells the same picture apart from others on any machine, in any dataset.

A mark is the same wherever the picture lies and whatever its file is called. Runs and tuned encoders keep the
marks of the images that they were fitted on.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from synbrain.arrays import Rows
from synbrain.data.dataset import Dataset
from synbrain.errors import SynBrainError, unreadable
from synbrain.files import digest

BYTES = 6  # of each mark: two of 73,000 x 1,000 pairs agree by chance once in four million runs


def image_marks(dataset: Dataset, rows: Rows) -> tuple[bytes, ...]:
    """What tells the images ``rows`` apart across datasets and machines: the first bytes of SHA-256.

    An image file is known by its content, as different recordings use the same file names; an image of an
    HDF5 brick by the brick's shape, its first and last image, and its row.

    Raises:
        SynBrainError: where the stimuli are missing.
    """
    where = dataset.stimulus_path()
    if dataset.info.stimuli.kind == "hdf5":
        import h5py

        try:
            with h5py.File(where, "r") as file:
                brick = file[dataset.info.stimuli.key]
                ends = hashlib.sha256(str(brick.shape).encode() + brick[0].tobytes() + brick[-1].tobytes())
        except (OSError, KeyError) as error:
            raise unreadable(where, error, "restore the stimuli") from error
        names = [f"{ends.hexdigest()}#{row}" for row in dataset.images["row"].to_numpy()[rows]]
    else:
        files = dataset.images["name"].astype(str).to_numpy()[rows]
        missing = [name for name in files if not (where / name).exists()]
        if missing:
            raise SynBrainError(
                f"{len(missing)} stimuli of {dataset.path} are missing, {missing[0]} first",
                "restore them: they tell whether a test image is among the training images",
            )
        names = [_content_of(where / name) for name in files]
    return tuple(hashlib.sha256(name.encode()).digest()[:BYTES] for name in names)


def _content_of(path: Path) -> str:
    """SHA-256 of a file, read once as long as size and time of change stay."""
    about = path.stat()
    return _digest_once(path, about.st_size, about.st_mtime_ns)


@lru_cache(maxsize=100_000)
def _digest_once(path: Path, size: int, changed: int) -> str:
    return digest(path)


def packed(marks: Iterable[bytes]) -> str:
    """Distinct marks as one text, sorted."""
    return base64.b64encode(b"".join(sorted(set(marks)))).decode()


def unpacked(text: str) -> set[bytes]:
    """The marks that :func:`packed` wrote."""
    content = base64.b64decode(text)
    return {content[i : i + BYTES] for i in range(0, len(content), BYTES)}
