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
import pandas as pd
from numpy.typing import NDArray

from synbrain.data.dataset import RESPONSES
from synbrain.data.options import MissingTrials
from synbrain.data.scaling import SCALING_ARRAYS, find_gaps, scale_session
from synbrain.data.units import AnyScaling
from synbrain.errors import SynBrainError
from synbrain.files import (
    allocate_array,
    atomic_path,
    new_folder,
    open_array,
    read_json,
    write_json,
    writing,
)
from synbrain.prepare import betas
from synbrain.prepare.betas import BetaFile, Index
from synbrain.progress import bar

PLAN = "plan.json"
SHOWN = 5  # left-out trials that a note names
ROW_BLOCK = 1024


@dataclass(frozen=True)
class Session:
    """Trials that are scaled together: where they come from and where they go.

    Attributes:
        number: of this piece, 0-based; for z-scores the session, as in the trials table.
        session: the session, as in the trials table.
        runs: files one after another in time, each as parts side by side (file, voxels): one volume, or left
            and right hemisphere.
        kept: (n_kept,) which trials of the files, joined in time, are kept; ascending.
        fitting: (n_kept,) bool, which of these are training trials.
        first_row: the row of ``responses.npy`` that the first of them fills.
    """

    number: int
    session: int
    runs: tuple[tuple[tuple[BetaFile, Index], ...], ...]
    kept: NDArray[np.int64]
    fitting: NDArray[np.bool_]
    first_row: int

    def describe(self, position: int) -> str:
        """File and volume or map (1-based) of the kept trial ``position``, for messages."""
        trial = int(self.kept[position])
        for parts in self.runs:
            about = parts[0][0]
            if trial < about.n_trials:
                return f"{about.path.name} {about.trial_name} {trial + 1}"
            trial -= about.n_trials
        raise IndexError(position)


@dataclass(frozen=True)
class Reading:
    """How sessions are read.

    Attributes:
        kind: the unit to write.
        raw_per_percent: see :func:`synbrain.data.scaling.scale_session`.
        missing: "drop" leaves out trials without any data, "drop-partial" also those that lack values in some
            voxels, "refuse" neither.
        workers: sessions read at the same time.
    """

    kind: AnyScaling
    raw_per_percent: int | None = None
    missing: MissingTrials = "drop"
    workers: int = 1


@contextmanager
def resumable_folder(out: Path, plan: str, overwrite: bool = False) -> Iterator[Path]:
    """A folder beside ``out`` that an interruption leaves, and that a run with the same ``plan`` takes up.

    It takes the name ``out`` when the block ends without error.
    """
    with new_folder(
        out,
        overwrite,
        continues=lambda building: _is_of(building, plan),
        keeps=lambda building: any((building / "done").glob("*.json")),
    ) as building:
        yield building
        shutil.rmtree(building / "done")
        (building / PLAN).unlink(missing_ok=True)


def _is_of(building: Path, plan: str) -> bool:
    try:
        return bool(read_json(building / PLAN)["plan"] == plan)
    except (SynBrainError, KeyError, TypeError):
        return False


