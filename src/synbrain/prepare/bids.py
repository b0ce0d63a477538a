"""Single-trial NIfTI betas with BIDS events and a mask (GLMsingle, fMRIPrep-style) to a dataset.

A file of betas (``sub-01_ses-02_task-x[_run-03]_betas.nii.gz``) belongs to the ``_events.tsv`` whose session,
task and run entities agree with its own; without a run entity, to all runs of the session in order. Its
volumes are the events that name an image, in order; events with ``n/a`` there are no trials.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from synbrain.data.dataset import (
    RESPONSES,
    Dataset,
    DatasetInfo,
    load_dataset,
    write_tables,
)
from synbrain.data.reliability import ncsnr_of
from synbrain.data.scaling import SCALING_ARRAYS, scaling_arrays
from synbrain.data.space import Atlas, VoxelSpace
from synbrain.data.tables import read_table
from synbrain.errors import SynBrainError
from synbrain.files import digest_of, open_array, require_replaceable
from synbrain.prepare import rois as nsd_rois
from synbrain.prepare.entities import entities, matched, walk
from synbrain.prepare.grid import Grid, is_turned, positions_in, with_affine
from synbrain.prepare.options import BidsOptions
from synbrain.prepare.pictures import check_images, files_below, stimuli_in
from synbrain.prepare.runs import Run, columns_with_images, read_source, session_numbers
from synbrain.prepare.sessions import Reading, Session, drop_trials, resumable_folder, write_sessions
from synbrain.prepare.split import images_folder, split_images
from synbrain.prepare.table import check_trials, index_images

DEFAULTS = BidsOptions()


def prepare_bids(
    src: str | Path,
    out: str | Path,
    *,
    options: BidsOptions = DEFAULTS,
    workers: int = 1,
    overwrite: bool = False,
    show_progress: bool = False,
) -> Dataset:
    """Make a dataset of betas with one volume per trial, events tables and a mask.

    Test images are those of a list, or of the events' column ``split``, or else drawn (``options``).

    Args:
        src: the folder to read, with its subfolders.
        out: the dataset folder to write.
        options: which files, and how the images are split.
        workers: files read at the same time.
        overwrite: replace a dataset that stands at ``out``.
        show_progress: show bars.

    Raises:
        SynBrainError: where files lack, are damaged, or do not fit together.
    """
    src, out, scaling = Path(src), Path(out), options.scaling
    require_replaceable(out, overwrite, inputs=[src])
    who, runs = (source := read_source(src, options)).who, source.runs
    folder = images_folder(src, options.images, ("stimuli", "images"))
    named, notes = _named_trials(runs, options)
    _require_images(folder, named, source.events)
    trials, table = index_images(check_trials(named, src))
    mask_path = options.mask if options.mask is not None else _only_mask(src, who)
    grid = with_affine(runs[0].files[0].place, [mask_path])
    index = _voxels_in(mask_path, grid)
    labels = nsd_rois.read_atlases(options.atlases or [], grid, index, src)
    sessions, turned = _plan(runs, index, grid, trials, scaling)
    notes = [*source.notes, *notes, *turned]
    pictures = check_images(folder, table, options, show_progress)
    plan, names = _digest_of_plan(sessions, trials, options), [f.path.name for run in runs for f in run.files]
    with resumable_folder(out, plan, overwrite) as building:
        how = Reading(scaling, 1, options.missing_trials, workers)
        report = write_sessions(building, sessions, len(index), plan, how, show_progress)
        trials, table, dropped = drop_trials(building, report["missing_trials"], trials, table)
        ncsnr, origin = ncsnr_of(open_array(building / RESPONSES), trials)
        name, is_z = f"sub-{who}", scaling == "session-zscore"
        info = DatasetInfo(
            name=name, subject=name, unit="z-score within session" if is_z else options.unit,
            n_trials=len(trials), n_voxels=len(index), n_images=len(table),
            stimuli=stimuli_in(folder, out, options),
            scaling={"kind": scaling, "raw_per_percent": 1} | ({"arrays": SCALING_ARRAYS} if is_z else {}),
            provenance={
                "reader": "bids", "source": src.resolve().name, "betas": names,
                "mask": mask_path.name, "ncsnr_from": origin and f"trials of the {origin} split",
                "pictures": pictures.summary, "notes": [*notes, *pictures.notes, *dropped], **report,
            },
        )  # fmt: skip
        space = _volume_space(runs, index, grid, labels, ncsnr)
        write_tables(building, info, trials, table, space, scaling_arrays(scaling))
    return load_dataset(out)


def _volume_space(
    runs: list[Run],
    index: NDArray[np.int64],
    grid: Grid,
    labels: dict[str, Atlas],
    ncsnr: NDArray[np.float32] | None,
) -> VoxelSpace:
    """Where the voxels ``index`` lie; in MNI space where the files' entities say so."""
    in_mni = entities(runs[0].files[0].path).get("space", "").startswith("MNI")
    return VoxelSpace(
        len(index), "volume", grid.shape, grid.affine, index.astype(np.int64), labels, ncsnr, in_mni=in_mni
    )  # fmt: skip


