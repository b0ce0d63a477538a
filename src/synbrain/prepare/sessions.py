"""Sessions of betas into a dataset's responses, one at a time, resumable, by several workers."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synbrain.data.dataset import RESPONSES
from synbrain.data.scaling import SCALING_ARRAYS, AnyScaling, scale_session
from synbrain.errors import SynBrainError
from synbrain.files import (
    allocate_array,
    atomic_path,
    open_array,
    publish_folder,
    read_json,
    telling_full_disk,
    write_json,
)
from synbrain.prepare import betas
from synbrain.prepare.betas import BetaFile, Index
from synbrain.progress import bar

PLAN = "plan.json"


@dataclass(frozen=True)
class Session:
    """Where one session's trials come from and where they go.

    Attributes:
        number: the session, 0-based, as in the trials table.
        parts: (file, voxels) side by side: one volume, or left and right hemisphere.
        kept: (n_kept,) which trials of the files are kept, ascending.
        fitting: (n_kept,) bool, which of these are training trials.
        first_row: the row of ``responses.npy`` that the first of them fills.
    """

    number: int
    parts: tuple[tuple[BetaFile, Index], ...]
    kept: NDArray[np.int64]
    fitting: NDArray[np.bool_]
    first_row: int


@contextmanager
def resumable_folder(out: Path, plan: str) -> Iterator[Path]:
    """A folder beside ``out`` that an interruption leaves, and that a run with the same ``plan`` takes up.

    It takes the name ``out`` when the block ends without error.
    """
    building = out.with_name(f".{out.name}.preparing")
    if building.exists() and not _is_of(building, plan):
        shutil.rmtree(building)
    building.mkdir(parents=True, exist_ok=True)
    try:
        with telling_full_disk(out):
            yield building
    except BaseException:
        if not any((building / "done").glob("*.json")):  # nothing that would be worth keeping
            shutil.rmtree(building, ignore_errors=True)
        raise
    shutil.rmtree(building / "done")
    (building / PLAN).unlink()
    publish_folder(building, out)


def _is_of(building: Path, plan: str) -> bool:
    try:
        return bool(read_json(building / PLAN)["plan"] == plan)
    except (SynBrainError, KeyError, TypeError):
        return False


def write_sessions(
    building: Path,
    sessions: list[Session],
    n_voxels: int,
    kind: AnyScaling,
    plan: str,
    *,
    raw_per_percent: int | None = None,
    workers: int = 1,
    show_progress: bool = False,
) -> dict[str, Any]:
    """Fill ``building/responses.npy`` (n_trials, n_voxels) float32 session by session.

    A session that an earlier run finished is not read again, unless its files have changed since. Workers
    are threads: decompression and indexing leave the interpreter's lock, so two of them use two cores.

    Args:
        building: from :func:`resumable_folder`.
        sessions: in the order of their rows.
        n_voxels: voxels of all parts together.
        kind: the unit to write.
        plan: digest of everything that decides what the rows hold, but the betas.
        raw_per_percent: see :func:`synbrain.data.scaling.scale_session`.
        workers: sessions read at the same time.
        show_progress: show a bar of sessions.

    Returns:
        "missing_voxels" and "constant_in_session" (session number -> voxels, where there are any), and
        "constant_voxels" (over the training trials of all sessions).

    Raises:
        SynBrainError: where a file is damaged; finished sessions stay for the next run.
    """
    path, done = building / RESPONSES, building / "done"
    if not _is_of(building, plan):
        n_trials = sum(len(session.kept) for session in sessions)
        array = allocate_array(path, (n_trials, n_voxels), np.float32)
        del array
        done.mkdir(exist_ok=True)
        write_json(building / PLAN, {"plan": plan})
    todo = [session for session in sessions if not _is_done(done, session)]
    offset = open_array(path).offset
    shown = bar(
        "read sessions", total=len(sessions), unit="session", show=show_progress,
        initial=len(sessions) - len(todo),
    )  # fmt: skip
    with shown, ThreadPoolExecutor(max(1, workers)) as pool:
        running = [
            pool.submit(_write_one, session, path, offset, done, kind, raw_per_percent) for session in todo
        ]
        try:
            for future in as_completed(running):
                future.result()
                shown.update(1)
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return _gather(building, done, sessions, kind)


def _stamp(session: Session) -> list[list[int]]:
    stats = [about.path.stat() for about, _ in session.parts]
    return [[stat.st_size, stat.st_mtime_ns] for stat in stats]


def _is_done(done: Path, session: Session) -> bool:
    note = done / f"{session.number:03d}.json"
    return note.exists() and read_json(note)["stamp"] == _stamp(session)


def _write_one(
    session: Session, path: Path, offset: int, done: Path, kind: AnyScaling, raw_per_percent: int | None
) -> None:
    """Read, scale and write one session."""
    stamp, raw = _stamp(session), []
    for about, index in session.parts:
        values, _ = betas.read_masked(about, index)
        raw.append(values if len(session.kept) == len(values) else values[session.kept])
    whole = raw[0] if len(raw) == 1 else np.concatenate(raw, axis=1)
    del raw
    scaled = scale_session(whole, kind, session.fitting, raw_per_percent)
    # plain writes, not a memory map: pages of a map count as this process's memory
    with telling_full_disk(path), path.open("r+b") as handle:
        handle.seek(offset + session.first_row * scaled.values.shape[1] * 4)
        handle.write(np.ascontiguousarray(scaled.values).data)
        handle.flush()
        os.fsync(handle.fileno())
    used = scaled.values[session.fitting]
    low, high = used.min(axis=0, initial=np.inf), used.max(axis=0, initial=-np.inf)
    with atomic_path(done / f"{session.number:03d}.npz") as partial, partial.open("wb") as out:
        np.savez(
            out, mean=scaled.mean, sd=scaled.sd, low=low, high=high,
            missing=scaled.missing, constant=scaled.constant,
        )  # fmt: skip
    write_json(done / f"{session.number:03d}.json", {"stamp": stamp})


def _gather(building: Path, done: Path, sessions: list[Session], kind: AnyScaling) -> dict[str, Any]:
    missing: dict[str, list[int]] = {}
    constant: dict[str, list[int]] = {}
    held: dict[str, list[NDArray[np.float32]]] = {"mean": [], "sd": [], "low": [], "high": []}
    for session in sessions:
        with np.load(done / f"{session.number:03d}.npz", allow_pickle=False) as arrays:
            for name, found in (("missing", missing), ("constant", constant)):
                if len(arrays[name]):
                    found[str(session.number)] = arrays[name].tolist()
            for name, values in held.items():
                values.append(arrays[name])
    if kind == "session-zscore":
        numbers = np.array([session.number for session in sessions], dtype=np.int16)
        with atomic_path(building / SCALING_ARRAYS) as partial, partial.open("wb") as out:
            np.savez(out, session=numbers, mean=np.stack(held["mean"]), sd=np.stack(held["sd"]))
    still = np.flatnonzero(np.min(held["low"], axis=0) == np.max(held["high"], axis=0))
    return {
        "missing_voxels": missing,
        "constant_in_session": constant,
        "constant_voxels": [int(voxel) for voxel in still],
    }