def write_sessions(
    building: Path,
    sessions: list[Session],
    n_voxels: int,
    plan: str,
    how: Reading,
    show_progress: bool = False,
) -> dict[str, Any]:
    """Write ``responses.npy`` and, for z-scores, ``scaling.npz``; tell what was noticed.

    A session that an interrupted run finished is not read again, unless its files have changed since. Workers
    are threads: decompression and indexing leave the interpreter's lock, so two of them use two cores. Rows
    of trials without data are NaN until :func:`drop_trials`.

    Args:
        building: from :func:`resumable_folder`.
        sessions: in the order of their rows.
        n_voxels: voxels of all parts together.
        plan: digest of everything that decides what the rows hold, but the betas.
        how: unit, and what to do about gaps.
        show_progress: show a bar of sessions.

    Returns:
        "missing_voxels" and "constant_in_session" (session number -> voxels, where there are any),
        "constant_voxels" (over the training trials of all sessions), and "missing_trials" (row -> file and
        volume).

    Raises:
        SynBrainError: where a file is damaged, or lacks values; finished sessions stay for the next run.
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
        "read betas", total=len(sessions), unit="file", show=show_progress,
        initial=len(sessions) - len(todo),
    )  # fmt: skip
    with shown, ThreadPoolExecutor(max(1, how.workers)) as pool:
        running = [pool.submit(_write_one, session, path, offset, done, how) for session in todo]
        try:
            for future in as_completed(running):
                future.result()
                shown.update(1)
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return _gather(building, done, sessions, how.kind)


def _stamp(session: Session) -> list[list[int]]:
    stats = [about.path.stat() for parts in session.runs for about, _ in parts]
    return [[stat.st_size, stat.st_mtime_ns] for stat in stats]


def _is_done(done: Path, session: Session) -> bool:
    note = done / f"{session.number:03d}.json"
    return note.exists() and read_json(note)["stamp"] == _stamp(session)


def _read(session: Session) -> NDArray[Any]:
    """(n_kept, n_voxels) as stored: files joined in time, parts side by side.

    A voxel that has no data in one file of several has none in the session.
    """
    joined, silent = [], []
    for parts in session.runs:
        values = [betas.read_masked(about, index)[0] for about, index in parts]
        joined.append(values[0] if len(values) == 1 else np.concatenate(values, axis=1))
        if len(session.runs) > 1 and len(joined[-1]) > 1 and joined[-1].dtype.kind == "f":
            lacking = ~np.isfinite(joined[-1]).any(axis=0)
            silent.append(lacking & ~lacking.all())
    whole: NDArray[Any] = joined[0] if len(joined) == 1 else np.concatenate(joined)
    if silent:
        whole[:, np.any(silent, axis=0)] = np.nan
    return whole if len(session.kept) == len(whole) else whole[session.kept]


def _without_data(session: Session, raw: NDArray[Any], missing: MissingTrials) -> NDArray[np.bool_]:
    """(n_kept,) trials to leave out; raises where they are not to be left out without being asked."""
    gaps, units = find_gaps(raw), session.runs[0][0][0].unit_names
    if missing == "drop-partial":
        return gaps.trials | gaps.partial
    refused, what = gaps.partial, f"lacks values (NaN) in some {units}"
    if missing == "refuse" and gaps.trials.any():
        refused, what = gaps.trials, "holds no data"
    if refused.any():
        first = int(np.flatnonzero(refused)[0])
        mend = (
            "--missing-trials drop to leave such trials out"
            if missing == "refuse"
            else f"--missing-trials drop-partial to leave such trials out, or a mask without those {units}"
        )
        raise SynBrainError(
            f"{session.describe(first)} {what} ({int(refused.sum())} such trials there)", f"pass {mend}"
        )
    if gaps.trials.all():
        raise SynBrainError(
            f"{session.describe(0)} and all other trials of its session hold no data", "leave the file out"
        )
    return gaps.trials


def _write_one(session: Session, path: Path, offset: int, done: Path, how: Reading) -> None:
    """Read, scale and write one session."""
    stamp, raw = _stamp(session), _read(session)
    absent = _without_data(session, raw, how.missing)
    fitting = session.fitting[~absent]
    scaled = scale_session(raw[~absent] if absent.any() else raw, how.kind, fitting, how.raw_per_percent)
    values = scaled.values
    if absent.any():
        values = np.full((len(absent), raw.shape[1]), np.nan, dtype=np.float32)
        values[~absent] = scaled.values
    del raw
    # plain writes, not a memory map: pages of a map count as this process's memory
    with writing(path), path.open("r+b") as handle:
        handle.seek(offset + session.first_row * values.shape[1] * 4)
        handle.write(np.ascontiguousarray(values).data)
        handle.flush()
        os.fsync(handle.fileno())
    used = scaled.values[fitting]
    low, high = used.min(axis=0, initial=np.inf), used.max(axis=0, initial=-np.inf)
    with atomic_path(done / f"{session.number:03d}.npz") as partial, partial.open("wb") as out:
        np.savez(
            out, mean=scaled.mean, sd=scaled.sd, low=low, high=high,
            missing=scaled.missing, constant=scaled.constant, absent=np.flatnonzero(absent),
        )  # fmt: skip
    write_json(done / f"{session.number:03d}.json", {"stamp": stamp})


def _gather(building: Path, done: Path, sessions: list[Session], kind: AnyScaling) -> dict[str, Any]:
    missing: dict[str, list[int]] = {}
    constant: dict[str, list[int]] = {}
    absent: dict[int, str] = {}
    extremes: dict[str, list[NDArray[np.float32]]] = {"mean": [], "sd": [], "low": [], "high": []}
    for session in sessions:
        with np.load(done / f"{session.number:03d}.npz", allow_pickle=False) as arrays:
            for name, voxels in (("missing", missing), ("constant", constant)):
                if len(arrays[name]):
                    there = voxels.get(str(session.session), [])
                    voxels[str(session.session)] = sorted({*there, *arrays[name].tolist()})
            for position in arrays["absent"]:
                absent[session.first_row + int(position)] = session.describe(int(position))
            for name, values in extremes.items():
                values.append(arrays[name])
    if kind == "session-zscore":
        numbers = np.array([session.session for session in sessions], dtype=np.int16)
        with atomic_path(building / SCALING_ARRAYS) as partial, partial.open("wb") as out:
            np.savez(out, session=numbers, mean=np.stack(extremes["mean"]), sd=np.stack(extremes["sd"]))
    still = np.flatnonzero(np.min(extremes["low"], axis=0) == np.max(extremes["high"], axis=0))
    return {
        "missing_voxels": missing,
        "constant_in_session": constant,
        "constant_voxels": [int(voxel) for voxel in still],
        "missing_trials": absent,
    }


def drop_trials(
    building: Path, absent: dict[int, str], trials: pd.DataFrame, images: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    """Leave trials without data out of the responses and the tables; images without any other trial too.

    Args:
        building: the folder whose ``responses.npy`` is shortened.
        absent: row -> file and volume, from :func:`write_sessions`.
        trials: one row per response row; ``image`` is a row of ``images``.
        images: name and split of each image.

    Returns:
        The shorter tables, with repeats counted anew, and a note that names what was left out.
    """
    if not absent:
        return trials, images, []
    kept = np.setdiff1d(np.arange(len(trials)), sorted(absent))
    names = images["name"].to_numpy()[trials["image"].to_numpy()]
    absences = [f"{where} ({names[row]})" for row, where in sorted(absent.items())]
    shown = ", ".join(absences[:SHOWN]) + (", ..." if len(absences) > SHOWN else "")
    note = f"{len(absences)} trial{'s' if len(absences) > 1 else ''} without data left out: {shown}"
    responses = open_array(building / RESPONSES)
    (building / PLAN).unlink(missing_ok=True)  # from here on, an interrupted run starts anew
    with atomic_path(building / RESPONSES) as partial:
        shorter = allocate_array(partial, (len(kept), responses.shape[1]), np.float32)
        for start in range(0, len(kept), ROW_BLOCK):
            shorter[start : start + ROW_BLOCK] = responses[kept[start : start + ROW_BLOCK]]
        shorter.flush()
        del shorter
    del responses
    trials = trials.iloc[kept].reset_index(drop=True)
    left, image_of = np.unique(trials["image"].to_numpy(), return_inverse=True)
    trials["image"] = image_of.astype(np.int32)
    trials["repeat"] = trials.groupby("image").cumcount().astype(np.int16)
    return trials, images.iloc[left].reset_index(drop=True), [note]
