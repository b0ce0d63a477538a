"""Files written whole or not at all: atomic writes, checksums, memory-mapped arrays, manifests.

Every writer goes through here: no interruption, full disk or second run leaves half a file under its name.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from synbrain.errors import SynBrainError, unreadable

try:
    import fcntl
except ImportError:  # Windows: outputs are made without locks
    fcntl = None  # type: ignore[assignment]

MANIFEST = "checksums.json"
TAKEN = "pass --overwrite (overwrite=True), or choose another output"
WORK = "SYNBRAIN_WORK"  # environment variable: where to put what belongs to read-only datasets and runs
REFUSALS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "your quota on the disk is used up",
    errno.EROFS: "the disk is read-only",
    errno.EACCES: "you may not write there",
    errno.EPERM: "you may not write there",
    errno.ENOTDIR: "a file stands where a folder is needed",
    errno.EISDIR: "a folder stands there",
    errno.EEXIST: "something stands there already",
    errno.ENAMETOOLONG: "the name is too long for the disk",
}


def require_absent(path: Path, overwrite: bool = False) -> None:
    """Refuse to write over ``path`` unless ``overwrite`` is set, and where it could not be written at all.

    Raises:
        SynBrainError: where a file, or a folder that is not empty, stands there already, or the disk refuses.
    """
    with writing(path):
        taken = path.exists() and not (path.is_dir() and not any(path.iterdir()))
    if taken and not overwrite:
        raise SynBrainError(f"{path} exists already", TAKEN)
    require_writable(path)


def require_writable(path: Path) -> None:
    """Raise before work is lost where ``path`` could not be made: an empty file is tried and removed."""
    with writing(path), tempfile.NamedTemporaryFile(dir=_existing(path.parent), prefix=".synbrain-"):
        pass


def require_space(folder: Path, n_bytes: int) -> None:
    """Raise before work is lost where the disk that holds ``folder`` has not ``n_bytes`` free."""
    free = shutil.disk_usage(_existing(folder)).free
    if n_bytes > free:
        raise SynBrainError(
            f"{folder} needs {n_bytes / 1e9:.2f} GB but its disk has {free / 1e9:.2f} GB free",
            "free some space, or choose an output on another disk",
        )


def _existing(folder: Path) -> Path:
    """``folder``, or the nearest one above it that exists."""
    return next((where for where in (folder, *folder.parents) if where.exists()), Path.cwd())


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the disk refuses inside into a :class:`SynBrainError` that names ``path``.

    Only errors about ``path`` or files beside or below it are meant, and a full or read-only disk: what goes
    wrong with an input keeps its own error.
    """
    try:
        yield
    except OSError as error:
        code = error.errno or 0
        about = None if error.filename is None else Path(os.fsdecode(error.filename)).absolute()
        is_ours = about is None or about.is_relative_to(path.absolute().parent)
        is_ours |= about is not None and path.absolute().is_relative_to(about)
        if code not in REFUSALS or not (is_ours or code in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)):
            raise
        kept = "" if code == errno.EROFS else "; nothing half-written was kept"
        mend = {
            errno.ENOSPC: f"free some space and run the command again{kept}",
            errno.EDQUOT: f"free some space and run the command again{kept}",
        }.get(code, f"choose another output; what belongs to a read-only dataset or run goes to ${WORK}")
        what = "while writing" if code in (errno.ENOSPC, errno.EDQUOT) else "so this cannot be written:"
        raise SynBrainError(f"{REFUSALS[code]} {what} {path}", mend) from error


def beside(folder: Path) -> Path:
    """Where to put what is made for a dataset or a run later: tokens, scores, cards.

    That is ``folder`` itself, or, where the environment variable SYNBRAIN_WORK (``synbrain --work DIR``)
    names a folder, one in there that is named after ``folder`` and its full path.
    """
    work = os.environ.get(WORK)
    if not work:
        return folder
    full = str(folder.resolve())
    return Path(work) / f"{Path(full).name}-{hashlib.sha256(full.encode()).hexdigest()[:10]}"


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """Be the only process that makes ``out``; another that tries meanwhile is told so.

    The lock is a file beside ``out`` that the operating system releases when the process ends, however it
    ends. A disk without locks is written to without one. A process that has the lock may ask again.

    Raises:
        SynBrainError: where another process makes ``out`` now.
    """
    path = out.with_name(f".{out.name}.lock")
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        handle = _locked(path, out) if fcntl is not None else None
    try:
        yield
    finally:
        if handle is not None:
            path.unlink(missing_ok=True)
            os.close(handle)


