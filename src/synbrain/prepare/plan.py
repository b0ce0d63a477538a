"""What is taken of betas, and what is scaled together: the plan by which sessions are read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from synbrain.data.options import MissingTrials
from synbrain.data.space import VoxelSpace
from synbrain.describe import counted
from synbrain.errors import SynBrainError
from synbrain.files import digest_of
from synbrain.prepare import labels
from synbrain.prepare.betas import BetaFile, Index
from synbrain.prepare.brain import Piece, brain_of, mesh_of, places_of, space_of
from synbrain.prepare.entities import matched, walk
from synbrain.prepare.options import SurfaceOptions
from synbrain.prepare.runs import Run, n_trials, session_numbers
from synbrain.prepare.sessions import Session
from synbrain.prepare.surface import Hemispheres, hemisphere_of, is_cifti, pairs

Parts = tuple[tuple[BetaFile, Index], ...]


@dataclass(frozen=True)
class Taken:
    """Which voxels or vertices become columns.

    Attributes:
        space: where they lie, with their labels.
        parts: first file of each piece -> its files side by side, each with the values that are taken.
        mask: what they were chosen by.
        notes: what was decided on the way.
    """

    space: VoxelSpace
    parts: Mapping[Path, Parts]
    mask: str
    notes: list[str]

    @property
    def n_columns(self) -> int:
        return self.space.n_voxels


def on_surface(
    pieces: Sequence[Piece], mask: Path | None, atlases: Iterable[Path], options: SurfaceOptions
) -> Taken:
    """The vertices and grayordinates of ``mask``, or all.

    Raises:
        SynBrainError: where pieces, mask or atlases lie on different surfaces.
    """
    brain = brain_of(pieces[0], options.hemispheres)
    mesh, notes = mesh_of(brain, options.mesh)
    places = places_of(brain, None if mask is None else labels.read_mask(mask, brain))
    parts = {piece[0].path: places.parts(piece) for piece in pieces}
    space = space_of(places, mesh, labels.read_atlases(atlases, brain, places.index))
    if mask is None:
        notes.append(f"no mask was given: all {counted(space.n_voxels, *space.unit_words)} are taken")
    return Taken(space, parts, "none" if mask is None else mask.name, notes)


def only_surface_mask(src: Path, who: str | None, hemispheres: Hemispheres) -> Path | None:
    """The only mask on a surface below ``src``, of subject ``who``; None where there is none."""
    files = [p for p in walk(src, *labels.MASKS) if who is None or matched(p).get("sub", who) == who]
    # FreeSurfer's brainmask.mgz, a volume, may lie in the same tree
    on_surface = [path for path in files if is_cifti(path) or hemisphere_of(path).side is not None]
    masks = [piece[0] for piece in pairs(on_surface, hemispheres)]
    if len(masks) > 1:
        raise several_masks(src, masks)
    return masks[0] if masks else None


def several_masks(src: Path, masks: list[Path]) -> SynBrainError:
    """The error that lists them."""
    shown = ", ".join(str(path.relative_to(src)) for path in masks[:6]) + (", ..." if len(masks) > 6 else "")
    return SynBrainError(f"{src} has {len(masks)} masks: {shown}", "pass --mask with one of them")


def names_of(runs: Sequence[Run]) -> list[str]:
    """Names of all files of betas."""
    return [about.path.name for run in runs for piece in run.pieces for about in piece]


def digest_of_plan(
    sessions: list[Session], trials: pd.DataFrame, scaling: str, missing: MissingTrials
) -> str:
    """Tells whether what an interruption left was going to be the same dataset.

    Which volumes are trials counts too: a design may be mended so that the same trials are other volumes.
    """
    read = hashlib.sha256(pd.util.hash_pandas_object(trials).to_numpy().tobytes())
    for session in sessions:
        for part in (session.kept, *(place for parts in session.runs for _, place in parts)):
            read.update(len(part).to_bytes(8) + np.ascontiguousarray(part, dtype=np.int64).tobytes())
    names = [about.path.name for session in sessions for parts in session.runs for about, _ in parts]
    about = {"scaling": scaling, "missing": missing, "files": names}
    return digest_of(about | {"read": read.hexdigest()})


def plan_sessions(
    runs: Sequence[Run], parts: Mapping[Path, Parts], trials: pd.DataFrame, scaling: str
) -> list[Session]:
    """What is scaled together: each run by itself, or for z-scores all runs of a session.

    Raises:
        SynBrainError: where the trials of a session are scattered over the files.
    """
    training = (trials["split"] == "train").to_numpy()
    session_of, run_sessions = trials["session"].to_numpy(), session_numbers(runs)
    starts = np.concatenate([[0], np.cumsum([len(run.trials) for run in runs])])
    planned: list[Session] = []
    groups: list[list[int]] = [[i] for i in range(len(runs))]
    numbers: list[int | None] = [None] * len(runs)
    if scaling == "session-zscore":
        numbers = [int(number) for number in np.unique(session_of)]
        groups = [[i for i, own in enumerate(run_sessions) if (own == number).any()] for number in numbers]
    for place, (number, members) in enumerate(zip(numbers, groups, strict=True)):
        kept, rows, volumes = [], [], 0
        for i in members:
            here = np.ones(len(runs[i].trials), dtype=bool) if number is None else run_sessions[i] == number
            kept.append(volumes + runs[i].kept[here])
            rows.append(starts[i] + np.flatnonzero(here))
            volumes += n_trials(runs[i].pieces)
        row = np.concatenate(rows)
        if not np.array_equal(row, np.arange(row[0], row[0] + len(row))):
            raise SynBrainError(
                f"the trials of session {session_of[row[0]]} do not follow one another in the files",
                "join the files session by session, or pass --scaling none",
            )
        planned.append(
            Session(
                number=place,
                session=int(session_of[row[0]]),
                runs=tuple(parts[piece[0].path] for i in members for piece in runs[i].pieces),
                kept=np.concatenate(kept),
                fitting=training[row],
                first_row=int(row[0]),
            )
        )
    return planned
