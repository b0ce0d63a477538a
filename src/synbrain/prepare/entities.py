"""File names in the way of BIDS: entities, which file applies to which (inheritance), and walking a
dataset.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

from synbrain.errors import SynBrainError

MATCHED = ("sub", "ses", "task", "acq", "dir", "run", "echo")  # entities that tie one file to another
INDICES = ("ses", "run", "echo")  # compared as numbers where they are numbers: run-1 is run-01


def entities(path: Path) -> dict[str, str]:
    """BIDS entities of a file name: ``sub-01_ses-02_events.tsv`` -> {"sub": "01", "ses": "02"}."""
    return dict(re.findall(r"(?:^|_)([a-zA-Z]+)-([a-zA-Z0-9+]+)", path.name))


def matched(path: Path) -> dict[str, str]:
    """The entities that tie files together, with indices in plain form; subject and session by folders, too.

    GLMsingle names its files alike in every folder: ``sub-01/ses-02/TYPED_FITHRF_GLMDENOISE_RR.npy``.
    """
    there = entities(path)
    for key in {"sub", "ses"} - set(there):
        folders = (part for part in reversed(path.parts[:-1]) if re.fullmatch(f"{key}-[a-zA-Z0-9+]+", part))
        folder = next(folders, None)
        if folder is not None:
            there[key] = folder.removeprefix(f"{key}-")
    return {key: index_of(there[key]) if key in INDICES else there[key] for key in MATCHED if key in there}


def index_of(value: str) -> str:
    """ "01" -> "1"; what is no number stays as it is."""
    return str(int(value)) if value.isdigit() else value


def natural(text: str) -> tuple[tuple[int, int, str], ...]:
    """A sorting key in which 2 stands before 10."""
    return tuple(
        (0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", text) if part
    )


def walk(root: Path, *patterns: str) -> Iterator[Path]:
    """Files below ``root`` that match one of the patterns, in natural order; linked folders are followed.

    Folders that are reached twice (links in a circle) are visited once; hidden files and folders are left
    out. Links without a target are given too: their reader says what is missing.
    """
    top = root.stat()
    seen = {(top.st_dev, top.st_ino)}
    for folder, below, names in os.walk(root, followlinks=True):
        kept = []
        for name in sorted(below, key=natural):
            try:
                stat = os.stat(os.path.join(folder, name))
            except OSError:
                continue
            if not name.startswith(".") and (stat.st_dev, stat.st_ino) not in seen:
                seen.add((stat.st_dev, stat.st_ino))
                kept.append(name)
        below[:] = kept
        for name in sorted(names, key=natural):
            if not name.startswith(".") and any(fnmatch(name, pattern) for pattern in patterns):
                yield Path(folder) / name


def applicable(wanted: dict[str, str], candidates: list[Path]) -> list[Path]:
    """The files that apply by BIDS inheritance, the most specific of each kind, in order of session and run.

    A candidate applies where every entity that both name agrees. Of those, one whose entities are a part of
    another's gives way to it. A target without a run gets one file per run.

    Args:
        wanted: entities of the target, from :func:`matched`.
        candidates: files that may apply.

    Raises:
        SynBrainError: where two files of the same entities differ in content.
    """
    fits: dict[frozenset[tuple[str, str]], Path] = {}
    for path in candidates:
        stated = matched(path)
        if any(wanted.get(key, value) != value for key, value in stated.items()):
            continue
        same = fits.setdefault(frozenset(stated.items()), path)
        if same != path and same.read_bytes() != path.read_bytes():
            raise SynBrainError(
                f"{same} and {path} have the same entities and differ", "remove one, or give SRC without it"
            )
    specific = [path for stated, path in fits.items() if not any(stated < other for other in fits)]
    return sorted(specific, key=order)


def order(path: Path) -> tuple[object, ...]:
    """Sorts by session, task and run, numbers as numbers."""
    there = matched(path)
    return (*(natural(there.get(key, "")) for key in ("ses", "task", "run")), natural(path.name))


def label_table(volume: Path, root: Path | None) -> Path | None:
    """The ``.tsv`` that names a volume's labels: beside it or above it up to ``root``, the most specific.

    It has the volume's suffix (``_dseg``), and no entity that the volume has otherwise or lacks.
    """
    stem = volume.name.removesuffix(".gz").removesuffix(".nii")
    beside = volume.with_name(stem + ".tsv")
    if beside.exists():
        return beside
    suffix, stated = stem.rpartition("_")[2], entities(volume)
    folders = [volume.parent]
    while root is not None and folders[-1] != root and root in folders[-1].parents:
        folders.append(folders[-1].parent)
    if root is not None and root not in folders:
        folders.append(root)
    named = [
        path
        for folder in folders
        for path in sorted(folder.glob(f"*_{suffix}.tsv"))
        if entities(path).items() <= stated.items()
    ]
    return max(named, key=lambda path: len(entities(path)), default=None)
