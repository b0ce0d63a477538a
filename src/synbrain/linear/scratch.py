"""What is kept between the passes of a fit: arrays in memory or in mapped files, and what was finished."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from synbrain.files import allocate_array, atomic_path, open_array, read_json, write_json

MEMORY_BYTES = 1 << 27  # what all arrays of one fit may take in memory
IDENTITY = "identity.json"


class Scratch:
    """Room for the arrays of a fit, and the record of its passes.

    Without a folder, files lie below ``TMPDIR`` (or the system's folder for temporary files) and are removed
    at the end of the ``with`` block, on errors as well. With one, everything stays there: the same fit takes
    up what was finished, another one (by its identity) begins anew.

    Args:
        memory_bytes: bytes of arrays in memory; what comes after them is mapped from disk. Nothing is in
            memory where there is a folder.
        folder: where the passes of an interrupted fit are kept.
        identity: of data and configuration.

    >>> with Scratch() as scratch:
    ...     scratch.empty((2, 3), np.float32).shape
    (2, 3)
    """

    def __init__(
        self, memory_bytes: int | None = None, folder: Path | None = None, identity: str = ""
    ) -> None:
        self._left = MEMORY_BYTES if memory_bytes is None else memory_bytes
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._n_files = 0
        self.folder = folder
        if folder is not None:
            self._left = 0
            if not (folder / IDENTITY).exists() or read_json(folder / IDENTITY) != identity:
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir(parents=True)
                write_json(folder / IDENTITY, identity)

    def empty(self, shape: tuple[int, ...], dtype: Any, name: str = "") -> NDArray[Any]:
        """An array to be filled; one of a name can be opened again by another process.

        Raises:
            SynBrainError: where the disk is too small for it.
        """
        n_bytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        if n_bytes <= self._left:
            self._left -= n_bytes
            return np.empty(shape, dtype=dtype)
        if self.folder is not None and name:
            return allocate_array(self.folder / f"{name}.npy", shape, dtype)
        if self._temporary is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="synbrain-linear-")
        self._n_files += 1
        return allocate_array(Path(self._temporary.name) / f"{self._n_files}.npy", shape, dtype)

    def put(self, values: NDArray[Any]) -> NDArray[Any]:
        """A copy of ``values`` that is here: what is read now and then need not stay in memory."""
        kept = self.empty(values.shape, values.dtype)
        kept[...] = values
        return kept

    def tensor(self, shape: tuple[int, ...], device: torch.device) -> Tensor:
        """Float32 on the device, to be filled; of a CPU it is an array of :meth:`empty`."""
        if device.type != "cpu":
            return torch.empty(shape, device=device)
        return torch.from_numpy(self.empty(shape, np.float32))

    def open(self, name: str) -> NDArray[Any]:
        """The array of that name, which an earlier process filled."""
        assert self.folder is not None
        return open_array(self.folder / f"{name}.npy", writable=True)  # torch takes no other

    def finish(
        self, name: str, about: Mapping[str, Any], tensors: Mapping[str, Tensor] | None = None
    ) -> None:
        """Record that a pass is done: what it found, and tensors that are not arrays of :meth:`empty`."""
        if self.folder is None:
            return
        if tensors is not None:
            with atomic_path(self.folder / f"{name}.safetensors") as partial:
                save_file({key: value.cpu().contiguous() for key, value in tensors.items()}, partial)
        write_json(self.folder / f"{name}.json", dict(about))

    def finished(self, name: str) -> dict[str, Any] | None:
        """What :meth:`finish` recorded; None where the pass is still to be done."""
        if self.folder is None or not (self.folder / f"{name}.json").exists():
            return None
        about: dict[str, Any] = read_json(self.folder / f"{name}.json")
        return about

    def tensors(self, name: str) -> dict[str, Tensor]:
        """Tensors of a finished pass."""
        assert self.folder is not None
        return load_file(self.folder / f"{name}.safetensors")

    def forget(self, name: str) -> None:
        """Remove what :meth:`finish` kept."""
        if self.folder is not None:
            for suffix in (".json", ".safetensors"):
                (self.folder / f"{name}{suffix}").unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._temporary is not None:
            self._temporary.cleanup()
