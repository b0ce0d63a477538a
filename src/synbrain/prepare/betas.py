"""Masked single-trial betas out of NIfTI, HDF5, MGH, GIfTI and CIFTI files, a block of trials at a time."""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO
from xml.parsers.expat import ExpatError

import h5py
import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from synbrain.errors import SynBrainError, unreadable
from synbrain.prepare import gifti, glmsingle, surface
from synbrain.prepare.grid import FLAT, Grid, stated_affine

Index = NDArray[np.int64]
PIECE = 2**18  # compressed bytes read at a time
INFLATED = 2**22  # bytes decompressed at a time, whatever the ratio
BLOCK_BYTES = 64 * 2**20  # of HDF5 and MGH trials in memory at a time
HDF5_KEYS = ("betas", *glmsingle.KEYS)
MATLAB_ORDER = "betas"  # NSD's name; MATLAB writes the axes in reversed order


@dataclass(frozen=True)
class BetaFile:
    """What the header of a file of single-trial betas says.

    Attributes:
        path: the file.
        grid: (x, y, z) of a volume, (n_vertices,) of a hemisphere, or (n_grayordinates,) of CIFTI.
        n_trials: number of trials.
        dtype: the values' type on disk.
        affine: (4, 4) of a volume whose file states it, else None.
        is_scaled: NIfTI scale factors are applied on reading (the values are then float32).
        key: the HDF5 dataset, or the MATLAB variable.
        reversed_axes: the HDF5 dataset lies as (trials, z, y, x), not as (x, y, z, trials).
        brain: nibabel's axis of the grayordinates of CIFTI.
    """

    path: Path
    grid: tuple[int, ...]
    n_trials: int
    dtype: np.dtype[Any]
    affine: NDArray[np.float64] | None = None
    is_scaled: bool = False
    key: str = ""
    reversed_axes: bool = True
    brain: Any = None

    @property
    def is_integer(self) -> bool:
        """True for NSD's volumes (percent signal change x 300), False for its surface files."""
        return self.dtype.kind in "iu" and not self.is_scaled

    @property
    def is_surface(self) -> bool:
        """Vertices of one hemisphere, or grayordinates."""
        return len(self.grid) == 1

    @property
    def unit_names(self) -> str:
        """What its values are of."""
        if not self.is_surface:
            return "voxels"
        return "vertices" if self.brain is None else "grayordinates"

    @property
    def trial_name(self) -> str:
        """What holds the values of a trial."""
        return "map" if self.is_surface else "volume"

    @property
    def place(self) -> Grid:
        """Where the values lie, to be compared with masks and other runs."""
        return Grid(self.path, self.grid, self.affine)


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
def reading(path: Path) -> Iterator[None]:
    """Say what is wrong with a file, whatever library noticed it."""
    try:
        yield
    except SynBrainError:
        raise
    except (
        OSError, EOFError, zlib.error, ValueError, KeyError, nib.spatialimages.HeaderDataError,
        nib.filebasedimages.ImageFileError, nib.wrapstruct.WrapStructError, ExpatError,
        nib.cifti2.Cifti2HeaderError,
    ) as error:  # fmt: skip
        raise unreadable(
            path, error, "download or copy it again, then run the same command: finished sessions are kept"
        ) from error


def _is_hdf5(path: Path) -> bool:
    """By content: MATLAB 7.3 files are HDF5 behind a block of 512 bytes."""
    others = (*surface.MGH, *surface.GIFTI, ".nii", ".gz", ".npy")
    return not surface.has_suffix(path, others) and bool(h5py.is_hdf5(path))


def describe(path: Path) -> BetaFile:
    """Read the header of a file of betas; no data is touched, but of MATLAB and pickled files.

    Trailing axes of length 1 are dropped, and a three-dimensional volume is one trial.

    Raises:
        SynBrainError: where it is missing, damaged, or holds no volumes of real numbers.
    """
    with reading(path):
        if path.suffix in (".hdf5", ".h5") or _is_hdf5(path):
            about = _describe_hdf5(path)
        elif path.suffix in glmsingle.SUFFIXES:
            key, shape, dtype = glmsingle.shape_of(path)
            grid, n = _grid_and_trials(shape, path)
            about = BetaFile(path, grid, n, dtype, key=key)
        elif surface.has_suffix(path, surface.MGH):
            loaded: Any = nib.load(path)
            shape = loaded.shape
            n = int(shape[3]) if len(shape) > 3 else 1
            about = BetaFile(path, (int(np.prod(shape[:3])),), n, np.dtype(np.float32))
        elif surface.has_suffix(path, surface.GIFTI):
            maps = gifti.gifti_header(path)
            about = BetaFile(path, (maps.n_vertices,), maps.n_maps, maps.dtype)
        elif surface.is_cifti(path):
            rows, columns = surface.cifti_axes(path)
            about = BetaFile(path, (len(columns),), len(rows), np.dtype(np.float32), brain=columns)
        else:
            with path.open("rb") as raw:
                header, _ = _nifti_header(raw, path)
            grid, n = _grid_and_trials(header.get_data_shape(), path)
            is_scaled = _scaling(header) != (1.0, 0.0)
            about = BetaFile(path, grid, n, header.get_data_dtype(), stated_affine(header), is_scaled)
    if about.dtype.kind not in "iuf":
        raise SynBrainError(
            f"{path} holds {_kind_of(about.dtype)}, which are no responses",
            "give one real number per voxel and trial (NIfTI int16 or float32)",
        )
    return about


