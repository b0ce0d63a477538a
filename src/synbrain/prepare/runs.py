"""Which files of a BIDS tree are betas, and which trials their volumes show: events, or a design table."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from synbrain.data.tables import numbers, read_list, read_table
from synbrain.describe import counted
from synbrain.errors import SynBrainError
from synbrain.prepare.betas import describe
from synbrain.prepare.brain import Piece, parts_agree
from synbrain.prepare.entities import MATCHED, applicable, entities, matched, natural, order, walk
from synbrain.prepare.options import BidsOptions
from synbrain.prepare.surface import SUFFIXES, Hemispheres, is_beta_file, pairs

IMAGE_COLUMNS = ("stim_file", "stimulus", "image", "image_file", "trial_type")
BETA_PATTERNS = ("*_betas.nii*", "*_beta.nii*", "*desc-betas*.nii*", "*_statmap.nii*")
GLMSINGLE_PATTERNS = ("TYPED_*.hdf5", "TYPED_*.mat", "TYPED_*.npy")  # the first that there is
ON_SURFACES = (
    "*beta*",
    "*statmap*",
)  # of these the files whose suffix is of a surface, where there are no volumes
NO_IMAGE = ("n/a", "N/A")  # BIDS's word for a missing value; "NA" may be an image's name


@dataclass(frozen=True)
class Run:
    """Betas that are one piece in time, with the trials that their volumes show.

    Attributes:
        pieces: one, or one per trial, in the order of the trials; a file, or left and right hemisphere.
        kept: (n_trials,) the volumes that are trials, ascending.
        trials: image (name), ses (label), run (0-based or missing), and split where it is given.
    """

    pieces: tuple[Piece, ...]
    kept: NDArray[np.int64]
    trials: pd.DataFrame

    @property
    def name(self) -> str:
        first, last = self.pieces[0][0].path.name, self.pieces[-1][0].path.name
        return first if len(self.pieces) == 1 else f"{first} to {last}"


@dataclass(frozen=True)
class Source:
    """The betas of one subject with their trials.

    Attributes:
        who: the subject's label, without "sub-".
        runs: in order of session and run.
        events: the tables that name the images.
        notes: what was decided on the way.
    """

    who: str
    runs: list[Run]
    events: list[Path]
    notes: list[str]


def read_source(src: Path, options: BidsOptions) -> Source:
    """Find the betas of one subject and what their volumes show.

    Raises:
        SynBrainError: where betas or events lack, several could be meant, or their numbers do not fit.
    """
    if not src.is_dir():
        raise SynBrainError(f"{src} is no folder", "check SRC")
    all_events = list(walk(src, "*_events.tsv"))
    who, paths = _beta_files(src, options, all_events)
    stacks = stacks_of(paths, options.hemispheres)
    # a design counts the trials over files outside BIDS, whose names need not tell runs apart
    _require_one_of_each([s for s in stacks if options.design is None or matched(s[0][0].path)])
    if options.design is not None:
        return Source(
            who, _runs_of_design(stacks, options.design, options.image_column), [options.design], []
        )
    events = [path for path in all_events if matched(path).get("sub", who) == who]
    if not events:
        raise SynBrainError(
            f"{src} has no _events.tsv for sub-{who}",
            "add them beside the betas or above, or pass --design with a table of one line per volume",
        )
    runs, notes, used = [], list[str](), dict[Path, list[Path]]()
    for stack in stacks:
        tables = applicable({"sub": who} | matched(stack[0][0].path), events)
        for table in tables:
            used.setdefault(table, []).append(stack[0][0].path)
        runs.append(_run_of_events(stack, tables, options))
    for table, users in used.items():
        if len(users) > 1 and "run" in matched(table):
            raise SynBrainError(
                f"{table.name} belongs to {users[0].name} and to {users[1].name}",
                "pass --pattern that matches one of them",
            )
        if len(users) > 1:
            notes.append(f"{table.name} applies to {counted(len(users), 'file')} of betas")
    others = [] if options.pattern or runs[0].pieces[0][0].is_surface else surface_betas(src)
    if others:
        notes.append(f"the volumes are read, not {others[0].name}: --pattern chooses files of a surface")
    return Source(who, runs, list(used), notes)


def _beta_files(src: Path, options: BidsOptions, events: list[Path]) -> tuple[str, list[Path]]:
    """The subject's label and its files, in order of session and run."""
    pattern = options.pattern
    paths = list(walk(src, *([pattern] if pattern else BETA_PATTERNS)))
    for glmsingle in () if pattern else GLMSINGLE_PATTERNS:
        paths = paths or list(walk(src, glmsingle))
    if not paths and not pattern:
        paths = surface_betas(src)
    asked = None if options.subject is None else options.subject.removeprefix("sub-")
    labels = sorted({matched(path)["sub"] for path in paths if "sub" in matched(path)})
    if not labels:  # GLMsingle's files do not name the subject
        labels = sorted({matched(path)["sub"] for path in events if "sub" in matched(path)})
    if not paths:
        others = [] if pattern else list(walk(src, *(f"*{suffix}" for suffix in SUFFIXES)))
        raise SynBrainError(
            f"{src} has no betas like {pattern or ' or '.join((*BETA_PATTERNS, *GLMSINGLE_PATTERNS))}"
            + (f", but {others[0].name}" if others else ""),
            'pass --pattern, such as "*_betas.nii.gz" or "*_betas.func.gii" (matching both hemispheres); the '
            "files must lie below SRC",
        )
    if asked is not None and labels and asked not in labels:
        raise SynBrainError(f"{src} has no betas of sub-{asked}", f"pass --subject with one of {labels}")
    if asked is None and len(labels) > 1:
        raise SynBrainError(f"{src} has betas of the subjects {labels}", "pass --subject with one of them")
    who = asked or (labels[0] if labels else src.resolve().name)
    return who, sorted((path for path in paths if matched(path).get("sub", who) == who), key=order)


