"""Files written whole or not at all: atomic writes, checksums, memory-mapped arrays, manifests.

Every writer of this package goes through here, so that an interrupted run, a full disk or a second
run never leaves half a file under its final name.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from synbrain.errors import SynBrainError

MANIFEST = "checksums.json"


def require_absent(path: Path, overwrite: bool = False) -> None:
    """Refuse to write over ``path`` unless ``overwrite`` is set.

    Raises:
        SynBrainError: where a file, or a folder that is not empty, stands there already.
    """
    taken = path.exists() and not (path.is_dir() and not any(path.iterdir()))
    if taken and not overwrite:
        raise SynBrainError(f"{path} exists already", "pass --overwrite, or choose another output")


def require_space(folder: Path, n_bytes: int) -> None:
    """Raise before work is lost where the disk that holds ``folder`` has not ``n_bytes`` free."""
    there = folder
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free
    if n_bytes > free:
        raise SynBrainError(
            f"{folder} needs {n_bytes / 1e9:.2f} GB but its disk has {free / 1e9:.2f} GB free",
            "free some space, or choose an output on another disk",
        )


@contextmanager
def telling_full_disk(path: Path) -> Iterator[None]:
    """Turn ENOSPC and EDQUOT raised inside into a :class:`SynBrainError` that names ``path``."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise SynBrainError(
                f"the disk is full while writing {path}",
                "free some space and run the command again; nothing half-written was kept",
            ) from error
        raise


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a ``.partial`` path beside ``path`` to write to; it takes the final name on success.

    On any exception, Ctrl-C included, the partial file is removed and ``path`` stays as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    try:
        with telling_full_disk(path):
            yield partial
            with partial.open("rb") as handle:
                os.fsync(handle.fileno())
            os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` as UTF-8, whole or not at all."""
    with atomic_path(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` as indented JSON, whole or not at all; NaN is refused, as JSON has none."""
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON and say what to do where the file is missing or broken."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise SynBrainError(f"{path} is missing", "check the path, or make it again") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise SynBrainError(f"{path} is not valid JSON ({error})", "make it again") from error


POINTERS = {
    b"/annex/objects/": "git annex get",
    b"../.git/annex/": "git annex get",
    b"version https://git-lfs": "git lfs pull --include",
}


def unreadable(path: Path, error: BaseException, mend: str = "") -> SynBrainError:
    """Why a file could not be read, with the mend: missing, not fetched, not allowed, locked, or damaged.

    Args:
        path: the file.
        error: what the reading library raised.
        mend: what to do where the file is damaged; "copy or download it again" if left out.
    """
    if path.is_symlink() and not path.exists():
        target = os.readlink(path)
        if "annex/objects" in target:
            return SynBrainError(
                f"the content of {path} is not on this disk (a git-annex link)", f"run `git annex get {path}`"
            )
        return SynBrainError(f"{path} is a link to {target}, which is missing", "restore what it points to")
    if isinstance(error, FileNotFoundError) or not path.exists():
        return SynBrainError(f"{path} is missing", "check the path, or fetch or make it again")
    if path.is_dir():
        return SynBrainError(f"{path} is a folder", "give the file itself")
    if isinstance(error, OSError) and "lock" in str(error).lower():
        return SynBrainError(
            f"{path} is locked ({error})",
            "wait for the process that writes it; on a disk without file locks set "
            "HDF5_USE_FILE_LOCKING=FALSE",
        )
    if isinstance(error, PermissionError):
        return SynBrainError(f"{path} may not be read", "ask its owner for the right to read it")
    try:
        with path.open("rb") as handle:
            first = handle.read(64)
    except OSError:
        first = b""
    for start, command in POINTERS.items():
        if first.startswith(start):
            return SynBrainError(
                f"{path} is a pointer, its content was not fetched", f"run `{command} {path}`"
            )
    return SynBrainError(
        f"{path} is damaged or cut short ({error or type(error).__name__})",
        mend or "copy or download it again",
    )


def save_array(path: Path, array: np.ndarray) -> None:
    """Save ``array`` as .npy, whole or not at all."""
    require_space(path.parent, array.nbytes)
    with atomic_path(path) as partial, partial.open("wb") as handle:
        np.save(handle, array, allow_pickle=False)


def allocate_array(path: Path, shape: tuple[int, ...], dtype: Any) -> np.memmap[Any, Any]:
    """Make a memory-mapped .npy of ``shape`` with its disk blocks reserved.

    Reserving them makes a full disk an error here, not a bus error in the middle of a long run.
    The caller writes into ``X.partial`` and renames, where others may look for ``X``.
    """
    n_bytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    path.parent.mkdir(parents=True, exist_ok=True)
    require_space(path.parent, n_bytes)
    array: np.memmap[Any, Any]
    with telling_full_disk(path):
        array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
        if hasattr(os, "posix_fallocate") and n_bytes:
            with path.open("r+b") as handle:
                os.posix_fallocate(handle.fileno(), 0, path.stat().st_size)
    return array


def open_array(path: Path, *, writable: bool = False) -> np.memmap[Any, Any]:
    """Memory-map a .npy file; nothing is read until it is indexed.

    Raises:
        SynBrainError: where the file is missing, cut short or no .npy.
    """
    try:
        mapped = np.load(path, mmap_mode="r+" if writable else "r", allow_pickle=False)
    except ValueError as error:
        if "Python objects" in str(error) or "pickle" in str(error).lower():
            told = unreadable(path, error)
            if "damaged" in told.problem and path.read_bytes()[:6] == b"\x93NUMPY":
                raise SynBrainError(
                    f"{path} holds pickled Python objects, which may run code when they are read",
                    f'save plain numbers: r = np.load("{path.name}", allow_pickle=True); '
                    f'np.save("{path.name}", np.asarray(r.tolist(), dtype="float32"))',
                ) from error
        raise unreadable(path, error, "it was cut short or altered: make it again") from error
    except (OSError, EOFError) as error:
        raise unreadable(path, error, "it was cut short or altered: make it again") from error
    if not isinstance(mapped, np.memmap):
        raise SynBrainError(f"{path} is not a plain array", "make it again")
    return mapped


def digest(path: Path) -> str:
    """SHA-256 of a file's bytes, as hex, read in blocks."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def digest_of(content: Any) -> str:
    """SHA-256 of JSON-able ``content`` in canonical form, as hex."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def write_manifest(folder: Path, names: list[str]) -> None:
    """Record the checksums of the files ``names`` (relative to ``folder``) in ``checksums.json``."""
    write_json(folder / MANIFEST, {name: digest(folder / name) for name in sorted(names)})


def verify_manifest(folder: Path, only: set[str] | None = None) -> None:
    """Check files against ``checksums.json``.

    Args:
        folder: the folder that holds the manifest.
        only: check these alone (loading checks small files; ``synbrain check`` checks all).

    Raises:
        SynBrainError: naming the first file that is missing or was altered.
    """
    manifest = read_json(folder / MANIFEST)
    if not isinstance(manifest, dict) or not manifest:
        raise SynBrainError(
            f"{folder / MANIFEST} lists no checksums", "copy the whole folder again, or make it again"
        )
    for name, expected in manifest.items():
        if only is not None and name not in only:
            continue
        path = folder / name
        if not path.exists():
            raise SynBrainError(f"{path} is missing", "copy the whole folder again, or make it again")
        if digest(path) != expected:
            raise SynBrainError(
                f"{path} was altered after it was written (its checksum differs)",
                "copy it again from the original, or make it again",
            )


def require_replaceable(out: Path, overwrite: bool, inputs: Iterable[Path] = ()) -> None:
    """Refuse an output that exists, that holds an input, or that this package did not write.

    Raises:
        SynBrainError: where writing ``out`` would lose something that the user did not mean.
    """
    require_absent(out, overwrite)
    for source in inputs:
        if source.resolve().is_relative_to(out.resolve()):
            raise SynBrainError(f"the output {out} holds the input {source}", "choose another output")
    foreign = out.is_dir() and any(out.iterdir()) and not (out / MANIFEST).exists()
    if foreign or out.is_file():
        raise SynBrainError(
            f"{out} was not written by synbrain (it has no {MANIFEST})",
            "remove it yourself, or choose another output",
        )


@contextmanager
def new_folder(out: Path, overwrite: bool = False) -> Iterator[Path]:
    """Build a folder beside ``out`` and give it that name when the block ends without error.

    On error, Ctrl-C included, what was written is removed and an older ``out`` stays.
    """
    require_absent(out, overwrite)
    building = out.with_name(f".{out.name}.partial")
    out.parent.mkdir(parents=True, exist_ok=True)
    if building.exists():
        shutil.rmtree(building)
    building.mkdir()
    try:
        with telling_full_disk(out):
            yield building
            publish_folder(building, out)
    finally:
        if building.exists():
            shutil.rmtree(building, ignore_errors=True)


def publish_folder(building: Path, out: Path) -> None:
    """Give a finished folder its final name; an older ``out`` is removed only after that."""
    older = out.with_name(f".{out.name}.older")
    if older.exists():
        shutil.rmtree(older)
    if out.exists():
        os.replace(out, older)
    try:
        os.replace(building, out)
    except OSError:
        if older.exists():
            os.replace(older, out)
        raise
    shutil.rmtree(older, ignore_errors=True)