def _kind_of(dtype: np.dtype[Any]) -> str:
    kinds = {"c": "complex numbers", "b": "truth values", "V": f"records ({', '.join(dtype.names or ())})"}
    return kinds.get(dtype.kind, f"values of type {dtype}")


def _describe_hdf5(path: Path) -> BetaFile:
    with h5py.File(path, "r") as file:
        key = next((name for name in HDF5_KEYS if name in file), None)
        if key is None:
            raise SynBrainError(
                f"{path} has no dataset {' or '.join(map(repr, HDF5_KEYS))}", f"it holds {list(file)}"
            )
        data = file[key]
        is_reversed = key == MATLAB_ORDER or "MATLAB_class" in data.attrs
        shape = tuple(data.shape[::-1] if is_reversed else data.shape)
        grid, n = _grid_and_trials(shape, path)
        return BetaFile(path, grid, n, data.dtype, key=key, reversed_axes=is_reversed)


def _grid_and_trials(shape: tuple[int, ...], path: Path) -> tuple[tuple[int, ...], int]:
    """(x, y, z) and the number of trials; further axes may only have length 1."""
    further = [size for size in shape[3:] if size != 1]
    if len(shape) < 3 or len(further) > 1:
        raise SynBrainError(
            f"{path} has axes of {shape}",
            "give (x, y, z, trials), or one (x, y, z) file per trial"
            + (f"; voxels of a mask: {FLAT}" if len(shape) == 2 else ""),
        )
    return tuple(int(size) for size in shape[:3]), int(further[0]) if further else 1


def _nifti_header(raw: BinaryIO, path: Path) -> tuple[Any, Inflater | Plain]:
    """The header, and the stream set on the first voxel; compressed or not is seen by content."""
    is_compressed = raw.read(2) == b"\x1f\x8b"
    raw.seek(0)
    stream: Inflater | Plain = Inflater(raw) if is_compressed else Plain(raw)
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


def _scaling(header: Any) -> tuple[float, float]:
    slope, inter = header.get_slope_inter()
    return 1.0 if slope is None else float(slope), 0.0 if inter is None else float(inter)


def _fill(stream: Inflater | Plain, target: memoryview, path: Path) -> None:
    if stream.readinto(target) < len(target):
        raise EOFError("the file ends too early")


def read_masked(about: BetaFile, index: Index) -> tuple[NDArray[Any], float]:
    """All trials of a file at the voxels ``index``, as stored, and the seconds spent in decompression.

    Volumes are streamed: one trial of a NIfTI, or 64 MiB of another file, is in memory beside the result.
    NIfTI scale factors are applied where the header has them (the result is float32 then).

    Args:
        about: from :func:`describe`.
        index: (n_voxels,) positions in the flattened grid (C order), or vertices.

    Returns:
        (n_trials, n_voxels) of the file's dtype in native byte order.

    Raises:
        SynBrainError: where the file is damaged or cut short.
    """
    with reading(about.path):
        if about.key and about.path.suffix in glmsingle.SUFFIXES and not _is_hdf5(about.path):
            whole = glmsingle.load(about.path).reshape(int(np.prod(about.grid)), about.n_trials)
            return np.ascontiguousarray(whole[index].T), 0.0
        if about.key:
            return _read_hdf5(about, index), 0.0
        if surface.has_suffix(about.path, surface.MGH):
            return _read_mgh(about, index), 0.0
        if about.is_surface:
            return _read_maps(about, index), 0.0
        return _read_nifti(about, index)