def surface_betas(src: Path) -> list[Path]:
    """Files below ``src`` that look like betas on a surface."""
    return [path for path in walk(src, *ON_SURFACES) if is_beta_file(path)]


def stacks_of(paths: list[Path], hemispheres: Hemispheres) -> list[tuple[Piece, ...]]:
    """Files that are one piece in time: each alone, but one-volume files numbered by trial together.

    Raises:
        SynBrainError: where a hemisphere is missing, or left and right hold other numbers of trials.
    """
    groups: dict[object, list[Piece]] = {}
    for beside in pairs(paths, hemispheres):
        piece = tuple(describe(path) for path in beside)
        parts_agree(piece)
        first = piece[0]
        key = (first.path.parent, _template(first.path)) if first.n_trials == 1 else first.path
        groups.setdefault(key, []).append(piece)
    return [tuple(_in_order(group)) if len(group) > 1 else (group[0],) for group in groups.values()]


def _template(path: Path) -> str:
    """The name with every number masked that does not tie the file to a session or run."""
    chunks = path.name.split("_")
    return "_".join(c if c.partition("-")[0] in MATCHED else re.sub(r"\d+", "#", c) for c in chunks)


def _in_order(pieces: list[Piece]) -> list[Piece]:
    """One-volume files by the number in which their names differ: it must count the trials."""
    counts, files = [], [piece[0] for piece in pieces]
    for about in files:
        free = [c for c in about.path.name.split("_") if c.partition("-")[0] not in MATCHED]
        counts.append([int(number) for number in re.findall(r"\d+", "_".join(free))])
    table = np.array(counts)
    differing = np.flatnonzero((table != table[0]).any(axis=0))
    numbers_there = table[:, differing[0]] if len(differing) == 1 else np.zeros(len(files), dtype=int)
    place = np.argsort(numbers_there, kind="stable")
    first = int(numbers_there.min())
    if first > 1 or not np.array_equal(numbers_there[place], np.arange(first, first + len(files))):
        raise SynBrainError(
            f"{files[0].path.name} and {len(files) - 1} more hold one volume each, but their names do not "
            "number the trials without gaps from 0 or 1",
            "name them by trial (trial-001, trial-002, ...), or join them into one 4D file",
        )
    return [pieces[i] for i in place]


def _require_one_of_each(stacks: list[tuple[Piece, ...]]) -> None:
    seen: dict[tuple[tuple[str, str], ...], Path] = {}
    for stack in stacks:
        path = stack[0][0].path
        other = seen.setdefault(tuple(sorted(matched(path).items())), path)
        if other != path:
            a, b = entities(other), entities(path)
            labels = sorted({f"{k}-{v}" for k, v in [*a.items(), *b.items()] if a.get(k) != b.get(k)})
            raise SynBrainError(
                f"{other.name} and {path.name} are betas of the same run"
                + (f"; they differ in {', '.join(labels)}" if labels else ""),
                "pass --pattern that matches one of them, such as "
                + (f'"*{labels[0]}*"' if labels else f'"*{"".join(other.suffixes)}"'),
            )


def _run_of_events(stack: tuple[Piece, ...], tables: list[Path], options: BidsOptions) -> Run:
    path = stack[0][0].path
    if not tables:
        raise SynBrainError(
            f"no _events.tsv belongs to {path.name}",
            "name both by the same entities, or pass --design with one line per volume",
        )
    trials = pd.concat([read_events(table, options) for table in tables], ignore_index=True)
    entities_of = matched(path)
    trials["ses"] = trials["ses"].mask(trials["ses"] == "", entities_of.get("ses", ""))
    if trials["run"].isna().all() and entities_of.get("run", "").isdigit():
        trials["run"] = pd.Series(int(entities_of["run"]) - 1, index=trials.index, dtype="Int16")
    n = n_trials(stack)
    what = stack[0][0].trial_name
    if len(trials) != n:
        files = f"{path.name} has" if len(stack) == 1 else f"{path.name} and {len(stack) - 1} more are"
        raise SynBrainError(
            f"{files} {counted(n, what)} for {counted(len(trials), 'trial')} in "
            f"{', '.join(table.name for table in tables)}",
            f"give one {what} per event that names an image, and n/a for other events",
        )
    return Run(stack, np.arange(n), trials)


