"""Masked single-trial betas out of NIfTI, HDF5 and MGH files, a block of trials at a time."""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from synbrain.errors import SynBrainError

Index = NDArray[np.int64]
PIECE = 2**18  # compressed bytes read at a time
INFLATED = 2**22  # bytes decompressed at a time, whatever the ratio
BLOCK_BYTES = 64 * 2**20  # of HDF5 and MGH trials in memory at a time
SUFFIXES = (".hdf5", ".h5", ".nii.gz", ".nii", ".mgh")


@dataclass(frozen=True)
class BetaFile:
    """What the header of a file of single-trial betas says.

    Attributes:
        path: the file.
        grid: (x, y, z) of a volume, or (n_vertices,) of a hemisphere.
        n_trials: number of trials.
        dtype: the values' type on disk.
        affine: (4, 4) of a NIfTI volume, else None.
    """

    path: Path
    grid: tuple[int, ...]
    n_trials: int
    dtype: np.dtype[Any]
    affine: NDArray[np.float64] | None = None

    @property
    def is_integer(self) -> bool:
        """True for NSD's volumes (percent signal change x 300), False for its surface files."""
        return self.dtype.kind in "iu"


class Inflater:
    """Decompressed bytes of a gzip file in order, in bounded memory; knows the time that it took.

    ``gzip.open`` reads 8 KiB at a time and takes half as long again for the same bytes. Several members
    in one file (bgzip, pigz) are read as one.
    """

    def __init__(self, raw: BinaryIO) -> None:
        self.raw, self.seconds = raw, 0.0
        self._inflate = zlib.decompressobj(31)  # 31: a gzip wrapper, whose checksum is verified
        self._left = b""
        self._rest = memoryview(b"")

    def readinto(self, target: memoryview) -> int:
        """Fill ``target`` and return the bytes given: fewer than its length only at the end."""
        given = 0
        while given < len(target):
            if not self._rest:
                self._rest = memoryview(self._more())
                if not self._rest:
                    break
            part = self._rest[: len(target) - given]
            target[given : given + len(part)] = part
            self._rest = self._rest[len(part) :]
            given += len(part)
        return given

    def _more(self) -> bytes:
        while True:
            if self._inflate.eof:
                self._left = self._inflate.unused_data or self.raw.read(PIECE)
                if not self._left.strip(b"\0"):
                    return b""
                self._inflate = zlib.decompressobj(31)
            elif not self._left:
                self._left = self.raw.read(PIECE)
                if not self._left:
                    raise EOFError("the compressed stream ends too early")
            begin = time.perf_counter()
            out = self._inflate.decompress(self._left, INFLATED)
            self.seconds += time.perf_counter() - begin
            self._left = self._inflate.unconsumed_tail
            if out:
                return out


