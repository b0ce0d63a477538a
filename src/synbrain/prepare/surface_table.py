"""Responses of a table that lie in surface files: which files, which vertices, and how they are written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from synbrain.data.dataset import RESPONSES
from synbrain.data.options import MissingTrials
from synbrain.data.space import VoxelSpace
from synbrain.describe import counted
from synbrain.errors import SynBrainError
from synbrain.files import digest
from synbrain.prepare.entities import order
from synbrain.prepare.options import TableOptions
from synbrain.prepare.plan import digest_of_plan, names_of, on_surface, only_surface_mask, plan_sessions
from synbrain.prepare.positions import voxel_table, with_table
from synbrain.prepare.runs import Run, n_trials, stacks_of
from synbrain.prepare.sessions import Reading, Session, drop_trials, resumable_folder, write_sessions
from synbrain.prepare.surface import SUFFIXES, has_suffix, is_beta_file

NAMED = ("responses", "beta")  # in the names of files that are read unasked


def surface_files(src: Path, options: TableOptions) -> list[Path]:
    """The surface files that hold the responses of ``src``; none where they are an array.

    Raises:
        SynBrainError: where files are named that are neither.
    """
    if options.responses is not None:
        others = [path for path in options.responses if not has_suffix(path, SUFFIXES)]
        if not others:
            return sorted(options.responses, key=order)
        if len(options.responses) > 1 or others[0].suffix != ".npy":
            raise SynBrainError(
                f"{others[0]} is no file of responses that can be read",
                f"give one .npy, or files that end in {', '.join(SUFFIXES)}; volumes with prepare bids",
            )
        return []
    if (src / RESPONSES).exists() or not src.is_dir():
        return []
    named = [path for path in src.iterdir() if any(word in path.name.lower() for word in NAMED)]
    files = [path for path in named if is_beta_file(path)]
    forms = sorted({suffix for path in files for suffix in SUFFIXES if has_suffix(path, [suffix])})
    if len(forms) > 1:
        raise SynBrainError(
            f"{src} has responses in {' and '.join(forms)}", "pass --responses with the files of one form"
        )
    return sorted(files, key=order)


@dataclass(frozen=True)
class SurfaceResponses:
    """Responses in surface files, read a file at a time.

    Attributes:
        space: of the columns.
        notes: what was decided.
        names: of the files, and of the mask.
        sessions: the plan by which they are read.
        plan: tells whether what an interruption left was going to be the same.
        missing: what is done about trials without data.
    """

    space: VoxelSpace
    notes: list[str]
    names: dict[str, Any]
    sessions: list[Session]
    plan: str
    missing: MissingTrials

    def read_from(self, src: Path) -> dict[str, Any]:
        """What was read, for the dataset's provenance."""
        return self.names | {"trials_sha256": digest(src / "trials.csv")}

    def check(self, trials: pd.DataFrame) -> dict[str, Any]:
        """Nothing: values are checked while they are read, a file at a time."""
        return {}

    @contextmanager
    def folder(self, out: Path, overwrite: bool) -> Iterator[Path]:
        """The folder to write into; an interruption leaves it for the same command."""
        with resumable_folder(out, self.plan, overwrite) as building:
            yield building

    def write(
        self, building: Path, trials: pd.DataFrame, images: pd.DataFrame, show_progress: bool
    ) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Any], list[str]]:
        """Write the responses: the trials and images that are left, what was noticed, and notes."""
        how = Reading("none", 1, self.missing)
        report = write_sessions(building, self.sessions, self.space.n_voxels, self.plan, how, show_progress)
        trials, images, notes = drop_trials(building, report["missing_trials"], trials, images)
        return trials, images, report, notes


def surface_responses(
    src: Path, files: list[Path], trials: pd.DataFrame, options: TableOptions
) -> SurfaceResponses:
    """Responses in ``files``, a map for each line of ``trials``.

    Raises:
        SynBrainError: where their numbers differ, a hemisphere is missing, or meshes are others.
    """
    stacks = stacks_of(files, options.hemispheres)
    total = sum(n_trials(stack) for stack in stacks)
    first = stacks[0][0][0].path.name
    if total != len(trials):
        more = f" and {len(stacks) - 1} more have" if len(stacks) > 1 else " has"
        raise SynBrainError(
            f"{first}{more} {counted(total, 'map')} for {counted(len(trials), 'trial')} in trials.csv",
            "give one map per line of trials.csv, in the same order",
        )
    named = trials.assign(ses=trials["session"].astype(str))
    runs, start = [], 0
    for stack in stacks:
        n = n_trials(stack)
        runs.append(Run(stack, np.arange(n), named.iloc[start : start + n]))
        start += n
    mask = options.mask if options.mask is not None else only_surface_mask(src, None, options.hemispheres)
    pieces = [piece for run in runs for piece in run.pieces]
    taken = on_surface(pieces, mask, options.atlases or [], options)
    space, notes = taken.space, taken.notes
    if len(runs) > 1:
        notes.append(f"the trials are the maps of {', '.join(run.pieces[0][0].path.name for run in runs)}")
    table = voxel_table(src, options)
    if table is not None:
        space, more_notes = with_table(space, table, options, space.n_voxels)
        notes += more_notes
    sessions = plan_sessions(runs, taken.parts, trials, "none")
    names = {"responses": names_of(runs), "mask": taken.mask}
    plan = digest_of_plan(sessions, trials, "none", options.missing_trials)
    return SurfaceResponses(space, notes, names, sessions, plan, options.missing_trials)
