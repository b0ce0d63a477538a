"""Arrays that are kept between the passes of a fit: in memory while they are small, else in mapped files."""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from synbrain.files import allocate_array

MEMORY_BYTES = 1 << 29  # what all arrays of one fit may take in memory


class Scratch:
    """Room for arrays that lasts as long as the ``with`` block.

    Files lie in a folder of their own below ``TMPDIR`` (or the system's folder for temporary files), which
    is removed at the end, on errors as well.

    Args:
        memory_bytes: bytes of arrays in memory; what comes after them is mapped from disk.

    >>> with Scratch() as scratch:
    ...     scratch.empty((2, 3), np.float32).shape
    (2, 3)
    """

    def __init__(self, memory_bytes: int | None = None) -> None:
        self._left = MEMORY_BYTES if memory_bytes is None else memory_bytes
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._n_files = 0

    def empty(self, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        """An array to be filled.

        Raises:
            SynBrainError: where the disk is too small for it.
        """
        n_bytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        if n_bytes <= self._left:
            self._left -= n_bytes
            return np.empty(shape, dtype=dtype)
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="synbrain-linear-")
        self._n_files += 1
        return allocate_array(Path(self._folder.name) / f"{self._n_files}.npy", shape, dtype)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._folder is not None:
            self._folder.cleanup()