class Plain:
    """The bytes of an uncompressed file, with the surface of :class:`Inflater`."""

    seconds = 0.0

    def __init__(self, raw: BinaryIO) -> None:
        self.raw = raw

    def readinto(self, target: memoryview) -> int:
        return int(self.raw.readinto(target))  # type: ignore[attr-defined]


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Say which file is damaged, whatever library noticed it."""
    try:
        yield
    except FileNotFoundError as error:
        raise SynBrainError(f"{path} is missing", "download it again") from error
    except SynBrainError:
        raise
    except (
        OSError, EOFError, zlib.error, ValueError, KeyError, nib.spatialimages.HeaderDataError,
        nib.filebasedimages.ImageFileError,
    ) as error:  # fmt: skip
        raise SynBrainError(
            f"{path} is damaged or cut short ({error or type(error).__name__})",
            "download or copy it again, then run the same command: finished sessions are kept",
        ) from error


def _is_hdf5(path: Path) -> bool:
    return path.suffix in (".hdf5", ".h5")


def describe(path: Path, key: str = "betas") -> BetaFile:
    """Read the header of a file of betas; no data is touched.

    Raises:
        SynBrainError: where it is missing, damaged, or not four-dimensional.
    """
    with _told(path):
        if _is_hdf5(path):
            with h5py.File(path, "r") as file:
                if key not in file:
                    raise SynBrainError(f"{path} has no dataset {key!r}", f"it holds {list(file)}")
                data = file[key]
                n, *reversed_grid = data.shape  # MATLAB order: h5py shows the axes reversed
                return BetaFile(path, tuple(reversed_grid[::-1]), n, data.dtype)
        if path.suffix in (".mgh", ".mgz"):
            loaded: Any = nib.load(path)
            shape = loaded.shape
            n = shape[3] if len(shape) > 3 else 1
            return BetaFile(path, (int(np.prod(shape[:3])),), n, np.dtype(np.float32))
        with path.open("rb") as raw:
            header, _ = _nifti_header(raw, path)
        shape = header.get_data_shape()
        if len(shape) != 4:
            raise SynBrainError(f"{path} has {len(shape)} axes", "give a 4D file with one volume per trial")
        return BetaFile(path, tuple(shape[:3]), shape[3], header.get_data_dtype(), header.get_best_affine())


def _nifti_header(raw: BinaryIO, path: Path) -> tuple[Any, Inflater | Plain]:
    """The header, and the stream set on the first voxel."""
    stream: Inflater | Plain = Inflater(raw) if path.suffix == ".gz" else Plain(raw)
    first = bytearray(4)
    _fill(stream, memoryview(first), path)
    two = int.from_bytes(first, "little") == 540 or int.from_bytes(first, "big") == 540
    kind = nib.Nifti2Header if two else nib.Nifti1Header
    rest = bytearray(kind.sizeof_hdr - 4)
    _fill(stream, memoryview(rest), path)
    header = kind.from_fileobj(BytesIO(bytes(first + rest)), check=True)
    offset = int(header.get_data_offset()) - kind.sizeof_hdr
    _fill(stream, memoryview(bytearray(max(offset, 0))), path)
    return header, stream


def _fill(stream: Inflater | Plain, target: memoryview, path: Path) -> None:
    if stream.readinto(target) < len(target):
        raise EOFError("the file ends too early")


def read_masked(about: BetaFile, index: Index, key: str = "betas") -> tuple[NDArray[Any], float]:
    """All trials of a file at the voxels ``index``, as stored, and the seconds spent in decompression.

    Volumes are streamed: one trial of a NIfTI, or 64 MiB of another file, is in memory beside the result.
    NIfTI scale factors are applied where the header has them (the result is float32 then).

    Args:
        about: from :func:`describe`.
        index: (n_voxels,) positions in the flattened grid (C order), or vertices, ascending.

    Returns:
        (n_trials, n_voxels) of the file's dtype in native byte order.

    Raises:
        SynBrainError: where the file is damaged or cut short.
    """
    with _told(about.path):
        if _is_hdf5(about.path):
            return _read_hdf5(about, index, key), 0.0
        if about.path.suffix in (".mgh", ".mgz"):
            return _read_surface(about, index), 0.0
        return _read_nifti(about, index)


def _read_nifti(about: BetaFile, index: Index) -> tuple[NDArray[Any], float]:
    # a volume lies in Fortran order on disk
    there = np.ravel_multi_index(np.unravel_index(index, about.grid), about.grid, order="F")
    with about.path.open("rb", buffering=0) as raw:
        header, stream = _nifti_header(raw, about.path)
        slope, inter = header.get_slope_inter()
        held = bytearray(int(np.prod(about.grid)) * about.dtype.itemsize)
        volume: NDArray[Any] = np.frombuffer(held, dtype=about.dtype)
        out = np.empty((about.n_trials, len(index)), dtype=about.dtype.newbyteorder("="))
        for trial in range(about.n_trials):
            _fill(stream, memoryview(held), about.path)
            out[trial] = volume[there]
        if isinstance(stream, Inflater):
            stream.readinto(memoryview(bytearray(1)))  # reaches the end, where the checksum stands
    if slope not in (None, 1.0) or inter not in (None, 0.0):
        out = (out * np.float64(slope) + np.float64(inter)).astype(np.float32)
    return out, stream.seconds


def _read_hdf5(about: BetaFile, index: Index, key: str) -> NDArray[Any]:
    x, y, z = np.unravel_index(index, about.grid)
    out = np.empty((about.n_trials, len(index)), dtype=about.dtype.newbyteorder("="))
    with h5py.File(about.path, "r") as file:
        data = file[key]
        if data.chunks and np.prod(data.chunks[1:]) <= 64:  # NSD: one chunk per voxel, all its trials
            order = np.lexsort((x, y, z))
            breaks = np.flatnonzero((np.diff(x[order]) != 1) | np.diff(y[order]) | np.diff(z[order])) + 1
            for run in np.split(order, breaks):
                first, last = x[run[0]], x[run[-1]]
                out[:, run] = data[:, z[run[0]], y[run[0]], first : last + 1]
            return out
        step = max(1, BLOCK_BYTES // (int(np.prod(about.grid)) * about.dtype.itemsize))
        for start in range(0, about.n_trials, step):
            out[start : start + step] = data[start : start + step][:, z, y, x]
    return out


def _read_surface(about: BetaFile, index: Index) -> NDArray[Any]:
    loaded: Any = nib.load(about.path)
    proxy = loaded.dataobj
    out = np.empty((about.n_trials, len(index)), dtype=np.float32)
    step = max(1, BLOCK_BYTES // (about.grid[0] * 4))
    for start in range(0, about.n_trials, step):
        block = np.asarray(proxy[..., start : start + step])
        out[start : start + step] = block.reshape(about.grid[0], -1, order="F")[index].T
    return out