def _locked(path: Path, out: Path) -> int | None:
    """The open lock file; None where this process has it already."""
    me = f"process {os.getpid()} on {socket.gethostname()}"
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            who = os.read(handle, 200).decode(errors="replace")
            os.close(handle)
            if who == me:
                return None
            raise SynBrainError(
                f"another process is making {out}" + (f" ({who})" if who else ""),
                "wait for it to end, or choose another output",
            ) from error
        except OSError:  # no locks on this disk
            return handle
        try:  # the file may have been removed between its opening and the lock
            is_same = os.stat(path).st_ino == os.fstat(handle).st_ino
        except FileNotFoundError:
            is_same = False
        if is_same:
            os.truncate(handle, 0)
            os.write(handle, me.encode())
            return handle
        os.close(handle)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a ``.partial`` path beside ``path`` to write to; it takes the final name on success.

    On any exception, Ctrl-C included, the partial file is removed and ``path`` stays as it was. Its name is
    this process's own, so that two processes do not write into one file.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
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
    with writing(path):
        array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
        if hasattr(os, "posix_fallocate") and n_bytes:
            with path.open("r+b") as handle:
                os.posix_fallocate(handle.fileno(), 0, path.stat().st_size)
    return array


@contextmanager
def new_array(path: Path, shape: tuple[int, ...], dtype: Any) -> Iterator[np.memmap[Any, Any]]:
    """Fill a memory-mapped .npy beside ``path``; it takes that name when the block ends without error.

    On error, Ctrl-C included, it is removed. One process at a time makes ``path``, see :func:`alone`.
    """
    partial = path.with_name(f".{path.name}.partial")
    with alone(path), writing(path):
        try:
            array = allocate_array(partial, shape, dtype)
            yield array
            array.flush()
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)


def open_array(path: Path, *, writable: bool = False) -> np.memmap[Any, Any]:
    """Memory-map a .npy file; nothing is read until it is indexed.

    Raises:
        SynBrainError: where the file is missing, cut short or no .npy.
    """
    try:
        mapped = np.load(path, mmap_mode="r+" if writable else "r", allow_pickle=False)
    except ValueError as error:
        if "Python objects" in str(error) or "pickle" in str(error).lower():
            problem = unreadable(path, error)
            if "damaged" in problem.problem and path.read_bytes()[:6] == b"\x93NUMPY":
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


def _never(folder: Path) -> bool:
    return False


@contextmanager
def new_folder(
    out: Path,
    overwrite: bool = False,
    *,
    continues: Callable[[Path], bool] = _never,
    keeps: Callable[[Path], bool] = _never,
    inherits: Iterable[str] = (),
) -> Iterator[Path]:
    """Build a folder beside ``out`` and give it that name when the block ends without error.

    On error, Ctrl-C included, what was written is removed and an older ``out`` stays. One process at a time
    makes ``out``; a second one is told, see :func:`alone`.

    Args:
        out: the folder's final name.
        overwrite: replace what stands there.
        continues: whether what an interruption left may be taken up.
        keeps: whether to leave it after an error, for a later call to take up.
        inherits: names in an older ``out`` that stay (logs of a training); they alone do not make it taken.

    Raises:
        SynBrainError: where ``out`` exists, is being made by another process, or cannot be written.
    """
    inherited = set(inherits)
    with alone(out), writing(out):
        there = {path.name for path in out.iterdir()} if out.is_dir() else set()
        require_absent(out, overwrite or (out.is_dir() and there <= inherited))
        building = out.with_name(f".{out.name}.partial")
        if building.exists() and not continues(building):
            shutil.rmtree(building)
        building.mkdir(exist_ok=True)
        try:
            yield building
        except BaseException:
            if not keeps(building):
                shutil.rmtree(building, ignore_errors=True)
            raise
        publish_folder(building, out, inherited)


def publish_folder(building: Path, out: Path, inherits: Iterable[str] = ()) -> None:
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
    for name in inherits:
        if (older / name).exists() and not (out / name).exists():
            os.replace(older / name, out / name)
    shutil.rmtree(older, ignore_errors=True)
