"""A table of trials: image, and optionally session, repeat and split; checked, and its images numbered."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from synbrain.data.tables import nearest, numbers, read_table
from synbrain.describe import counted
from synbrain.errors import SynBrainError
from synbrain.prepare.entities import natural
from synbrain.prepare.options import SourceOptions
from synbrain.prepare.split import split_images

DEFAULTS = SourceOptions()


def read_trials(
    path: Path, options: SourceOptions = DEFAULTS
) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    """The checked trials of a ``trials.csv`` (columns image, session, repeat, split), its images, and notes.

    Sessions that are labels, not numbers, are counted in natural order (session2 before session10). Repeats
    that are not given are counted in the order of the rows, and a split that is not given is drawn by image.

    Raises:
        SynBrainError: where a column lacks, a value is out of range, a row is double, or an image
            lies in both splits.
    """
    if not path.exists() and path.parent.is_dir() and not path.is_symlink():
        others = sorted({*path.parent.glob("*.csv"), *path.parent.glob("*.tsv")})
        others = [other for other in others if other.stem != "voxels"]
        if others:
            raise SynBrainError(f"{path} is missing", f"rename {others[0].name} to it, if that is the table")
        raise SynBrainError(
            f"{path} is missing",
            "write the column image, and the image of each response row below it (docs/guide/layouts.md has "
            "the lines for common datasets)",
        )
    table = read_table(path, ("image",), "write image[,repeat][,split][,session]")
    if table.empty:
        raise SynBrainError(f"{path} has no trials", "write one row per response row")
    for name in ("repeat", "split", "session"):
        similar = "" if name in table else nearest(name, map(str, table))
        if similar:
            raise SynBrainError(
                f"{path} has no column {name}; {similar}", f"name it {name}, or less like it if it is another"
            )
    if "session" not in table:
        table["session"] = "0"
    elif table["session"].notna().all() and numbers(table, "session").isna().all():
        labels = sorted(table["session"].unique(), key=natural)
        table["session"] = table["session"].map({label: str(i) for i, label in enumerate(labels)})
    has_repeats = "repeat" in table
    if not has_repeats:
        table["repeat"] = table.groupby("image").cumcount()
    table, notes = split_images(table, options)
    if not has_repeats:
        notes.append("no repeats were given: trials of an image were counted in the order of the rows")
    trials = check_trials(table[["image", "session", "repeat", "split"]], path)
    return *index_images(trials), notes


def check_trials(trials: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Type and check named trials; ``path`` is what errors point at (line 1 is the header)."""

    def at(bad: pd.Series[bool]) -> str:
        return f"{path} line {int(np.flatnonzero(bad.to_numpy())[0]) + 2}"

    if (bad := trials["image"].isna() | trials["image"].map(lambda name: _leaves_folder(str(name)))).any():
        raise SynBrainError(f"{at(bad)}: no image file name", "name a file below images/")
    if (bad := ~trials["split"].isin(["train", "test"])).any():
        raise SynBrainError(
            f"{at(bad)}: split is {trials['split'][bad].iloc[0]}",
            "write train or test, by image; a validation set is train, of which a tenth is held out anyway",
        )
    typed = trials.copy()
    for column in ("session", "repeat"):
        number = pd.to_numeric(trials[column], errors="coerce")
        if (bad := ~(number.ge(0) & number.le(32767) & number.mod(1).eq(0))).any():
            raise SynBrainError(
                f"{at(bad)}: {column} is {trials[column][bad].iloc[0]}", "count from 0, in whole numbers"
            )
        typed[column] = number.astype(np.int16)
    splits = typed.groupby("image", sort=False)["split"].nunique()
    if (splits > 1).any():
        raise SynBrainError(
            f"{counted(int((splits > 1).sum()), 'image is', 'images are')} in both splits, such as "
            f"{splits[splits > 1].index[0]}",
            "split by image: give all trials of an image one split",
        )
    if (bad := typed.duplicated(["image", "repeat"])).any():
        first = typed[bad].iloc[0]
        raise SynBrainError(
            f"{at(bad)}: {first['image']} has repeat {first['repeat']} twice ({int(bad.sum())} such rows)",
            "number the trials of each image 0, 1, 2, ... over all sessions",
        )
    return typed


def _leaves_folder(name: str) -> bool:
    path = PurePosixPath(name.replace("\\", "/"))
    return path.is_absolute() or ".." in path.parts or path.name == ""


def index_images(trials: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Trials whose ``image`` is a row of the images table, and that table (name, split), by name."""
    images = trials[["image", "split"]].drop_duplicates().sort_values("image", ignore_index=True)
    row_of = pd.Series(np.arange(len(images), dtype=np.int32), index=images["image"])
    indexed = trials.assign(image=row_of.loc[trials["image"]].to_numpy())
    return indexed, images.rename(columns={"image": "name"})
