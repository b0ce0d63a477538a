"""GLMsingle's own outputs that are no HDF5: a MATLAB file, or a pickled dictionary in a .npy.

A pickle can run any code when it is read. The one of GLMsingle holds numpy arrays in a dictionary and nothing
else, so it is read by an unpickler that knows how to rebuild arrays and refuses every other name.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.io import loadmat, whosmat

from synbrain.errors import SynBrainError

KEYS = ("betasmd", "modelmd")  # betas in Python and in newer MATLAB versions; in older MATLAB versions
SUFFIXES = (".npy", ".mat")


class _ArraysOnly(pickle.Unpickler):
    """Rebuilds numpy arrays and plain containers; anything else is refused before it is looked up."""

    ALLOWED: ClassVar[set[tuple[str, str]]] = {
        (module, name)
        for core in ("numpy.core", "numpy._core")
        for module, name in (
            (f"{core}.multiarray", "_reconstruct"),
            (f"{core}.multiarray", "scalar"),
            (f"{core}.numeric", "_frombuffer"),
        )
    } | {("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"it wants to load {module}.{name}")
        return super().find_class(module, name)


def shape_of(path: Path) -> tuple[str, tuple[int, ...], np.dtype[Any]]:
    """The variable that holds the betas, its shape (x, y, z, trials) and its type."""
    if path.suffix == ".mat":
        variables = {name: shape for name, shape, _ in whosmat(path)}
        key = next((name for name in KEYS if name in variables), None)
        if key is None:
            raise _no_betas(path, sorted(variables))
        dtype = np.asarray(loadmat(path, variable_names=[key])[key]).dtype
        return key, tuple(variables[key]), dtype
    array = load(path)
    return KEYS[0], array.shape, array.dtype


def load(path: Path) -> NDArray[Any]:
    """The betas, (x, y, z, trials) as stored; a plain .npy is mapped, the others are read whole.

    Raises:
        SynBrainError: where there are no betas, or the pickle holds more than arrays.
    """
    if path.suffix == ".mat":
        content = loadmat(path, variable_names=list(KEYS))
    else:
        with path.open("rb") as handle:
            version = np.lib.format.read_magic(handle)
            read = (
                np.lib.format.read_array_header_1_0
                if version == (1, 0)
                else np.lib.format.read_array_header_2_0
            )
            shape, _, dtype = read(handle)
            if not dtype.hasobject:
                plain: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
                return plain
            if shape != ():
                raise SynBrainError(
                    f"{path} holds pickled objects of shape {shape}, not GLMsingle's dictionary",
                    'save the betas alone: np.save(path, betas.astype("float32"))',
                )
            try:
                content = _ArraysOnly(handle).load()
            except pickle.UnpicklingError as error:
                raise SynBrainError(
                    f"{path} is no plain output of GLMsingle ({error}), and reading it might run code",
                    'save the betas alone: np.save(path, results["betasmd"])',
                ) from error
            content = content.item() if isinstance(content, np.ndarray) and content.shape == () else content
    if not isinstance(content, dict) or not set(KEYS) & set(content):
        raise _no_betas(path, sorted(map(str, content)) if isinstance(content, dict) else [])
    return np.asarray(content[next(name for name in KEYS if name in content)])


def _no_betas(path: Path, there: list[str]) -> SynBrainError:
    named = [name for name in there if not name.startswith("__")]
    return SynBrainError(
        f"{path} has no {' or '.join(KEYS)}", f"it holds {named}; give GLMsingle's TYPED output"
    )