def n_trials(stack: Sequence[Piece]) -> int:
    """How many trials pieces hold, one after another in time."""
    return sum(piece[0].n_trials for piece in stack)


def read_events(path: Path, options: BidsOptions) -> pd.DataFrame:
    """The events that name an image, in the order of the volumes: image, ses, run, and split if given.

    Raises:
        SynBrainError: where no column names images, or the events are not in the order of their onsets.
    """
    table = read_table(path, mend="write tab-separated columns: onset, duration, stim_file")
    chosen = options.image_column or next((name for name in IMAGE_COLUMNS if name in table), None)
    if chosen not in table:
        raise SynBrainError(
            f"{path} has no column {chosen or 'that names the image'}, but {list(table)}",
            "pass --image-column with one of these",
        )
    kept = table[table[chosen].notna() & ~table[chosen].isin(NO_IMAGE)]
    if options.trial_order != "table" and "onset" in kept:
        kept = _by_onset(kept, path, options.trial_order == "onset")
    there = matched(path)
    run = there.get("run", "")
    trials = pd.DataFrame({"image": kept[chosen].astype(str).to_numpy()})
    trials["ses"] = there.get("ses", "")
    trials["run"] = pd.Series(int(run) - 1 if run.isdigit() else pd.NA, index=trials.index, dtype="Int16")
    if "split" in kept:
        trials["split"] = kept["split"].to_numpy()
    return trials


def _by_onset(table: pd.DataFrame, path: Path, is_asked: bool) -> pd.DataFrame:
    onsets = numbers(table, "onset").to_numpy()
    if not np.isfinite(onsets).all():
        line = int(table.index[~np.isfinite(onsets)][0]) + 2
        raise SynBrainError(
            f"{path} line {line}: the onset is no number",
            "mend it, or pass --trial-order table if the volumes have the order of the lines",
        )
    if (np.diff(onsets) >= 0).all():
        return table
    if not is_asked:
        later = int(table.index[1:][np.diff(onsets) < 0][0]) + 2
        raise SynBrainError(
            f"{path} line {later}: the events are not in the order of their onsets, so the order of the "
            "volumes is not known",
            "pass --trial-order onset if the volumes follow time, or --trial-order table if they have the "
            "order of the lines",
        )
    return table.iloc[np.argsort(onsets, kind="stable")]


def _runs_of_design(stacks: Sequence[tuple[Piece, ...]], path: Path, column: str | None) -> list[Run]:
    """One line per volume over all files in order; lines without an image are volumes to leave out."""
    name = column or "image"
    total = sum(n_trials(stack) for stack in stacks)
    what = stacks[0][0][0].trial_name
    table = _design(path, name, total)
    if len(table) != total:
        raise SynBrainError(
            f"{path} has {counted(len(table), 'line')} for {counted(total, what)}",
            f"write one line per {what}, over all files in the order of session and run",
        )
    runs, start = [], 0
    for stack in stacks:
        n = n_trials(stack)
        part = table.iloc[start : start + n]
        start += n
        is_trial = (part[name].notna() & ~part[name].isin(NO_IMAGE)).to_numpy()
        part, entities_of = part[is_trial], matched(stack[0][0].path)
        trials = pd.DataFrame({"image": part[name].to_numpy()})
        trials["ses"] = part["session"].to_numpy() if "session" in part else entities_of.get("ses", "")
        run = numbers(part, "run").to_numpy() if "run" in part else np.full(len(part), np.nan)
        trials["run"] = pd.array(np.where(np.isfinite(run), run, np.nan), dtype="Float64").astype("Int16")
        if "split" in part:
            trials["split"] = part["split"].to_numpy()
        if len(trials):
            runs.append(Run(stack, np.flatnonzero(is_trial), trials))
    return runs


def _design(path: Path, column: str, total: int) -> pd.DataFrame:
    """A design table; or a plain list of as many names as there are volumes, without a line of columns."""
    if path.suffix in (".npy", ".npz", ".mat"):
        raise SynBrainError(
            f"{path} is no text",
            "write the image of every volume, one a line (docs/guide/layouts.md says how)",
        )
    lines = read_list(path) if path.suffix == ".txt" else []
    if len(lines) == total and lines[0] != column and not any("\t" in line for line in lines):
        return pd.DataFrame({column: lines})
    return read_table(path, (column,), "write one line per volume: image, and optionally session, run, split")


def session_numbers(runs: Sequence[Run]) -> list[NDArray[np.int16]]:
    """The 0-based session of every trial of each run, by the natural order of the labels."""
    labels = sorted({str(label) for run in runs for label in run.trials["ses"]}, key=natural)
    place = {label: number for number, label in enumerate(labels)}
    return [np.array([place[str(label)] for label in run.trials["ses"]], dtype=np.int16) for run in runs]


def columns_with_images(events: list[Path], names: set[str]) -> list[str]:
    """Columns of the first table most of whose values are among ``names``."""
    table = read_table(events[0])
    columns = {str(column): table[column].dropna() for column in table}
    return [name for name, values in columns.items() if len(values) and values.isin(names).mean() > 0.5]