def _voxels_in(mask: Path, grid: Grid) -> NDArray[np.int64]:
    """Flat indices on the grid where ``mask`` is above 0."""
    index = np.flatnonzero(nsd_rois.load_flat((mask,), (grid,)) > 0)
    if len(index) == 0:
        raise SynBrainError(f"{mask} holds no voxel", "give a mask that is above 0 somewhere")
    return index


def _digest_of_plan(sessions: list[Session], trials: pd.DataFrame, options: BidsOptions) -> str:
    """Tells whether what an interruption left was going to be the same dataset.

    Which volumes are trials counts too: a design may be mended so that the same trials are other volumes.
    """
    read = hashlib.sha256(pd.util.hash_pandas_object(trials).to_numpy().tobytes())
    for session in sessions:
        for part in (session.kept, *(place for parts in session.runs for _, place in parts)):
            read.update(len(part).to_bytes(8) + np.ascontiguousarray(part, dtype=np.int64).tobytes())
    names = [about.path.name for session in sessions for parts in session.runs for about, _ in parts]
    about = {"scaling": options.scaling, "missing": options.missing_trials, "files": names}
    return digest_of(about | {"read": read.hexdigest()})


def _named_trials(runs: list[Run], options: BidsOptions) -> tuple[pd.DataFrame, list[str]]:
    """All trials in the order of the volumes: image (name), session, repeat, split, run; and notes."""
    trials = pd.concat([run.trials for run in runs], ignore_index=True)
    trials["session"] = np.concatenate(session_numbers(runs))
    trials["repeat"] = trials.groupby("image").cumcount()
    trials, notes = split_images(trials, options)
    return trials[["image", "session", "repeat", "split", "run"]], notes


def _require_images(folder: Path, trials: pd.DataFrame, events: list[Path]) -> None:
    """Raise where events name no files, with the column that does."""
    names = trials["image"].drop_duplicates()
    missing = [name for name in names if not (folder / name).is_file()]
    if len(missing) * 2 <= len(names):
        return  # most are there: :func:`check_images` says which are not
    there = set(files_below(folder))
    columns = columns_with_images(events, there)
    if columns:
        raise SynBrainError(
            f"{events[0].name} names no image files in the column that was read: {missing[0]!r} is not in "
            f"{folder}; its columns are {list(read_table(events[0]))}",
            f"pass --image-column {columns[0]}",
        )


def _only_mask(src: Path, who: str) -> Path:
    masks = [p for p in walk(src, "*_mask.nii*", "mask.nii*") if matched(p).get("sub", who) == who]
    if len(masks) == 1:
        return masks[0]
    if not masks:
        others = sorted(walk(src, "*mask*.nii*"))
        raise SynBrainError(
            f"{src} has no mask (*_mask.nii.gz or mask.nii.gz)",
            f"pass --mask {others[0]}, if that is it" if others else "pass --mask FILE",
        )
    shown = ", ".join(str(path.relative_to(src)) for path in masks[:6]) + (", ..." if len(masks) > 6 else "")
    raise SynBrainError(f"{src} has {len(masks)} masks: {shown}", "pass --mask with one of them")


def _plan(
    runs: list[Run], index: NDArray[np.int64], grid: Grid, trials: pd.DataFrame, scaling: str
) -> tuple[list[Session], list[str]]:
    """What is scaled together: each run by itself, or for z-scores all runs of a session.

    Every file is read in the orientation of ``grid``, and a note names one that was stored otherwise.
    """
    training = (trials["split"] == "train").to_numpy()
    session_of, run_sessions = trials["session"].to_numpy(), session_numbers(runs)
    starts = np.concatenate([[0], np.cumsum([len(run.trials) for run in runs])])
    places, turned = {}, []
    for about in (about for run in runs for about in run.files):
        positions = positions_in(about.place, grid)
        places[about.path] = positions[index]
        if is_turned(positions):
            turned.append(about.path.name)
    notes = [f"{len(turned)} files were stored with other axes, such as {turned[0]}"] if turned else []
    if grid.affine is None:
        notes.append("neither betas nor mask state where they lie: their shapes alone were compared")
    planned: list[Session] = []
    pieces: list[list[int]] = [[i] for i in range(len(runs))]
    numbers: list[int | None] = [None] * len(runs)
    if scaling == "session-zscore":
        numbers = [int(number) for number in np.unique(session_of)]
        pieces = [[i for i, own in enumerate(run_sessions) if (own == number).any()] for number in numbers]
    for piece, (number, members) in enumerate(zip(numbers, pieces, strict=True)):
        kept, rows, volumes = [], [], 0
        for i in members:
            here = np.ones(len(runs[i].trials), dtype=bool) if number is None else run_sessions[i] == number
            kept.append(volumes + runs[i].kept[here])
            rows.append(starts[i] + np.flatnonzero(here))
            volumes += sum(about.n_trials for about in runs[i].files)
        row = np.concatenate(rows)
        if not np.array_equal(row, np.arange(row[0], row[0] + len(row))):
            raise SynBrainError(
                f"the trials of session {session_of[row[0]]} do not follow one another in the files",
                "join the files session by session, or pass --scaling none",
            )
        files = [about for i in members for about in runs[i].files]
        planned.append(
            Session(
                number=piece,
                session=int(session_of[row[0]]),
                runs=tuple(((about, places[about.path]),) for about in files),
                kept=np.concatenate(kept),
                fitting=training[row],
                first_row=int(row[0]),
            )
        )
    return planned, notes
