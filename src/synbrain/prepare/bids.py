"""Single-trial NIfTI betas with BIDS events and a mask (GLMsingle, fMRIPrep-style) to a dataset."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from synbrain.data.dataset import (
    RESPONSES,
    Dataset,
    DatasetInfo,
    Stimuli,
    load_dataset,
    relative_to_dataset,
    write_tables,
)
from synbrain.data.reliability import ncsnr_of
from synbrain.data.scaling import SCALING_ARRAYS
from synbrain.data.space import Atlas, VoxelSpace
from synbrain.errors import SynBrainError
from synbrain.files import digest_of, open_array, require_replaceable
from synbrain.prepare import rois as nsd_rois
from synbrain.prepare.betas import BetaFile, describe
from synbrain.prepare.options import BidsOptions
from synbrain.prepare.sessions import Session, resumable_folder, write_sessions
from synbrain.prepare.table import check_images, check_trials, index_images

IMAGE_COLUMNS = ("stim_file", "stimulus", "image", "image_file", "trial_type")
BETA_PATTERNS = ("*_betas.nii*", "*_beta.nii*", "*desc-betas*.nii*", "*_statmap.nii*")
MATCHED = ("ses", "task", "acq", "dir", "run")  # entities that tie events to betas


@dataclass(frozen=True)
class Run:
    """One file of betas with the trials that its volumes show, in order."""

    about: BetaFile
    trials: pd.DataFrame


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

    A file of betas (``sub-01_ses-02_task-x[_run-03]_betas.nii.gz``) belongs to the ``_events.tsv`` whose
    session, task and run entities agree with its own; without a run entity, to all runs of the session in
    order. Its volumes are the events that name an image, in order; events with ``n/a`` there are no trials.

    The split is the events' column ``split`` where there is one, or the list ``options.test_images``, or else
    ``options.test_fraction`` of the images, drawn with ``options.seed``.

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
    beta_files = _beta_files(src, options.subject, options.pattern)
    who = entities(beta_files[0]).get("sub", options.subject or src.resolve().name)
    runs = _read_runs(src, beta_files, who, options.image_column)
    _require_one_grid(runs)
    folder = _images_folder(src, options.images)
    named, notes = _named_trials(runs, options.test_images, options.test_fraction, options.seed)
    trials, table = index_images(check_trials(named, src))
    check_images(folder, table, show_progress)
    grid = runs[0].about.grid
    mask_path = options.mask if options.mask is not None else _only_mask(src, who)
    values, affine = nsd_rois.load_flat((mask_path,), (grid,))
    index = np.flatnonzero(values > 0)
    if len(index) == 0:
        raise SynBrainError(f"{mask_path} holds no voxel", "give a mask that is above 0 somewhere")
    labels = _atlases(options.atlases or [], grid, index, src)
    sessions = _plan(runs, index, trials, scaling)
    hashes = [
        hashlib.sha256(part.tobytes()).hexdigest()
        for part in (index, pd.util.hash_pandas_object(trials).to_numpy())
    ]
    plan = digest_of({"scaling": scaling, "files": [path.name for path in beta_files], "hashes": hashes})
    with resumable_folder(out, plan) as building:
        report = write_sessions(
            building, sessions, len(index), scaling, plan,
            raw_per_percent=1, workers=workers, show_progress=show_progress,
        )  # fmt: skip
        ncsnr, origin = ncsnr_of(open_array(building / RESPONSES), trials)
        is_z = scaling == "session-zscore"
        info = DatasetInfo(
            name=f"sub-{who}",
            subject=f"sub-{who}",
            unit="z-score within session" if is_z else options.unit,
            n_trials=len(trials),
            n_voxels=len(index),
            n_images=len(table),
            stimuli=Stimuli(kind="folder", path=relative_to_dataset(folder, out)),
            scaling={"kind": scaling, "raw_per_percent": 1} | ({"arrays": SCALING_ARRAYS} if is_z else {}),
            provenance={
                "reader": "bids", "source": src.resolve().name, "betas": [path.name for path in beta_files],
                "mask": mask_path.name, "ncsnr_from": origin and f"trials of the {origin} split",
                "notes": notes, **report,
            },
        )  # fmt: skip
        space = VoxelSpace(
            len(index), "volume", grid, np.asarray(affine, np.float64), index.astype(np.int64), labels, ncsnr
        )
        write_tables(building, info, trials, table, space, [SCALING_ARRAYS] if is_z else [])
    return load_dataset(out)


def entities(path: Path) -> dict[str, str]:
    """BIDS entities of a file name: ``sub-01_ses-02_events.tsv`` -> {"sub": "01", "ses": "02"}."""
    return dict(re.findall(r"(?:^|_)([a-zA-Z]+)-([a-zA-Z0-9+]+)", path.name))


def _order(path: Path) -> tuple[tuple[int, str], ...]:
    """Sorts sessions and runs by number where they are numbers."""
    found = entities(path)
    return tuple(
        (int(v) if v.isdigit() else 0, v) for v in (found.get(key, "") for key in ("ses", "task", "run"))
    )


def _beta_files(src: Path, subject: str | None, pattern: str | None) -> list[Path]:
    if not src.is_dir():
        raise SynBrainError(f"{src} is no folder", "check SRC")
    patterns = [pattern] if pattern else BETA_PATTERNS
    found = {path for each in patterns for path in src.rglob(each)}
    subjects = {entities(path).get("sub") for path in found}
    if subject is not None:
        wanted = subject.removeprefix("sub-")
        found = {path for path in found if entities(path).get("sub", wanted) == wanted}
    elif len(subjects) > 1:
        raise SynBrainError(
            f"{src} has betas of the subjects {sorted(map(str, subjects))}", "pass --subject with one of them"
        )
    if not found:
        raise SynBrainError(
            f"{src} has no betas like {' or '.join(patterns)}",
            'pass --pattern, such as "*_betas.nii.gz", or check --subject',
        )
    return sorted(found, key=lambda path: (_order(path), path.name))


def _read_runs(src: Path, beta_files: list[Path], who: str, column: str | None) -> list[Run]:
    """Every file of betas with its trials: image, session, run."""
    events = [path for path in src.rglob("*_events.tsv") if entities(path).get("sub", who) == who]
    session_names = sorted({_order(path)[0] for path in beta_files})
    used: dict[Path, Path] = {}
    runs = []
    for path in beta_files:
        own = entities(path)
        matching = [
            event
            for event in sorted(events, key=_order)
            if all(own[key] == entities(event).get(key, own[key]) for key in MATCHED if key in own)
        ]
        if not matching:
            raise SynBrainError(f"no _events.tsv belongs to {path.name}", "name both by the same entities")
        for event in matching:
            if event in used:
                raise SynBrainError(
                    f"{event.name} belongs to {used[event].name} and to {path.name}",
                    "pass --pattern that matches one of them",
                )
            used[event] = path
        trials = pd.concat([_read_events(event, column) for event in matching], ignore_index=True)
        about = describe(path)
        if len(trials) != about.n_trials:
            raise SynBrainError(
                f"{path.name} has {about.n_trials} volumes for {len(trials)} trials in "
                f"{', '.join(event.name for event in matching)}",
                "give one volume per event that names an image, and n/a for other events",
            )
        trials["session"] = session_names.index(_order(path)[0])
        runs.append(Run(about, trials))
    return runs


def _read_events(path: Path, column: str | None) -> pd.DataFrame:
    try:
        table = pd.read_csv(path, sep="\t", dtype=str)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise SynBrainError(f"{path} is no table ({error})", "write tab-separated columns") from error
    chosen = column or next((name for name in IMAGE_COLUMNS if name in table), None)
    if chosen not in table:
        raise SynBrainError(
            f"{path} has no column {chosen or 'that names the image'}, but {list(table)}",
            "pass --image-column with one of these",
        )
    kept = table[table[chosen].notna()]
    trials = pd.DataFrame({"image": kept[chosen].astype(str)})
    run = entities(path).get("run", "")
    trials["run"] = pd.Series(int(run) - 1 if run.isdigit() else pd.NA, index=trials.index, dtype="Int16")
    if "split" in kept:
        trials["split"] = kept["split"]
    return trials


def _named_trials(
    runs: list[Run], test_images: str | Path | None, fraction: float, seed: int
) -> tuple[pd.DataFrame, list[str]]:
    """All trials in the order of the volumes: image (name), session, repeat, split, run; and notes."""
    trials = pd.concat([run.trials for run in runs], ignore_index=True)
    trials["repeat"] = trials.groupby("image").cumcount()
    names = np.unique(trials["image"].to_numpy(dtype=str))
    notes: list[str] = []
    if test_images is not None:
        path = Path(test_images)
        if not path.is_file():
            raise SynBrainError(f"{path} is missing", "write the test images' names, one a line")
        chosen = set(path.read_text(encoding="utf-8").split("\n")) - {""}
        unknown = chosen - set(names)
        if unknown:
            raise SynBrainError(
                f"{len(unknown)} test images were never shown, such as {min(unknown)}", f"mend {path}"
            )
        trials["split"] = np.where(trials["image"].isin(chosen), "test", "train")
    elif "split" not in trials:
        n_test = round(fraction * len(names))
        chosen = set(np.random.default_rng(seed).permutation(names)[:n_test])
        trials["split"] = np.where(trials["image"].isin(chosen), "test", "train")
        notes.append(f"no split was given: {n_test} of {len(names)} images were drawn as test, seed {seed}")
    return trials[["image", "session", "repeat", "split", "run"]], notes


def _require_one_grid(runs: list[Run]) -> None:
    first = runs[0].about
    for run in runs:
        if run.about.grid != first.grid:
            raise SynBrainError(
                f"{run.about.path.name} has grid {run.about.grid}, {first.path.name} has {first.grid}",
                "resample them to one grid, or pass --pattern that matches one space",
            )


def _images_folder(src: Path, images: str | Path | None) -> Path:
    candidates = [Path(images)] if images is not None else [src / "stimuli", src / "images"]
    for folder in candidates:
        if folder.is_dir():
            return folder
    raise SynBrainError(f"{candidates[0]} is no folder", "pass --images with the folder of the stimuli")


def _only_mask(src: Path, who: str) -> Path:
    found = [p for p in sorted(src.rglob("*_mask.nii*")) if entities(p).get("sub", who) == who]
    if len(found) != 1:
        raise SynBrainError(f"{src} has {len(found)} masks (*_mask.nii.gz)", "pass --mask FILE")
    return found[0]


def _atlases(
    files: list[Path], grid: tuple[int, ...], index: NDArray[np.int64], root: Path
) -> dict[str, Atlas]:
    made = {}
    for path in map(Path, files):
        found = entities(path)
        stem = path.name.removesuffix(".gz").removesuffix(".nii")
        name = found.get("atlas") or found.get("seg") or stem
        labels = nsd_rois.load_map(stem, (path,), (grid,))
        if labels is None:
            raise SynBrainError(f"{path} is no label volume", "give whole numbers, one a region")
        made[name] = nsd_rois.make_atlas(labels, index, [], root)
    return made


def _plan(runs: list[Run], index: NDArray[np.int64], trials: pd.DataFrame, scaling: str) -> list[Session]:
    training = (trials["split"] == "train").to_numpy()
    numbers: list[Any] = [int(run.trials["session"].iloc[0]) for run in runs]
    if scaling == "session-zscore" and len(set(numbers)) < len(runs):
        raise SynBrainError(
            "z-scoring within a session needs one file of betas per session",
            "join the runs of a session, or pass --scaling none",
        )
    if scaling == "none":
        numbers = list(range(len(runs)))
    planned, row = [], 0
    for number, run in zip(numbers, runs, strict=True):
        n = run.about.n_trials
        planned.append(
            Session(number, ((run.about, index),), np.arange(n), training[row : row + n], first_row=row)
        )
        row += n
    return planned
