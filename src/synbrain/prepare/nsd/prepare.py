"""A subject of the Natural Scenes Dataset, or of a tree in its layout, to a dataset."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from synbrain.data.dataset import (
    RESPONSES,
    Dataset,
    DatasetInfo,
    NsdOrigin,
    Stimuli,
    load_dataset,
    relative_to_dataset,
    write_tables,
)
from synbrain.data.pictures import array_to_rgb
from synbrain.data.reliability import ncsnr_of
from synbrain.data.scaling import (
    RAW_PER_PERCENT,
    REFERENCE_DIVISOR,
    SCALING_ARRAYS,
    scaling_arrays,
)
from synbrain.data.space import VoxelSpace
from synbrain.data.units import UNITS, ScalingKind
from synbrain.describe import counted
from synbrain.errors import SynBrainError, unreadable
from synbrain.files import digest_of, open_array, require_replaceable
from synbrain.prepare.betas import BetaFile, describe
from synbrain.prepare.grid import positions_in
from synbrain.prepare.nsd import layout as nsd_layout
from synbrain.prepare.nsd import trials as nsd_trials
from synbrain.prepare.nsd.layout import subject_name
from synbrain.prepare.nsd.options import NsdOptions
from synbrain.prepare.nsd.trials import Design
from synbrain.prepare.nsd.voxels import ChosenVoxels, choose_voxels, voxel_space
from synbrain.prepare.sessions import Reading, Session, drop_trials, resumable_folder, write_sessions

DEFAULTS = NsdOptions()
CHOICES = {"betas", "space", "scaling", "missing_trials", "test_set", "repeats", "other_shared"}


def prepare_nsd(
    src: str | Path,
    out: str | Path,
    *,
    subject: int | str,
    options: NsdOptions = DEFAULTS,
    workers: int = 1,
    overwrite: bool = False,
    show_progress: bool = False,
) -> Dataset:
    """Make a dataset of one subject of a tree in NSD's layout.

    Sessions are streamed; after an interruption the same call goes on at the next one. Voxels without data in
    some session, and voxels that never vary, are kept and listed in ``info.provenance``.

    Args:
        src: the root, in which ``nsddata`` and ``nsddata_betas`` lie.
        out: the dataset folder to write.
        subject: 1 to 8 in NSD; subj01 is understood, too.
        options: which betas, voxels and trials.
        workers: sessions read at the same time.
        overwrite: replace a dataset that stands at ``out``.
        show_progress: show a bar of sessions.

    Raises:
        SynBrainError: where files lack, are damaged, or do not fit together.
    """
    src, out = Path(src), Path(out)
    require_replaceable(out, overwrite, inputs=[src])
    subject = nsd_layout.subject_number(subject)
    betas, space, scaling = options.betas, options.space, options.scaling
    design = nsd_trials.read_design(src)
    sessions = nsd_layout.find_sessions(src, subject, space, betas, options.sessions)
    files = [tuple(describe(path) for path in paths) for paths in sessions]
    per_session = _trials_per_session(files)
    seen, notes = _seen_trials(src, design, subject, len(files), per_session, options)
    trials, images = _tables(seen)
    grid, maps = choose_voxels(src, subject, space, files[0], options.mask, options.rois)
    stimuli, of_stimuli = _stimuli(src, out, images)
    notes += of_stimuli + _compare_with_published(design, subject, space, len(files), grid)
    plan_of = _plan_sessions(files, grid, np.flatnonzero(seen["split"].notna()), trials, per_session)
    about = {"subject": subject, "mask": grid.mask} | options.model_dump(include=CHOICES)
    content = {"index": _hash(grid.index), "trials": _hash(pd.util.hash_pandas_object(trials))}
    plan = digest_of(about | content)
    with resumable_folder(out, plan, overwrite) as building:
        how = Reading(scaling, missing=options.missing_trials, workers=workers)
        report = write_sessions(building, plan_of, len(grid.index), plan, how, show_progress)
        trials, images, dropped = drop_trials(building, report["missing_trials"], trials, images)
        bare = voxel_space(src, subject, space, betas, grid, maps)
        voxels, ncsnr_from = _with_ncsnr(bare, building / RESPONSES, trials)
        made = {"n_sessions": len(files), "ncsnr_from": ncsnr_from, "notes": notes + dropped}
        info = DatasetInfo(
            name=f"nsd-{subject_name(subject)}", subject=subject_name(subject), unit=UNITS[scaling],
            n_trials=len(trials), n_voxels=len(grid.index), n_images=len(images),
            trials_per_session=per_session, scaling=_scaling_note(scaling, files[0][0].is_integer),
            stimuli=stimuli, nsd=NsdOrigin(subject=subject, n_sessions=len(files)) if design.is_nsd else None,
            provenance={"reader": "nsd", **about, **made, **report},
        )  # fmt: skip
        write_tables(building, info, trials, images, voxels, scaling_arrays(scaling))
    return load_dataset(out)


def _seen_trials(
    src: Path, design: Design, subject: int, n_sessions: int, per_session: int, options: NsdOptions
) -> tuple[pd.DataFrame, list[str]]:
    """All trials of the sessions in order, with the split of those that are kept; and notes."""
    completed = _completed_sessions(src, design, options.space, options.betas, per_session)
    seen = nsd_trials.seen_trials(src, design, subject, n_sessions, per_session)
    test_ids, notes = nsd_trials.select_test(design, options.test_set, completed, per_session)
    split, more = nsd_trials.assign_split(
        seen, test_ids, _planned(design, subject, test_ids),
        options.repeats, options.other_shared, subject_name(subject),
    )  # fmt: skip
    return seen.assign(split=split), [*notes, *more]


def _with_ncsnr(voxels: VoxelSpace, responses: Path, trials: pd.DataFrame) -> tuple[VoxelSpace, str | None]:
    """The voxels with the published ncsnr, or one that is computed from repeats; and where it is from."""
    if voxels.ncsnr is not None:
        return voxels, "file"
    ncsnr, origin = ncsnr_of(open_array(responses), trials)
    return replace(voxels, ncsnr=ncsnr), origin and f"trials of the {origin} split"


def _trials_per_session(files: list[tuple[BetaFile, ...]]) -> int:
    """Trials in each session; all files must agree on it and on their grids."""
    usual = Counter(about.n_trials for parts in files for about in parts).most_common(1)[0][0]
    for parts in files:
        for about, first in zip(parts, files[0], strict=True):
            if about.n_trials != usual:
                raise SynBrainError(
                    f"{about.path} has {about.n_trials} trials, the other sessions have {usual}",
                    "it was cut short or is another experiment's: download it again",
                )
            if about.grid != first.grid:
                raise SynBrainError(
                    f"{about.path} has grid {about.grid}, {first.path.name} has {first.grid}",
                    "use the betas of one subject and space",
                )
    return int(usual)


def _completed_sessions(src: Path, design: Design, space: str, betas: str, per_session: int) -> list[int]:
    """How many sessions each subject completed: NSD's published numbers, or what lies in the tree.

    A subject of another tree whose betas are not there counts as having completed all that was planned.
    """
    if design.is_nsd:
        return list(nsd_layout.SESSIONS)
    planned = len(design.ordering) // per_session
    counts = []
    for subject in range(1, len(design.images) + 1):
        files = nsd_layout.session_files(nsd_layout.betas_folder(src, subject, space, betas), space)
        counts.append(len(files) or planned)
    return counts


def _planned(design: Design, subject: int, test_ids: NDArray[np.int64]) -> dict[int, int]:
    own = {int(nsd_id): row for row, nsd_id in enumerate(design.images[subject - 1])}
    counts = design.planned()
    lacking = [int(i) for i in test_ids if int(i) not in own]
    if lacking:
        raise SynBrainError(
            f"{len(lacking)} shared images are not planned for {subject_name(subject)}",
            "use nsd_expdesign.mat of the same tree",
        )
    return {int(i): int(counts[own[int(i)]]) for i in test_ids}


def _tables(seen: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Kept trials with their image's row, and images by 73k id."""
    kept = seen[seen["split"].notna()].reset_index(drop=True)
    columns = ["nsd_id", "coco_id", "shared1000", "split"]
    images = kept[columns].drop_duplicates("nsd_id").sort_values("nsd_id", ignore_index=True)
    row_of = pd.Series(np.arange(len(images), dtype=np.int32), index=images["nsd_id"])
    kept.insert(0, "image", row_of.loc[kept["nsd_id"]].to_numpy())
    images.insert(0, "name", [f"nsd-{number:05d}" for number in images["nsd_id"]])
    images.insert(1, "row", images["nsd_id"].astype(np.int32))
    order = ["image", "session", "run", "repeat", "split", "nsd_id", "coco_id", "shared1000"]
    return kept[order], images