def _read_nifti(about: BetaFile, index: Index) -> tuple[NDArray[Any], float]:
    # a volume lies in Fortran order on disk
    there = np.ravel_multi_index(np.unravel_index(index, about.grid), about.grid, order="F")
    with about.path.open("rb", buffering=0) as raw:
        header, stream = _nifti_header(raw, about.path)
        slope, inter = _scaling(header)
        buffer = bytearray(int(np.prod(about.grid)) * about.dtype.itemsize)
        volume: NDArray[Any] = np.frombuffer(buffer, dtype=about.dtype)
        out = np.empty((about.n_trials, len(index)), dtype=about.dtype.newbyteorder("="))
        for trial in range(about.n_trials):
            _fill(stream, memoryview(buffer), about.path)
            out[trial] = volume[there]
        if isinstance(stream, Inflater):
            stream.readinto(memoryview(bytearray(1)))  # reaches the end, where the checksum stands
    if (slope, inter) != (1.0, 0.0):
        out = (out * np.float64(slope) + np.float64(inter)).astype(np.float32)
    return out, stream.seconds


def _read_hdf5(about: BetaFile, index: Index) -> NDArray[Any]:
    out = np.empty((about.n_trials, len(index)), dtype=about.dtype.newbyteorder("="))
    with h5py.File(about.path, "r") as file:
        data = file[about.key]
        if not about.reversed_axes:
            return _read_trials_last(about, data, index, out)
        x, y, z = np.unravel_index(index, about.grid)
        if data.shape[0] != about.n_trials:  # trailing axes of length 1 stand first here
            out[:] = data[()].reshape(about.n_trials, *about.grid[::-1])[:, z, y, x]
            return out
        if data.ndim == 4 and data.chunks and np.prod(data.chunks[1:]) <= 64:
            return _read_voxel_chunks(about, data, index, out)
        step = max(1, BLOCK_BYTES // (int(np.prod(about.grid)) * about.dtype.itemsize))
        for start in range(0, about.n_trials, step):
            block = data[start : start + step].reshape(-1, *about.grid[::-1])
            out[start : start + step] = block[:, z, y, x]
    return out


def _read_trials_last(about: BetaFile, data: Any, index: Index, out: NDArray[Any]) -> NDArray[Any]:
    """(x, y, z, trials), as GLMsingle in Python writes it; a few planes of x are in memory at a time."""
    plane = int(np.prod(about.grid[1:]))
    step = max(1, BLOCK_BYTES // (plane * about.n_trials * about.dtype.itemsize))
    for start in range(0, about.grid[0], step):
        wanted = np.flatnonzero((index // plane >= start) & (index // plane < start + step))
        if len(wanted):
            block = data[start : start + step].reshape(-1, about.n_trials)
            out[:, wanted] = block[index[wanted] - start * plane].T
    return out


def _read_voxel_chunks(about: BetaFile, data: Any, index: Index, out: NDArray[Any]) -> NDArray[Any]:
    """NSD's files have one chunk per voxel with all its trials: neighbours along x are read together."""
    x, y, z = np.unravel_index(index, about.grid)
    order = np.lexsort((x, y, z))
    breaks = np.flatnonzero((np.diff(x[order]) != 1) | np.diff(y[order]) | np.diff(z[order])) + 1
    for run in np.split(order, breaks):
        first, last = x[run[0]], x[run[-1]]
        out[:, run] = data[:, z[run[0]], y[run[0]], first : last + 1]
    return out


def _read_maps(about: BetaFile, index: Index) -> NDArray[Any]:
    """A map of GIfTI, or a block of the rows of CIFTI at a time."""
    out = np.empty((about.n_trials, len(index)), dtype=about.dtype.newbyteorder("="))
    if about.brain is None:

        def keep(trial: int, values: NDArray[Any]) -> None:
            out[trial] = values[index]

        gifti.read_gifti(about.path, keep)
        return out
    step = max(1, BLOCK_BYTES // (about.grid[0] * 4))
    for start in range(0, about.n_trials, step):
        out[start : start + step] = surface.cifti_rows(about.path, start, start + step)[:, index]
    return out


def _read_mgh(about: BetaFile, index: Index) -> NDArray[Any]:
    loaded: Any = nib.load(about.path)
    proxy = loaded.dataobj
    out = np.empty((about.n_trials, len(index)), dtype=np.float32)
    step = max(1, BLOCK_BYTES // (about.grid[0] * 4))
    for start in range(0, about.n_trials, step):
        block = np.asarray(proxy[..., start : start + step])
        out[start : start + step] = block.reshape(about.grid[0], -1, order="F")[index].T
    return out
