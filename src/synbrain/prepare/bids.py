"""Single-trial betas with BIDS events (GLMsingle, fMRIPrep-style), volumes or surfaces, to a dataset.

A file of betas (``sub-01_ses-02_task-x[_run-03]_betas.nii.gz``) belongs to the ``_events.tsv`` whose session,
task and run entities agree with its own; without a run entity, to all runs of the session in order. Its
volumes are the events that name an image, in order; events with ``n/a`` there are no trials. Maps of
a surface (``_hemi-L_betas.func.gii`` and ``_hemi-R_``, ``.mgh``) and of CIFTI are taken like volumes.
"""

from __future__ import annotations

from dataclasses import replace
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
from synbrain.data.space import VoxelSpace
from synbrain.data.tables import read_table
from synbrain.errors import SynBrainError
from synbrain.files import open_array, require_replaceable
from synbrain.prepare import rois as nsd_rois
from synbrain.prepare.entities import entities, matched, walk
from synbrain.prepare.grid import Grid, is_turned, positions_in, with_affine
from synbrain.prepare.options import BidsOptions
from synbrain.prepare.pictures import check_images, files_below, stimuli_in
from synbrain.prepare.plan import (
    Parts,
    Taken,
    digest_of_plan,
    names_of,
    on_surface,
    only_surface_mask,
    plan_sessions,
    several_masks,
)
from synbrain.prepare.runs import Run, columns_with_images, read_source, session_numbers
from synbrain.prepare.sessions import Reading, drop_trials, resumable_folder, write_sessions
from synbrain.prepare.split import images_folder, split_images
from synbrain.prepare.trials import check_trials, index_images

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
    """Make a dataset of betas with one volume (or surface map) per trial, events tables and a mask.

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
    place = _surface_place if runs[0].pieces[0][0].is_surface else _volume_place
    taken = place(src, who, runs, options)
    sessions = plan_sessions(runs, taken.parts, trials, scaling)
    notes = [*source.notes, *notes, *taken.notes]
    pictures = check_images(folder, table, options, show_progress)
    plan, names = digest_of_plan(sessions, trials, scaling, options.missing_trials), names_of(runs)
    with resumable_folder(out, plan, overwrite) as building:
        how = Reading(scaling, 1, options.missing_trials, workers)
        report = write_sessions(building, sessions, taken.n_columns, plan, how, show_progress)
        trials, table, dropped = drop_trials(building, report["missing_trials"], trials, table)
        ncsnr, origin = ncsnr_of(open_array(building / RESPONSES), trials)
        name, is_z = f"sub-{who}", scaling == "session-zscore"
        info = DatasetInfo(
            name=name, subject=name, unit="z-score within session" if is_z else options.unit,
            n_trials=len(trials), n_voxels=taken.n_columns, n_images=len(table),
            stimuli=stimuli_in(folder, out, options),
            scaling={"kind": scaling, "raw_per_percent": 1} | ({"arrays": SCALING_ARRAYS} if is_z else {}),
            provenance={
                "reader": "bids", "source": src.resolve().name, "betas": names,
                "mask": taken.mask, "ncsnr_from": origin and f"trials of the {origin} split",
                "pictures": pictures.summary, "notes": [*notes, *pictures.notes, *dropped], **report,
            },
        )  # fmt: skip
        space = replace(taken.space, ncsnr=ncsnr)
        write_tables(building, info, trials, table, space, scaling_arrays(scaling))
    return load_dataset(out)


def _volume_place(src: Path, who: str, runs: list[Run], options: BidsOptions) -> Taken:
    """The voxels of the mask; in MNI space where the files' entities say so."""
    mask = options.mask if options.mask is not None else _only_mask(src, who)
    first = runs[0].pieces[0][0]
    grid = with_affine(first.place, [mask])
    index = _voxels_in(mask, grid)
    labels = nsd_rois.read_atlases(options.atlases or [], grid, index, src)
    in_mni = entities(first.path).get("space", "").startswith("MNI")
    space = VoxelSpace(
        len(index), "volume", grid.shape, grid.affine, index.astype(np.int64), labels, in_mni=in_mni
    )
    parts: dict[Path, Parts] = {}
    turned = []
    for (about,) in (piece for run in runs for piece in run.pieces):
        positions = positions_in(about.place, grid)
        parts[about.path] = ((about, positions[index]),)
        if is_turned(positions):
            turned.append(about.path.name)
    notes = [f"{len(turned)} files were stored with other axes, such as {turned[0]}"] if turned else []
    if grid.affine is None:
        notes.append("neither betas nor mask state where they lie: their shapes alone were compared")
    return Taken(space, parts, mask.name, notes)


def _surface_place(src: Path, who: str, runs: list[Run], options: BidsOptions) -> Taken:
    """The vertices of the mask, or all of them."""
    mask = options.mask if options.mask is not None else only_surface_mask(src, who, options.hemispheres)
    pieces = [piece for run in runs for piece in run.pieces]
    return on_surface(pieces, mask, options.atlases or [], options)


def _voxels_in(mask: Path, grid: Grid) -> NDArray[np.int64]:
    """Flat indices on the grid where ``mask`` is above 0."""
    index = np.flatnonzero(nsd_rois.load_flat((mask,), (grid,)) > 0)
    if len(index) == 0:
        raise SynBrainError(f"{mask} holds no voxel", "give a mask that is above 0 somewhere")
    return index


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
    raise several_masks(src, masks)