def _plan_sessions(
    files: list[tuple[BetaFile, ...]],
    grid: ChosenVoxels,
    rows_kept: NDArray[np.int64],
    trials: pd.DataFrame,
    per_session: int,
) -> list[Session]:
    training = (trials["split"] == "train").to_numpy()
    planned = []
    for number, paths in enumerate(files):
        here = np.flatnonzero(rows_kept // per_session == number)
        if len(here) == 0:
            continue
        places = [
            positions_in(about.place, place)[part]
            for about, place, part in zip(paths, grid.grids, grid.parts(), strict=True)
        ]
        planned.append(
            Session(
                number=number,
                session=number,
                runs=(tuple(zip(paths, places, strict=True)),),
                kept=rows_kept[here] - number * per_session,
                fitting=training[here],
                first_row=int(here[0]),
            )
        )
    return planned


def _stimuli(src: Path, out: Path, images: pd.DataFrame) -> tuple[Stimuli, list[str]]:
    path = src / nsd_layout.STIMULI
    stimuli = Stimuli(kind="hdf5", path=relative_to_dataset(path, out), key=nsd_layout.STIMULI_KEY)
    if not path.exists():
        return stimuli, [f"the stimuli are missing: download {nsd_layout.STIMULI} before `synbrain features`"]
    try:
        with h5py.File(path, "r") as file:
            shape, first = file[nsd_layout.STIMULI_KEY].shape, file[nsd_layout.STIMULI_KEY][0]
    except (OSError, KeyError) as error:
        raise unreadable(path, error, "download it again") from error
    array_to_rgb(first, name=f"picture 0 of {path}")  # raises where it holds no pictures
    n_images = shape[0]
    if int(images["row"].max()) >= n_images:
        raise SynBrainError(
            f"{path} has {counted(n_images, 'image')}, the trials show number {int(images['row'].max())}",
            "use the stimuli and nsd_expdesign.mat of the same tree",
        )
    summary = f"{counted(n_images, 'picture')} in HDF5: {first.dtype}, {shape[2]} x {shape[1]} pixels"
    return stimuli, [summary]


def _compare_with_published(
    design: Design, subject: int, space: str, n_sessions: int, grid: ChosenVoxels
) -> list[str]:
    """Notes on counts that differ from NSD's published ones; none for a tree with another design."""
    if not design.is_nsd:
        return []
    notes, row = [], subject - 1
    if n_sessions > nsd_layout.SESSIONS[row]:
        notes.append(f"{n_sessions} sessions, {nsd_layout.SESSIONS[row]} are published")
    if space == "func1pt8mm" and grid.grids[0].shape != nsd_layout.SHAPES[row]:
        notes.append(f"grid {grid.grids[0].shape}, {nsd_layout.SHAPES[row]} is published")
    expected = nsd_layout.NSDGENERAL_VOXELS[row]
    if space == "func1pt8mm" and grid.mask == "nsdgeneral" and len(grid.index) != expected:
        notes.append(f"nsdgeneral has {len(grid.index)} voxels, {expected} are published")
    return notes


def _scaling_note(kind: ScalingKind, is_integer: bool) -> dict[str, Any]:
    """What dataset.json says about the unit; :func:`synbrain.data.scaling.invert` undoes it."""
    raw = RAW_PER_PERCENT if is_integer else 1
    note: dict[str, Any] = {"kind": kind, "raw": "integer" if is_integer else "float", "raw_per_percent": raw}
    if kind == "reference":
        note["raw_per_unit"] = REFERENCE_DIVISOR * raw / RAW_PER_PERCENT
    if kind == "session-zscore":
        note["arrays"] = SCALING_ARRAYS
    return note


def _hash(values: Iterable[Any]) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()
