"""images/ + trials.csv + responses.npy to a dataset: the simplest way to bring one's own recordings.

``trials.csv`` has one row per response row: ``image`` (file name in images/), and optionally ``split``
("train" or "test", the same for all trials of an image; drawn if left out), ``repeat`` (0-based; counted in
the order of the rows if left out) and ``session`` (0-based, or labels).
``responses.npy`` is (n_trials, n_units), any real dtype. Where the units lie, which ROIs they belong to and
how reliable they are comes from ``voxels.csv`` or ``mask.nii.gz`` (:mod:`synbrain.prepare.positions`). Units
that never vary over the training trials are kept, so that columns stay those of the source.
"""

from __future__ import annotations

import shutil
import zipfile
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

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
from synbrain.data.scaling import ENOUGH_VOXELS
from synbrain.data.space import VoxelSpace
from synbrain.describe import counted
from synbrain.errors import SynBrainError
from synbrain.files import allocate_array, digest, new_folder, open_array, require_replaceable, require_space
from synbrain.prepare.options import TableOptions
from synbrain.prepare.pictures import check_images, stimuli_in
from synbrain.prepare.positions import read_space
from synbrain.prepare.split import images_folder
from synbrain.prepare.surface_table import surface_files, surface_responses
from synbrain.prepare.trials import read_trials

ROW_BLOCK = 1024  # response rows in memory at a time
DEFAULTS = TableOptions()


def prepare_table(
    src: str | Path,
    out: str | Path,
    *,
    unit: str = "as recorded",
    name: str | None = None,
    copy_images: bool = False,
    options: TableOptions = DEFAULTS,
    overwrite: bool = False,
    show_progress: bool = False,
) -> Dataset:
    """Make a dataset of ``src/images/``, ``src/trials.csv`` and ``src/responses.npy``, or surface files.

    ``trials.csv`` has a row per response row: image, and optionally split (train or test, by image), repeat
    and session. ``voxels.csv`` or ``mask.nii.gz`` say where the units lie; surface files say it themselves.

    Args:
        src: the folder to read.
        out: the dataset folder to write.
        unit: what one unit of response is, as figures and tables shall say it.
        name: the dataset's name; the source folder's if left out.
        copy_images: into the dataset, so that it can be moved alone.
        options: what is known of the units, how images are split, and how pictures are decoded.
        overwrite: replace a dataset that stands at ``out``.
        show_progress: show a bar while images are checked.

    Raises:
        SynBrainError: where the three do not fit, or cannot be read; nothing is written then.

    >>> from synbrain.simulate.example import toy_dataset
    >>> source = toy_dataset().path.parent / "recordings"  # images/, trials.csv, responses.npy
    >>> out = source.parent / "again"
    >>> prepare_table(source, out, unit="spikes", overwrite=True).info.unit
    'spikes'
    """
    src, out = Path(src), Path(out)
    require_replaceable(out, overwrite, inputs=[src])
    trials, images, drawn = read_trials(src / "trials.csv", options)
    folder = images_folder(src, options.images, ("images", "stimuli"))
    files = surface_files(src, options)
    read = surface_responses(src, files, trials, options) if files else _array(src, trials, options)
    pictures = check_images(folder, images, options, show_progress)
    seen = read.check(trials)
    with read.folder(out, overwrite) as building:
        trials, images, report, dropped = read.write(building, trials, images, show_progress)
        if copy_images:
            _copy_images(folder, building / "images", images["name"])
        space, origin = _with_ncsnr(read.space, open_array(building / RESPONSES), trials)
        info = DatasetInfo(
            name=name or src.resolve().name, subject=name or src.resolve().name, unit=unit,
            n_trials=len(trials), n_voxels=space.n_voxels, n_images=len(images),
            stimuli=stimuli_in(None if copy_images else folder, out, options),
            scaling={"kind": "none"}, provenance={
                "reader": "table", "source": src.resolve().name, **read.read_from(src),
                "ncsnr_from": origin, "pictures": pictures.summary, **seen, **report,
                "notes": [*drawn, *read.notes, *pictures.notes, *dropped],
            },
        )  # fmt: skip
        write_tables(building, info, trials, images, space)
    return load_dataset(out)


@dataclass(frozen=True)
class ArrayResponses:
    """Responses in one array.

    Attributes:
        path: where it lies.
        raw: (n_trials, n_units), mapped.
        space: of the columns.
        notes: what was decided.
    """

    path: Path
    raw: NDArray[Any]
    space: VoxelSpace
    notes: list[str]

    def read_from(self, src: Path) -> dict[str, Any]:
        """What was read, for the dataset's provenance."""
        return {"responses_sha256": digest(self.path), "trials_sha256": digest(src / "trials.csv")}

    def check(self, trials: pd.DataFrame) -> dict[str, Any]:
        """Columns that do not vary; raises where a value is not finite, or nothing varies."""
        return {"constant_voxels": check_responses(self.raw, _fitting_rows(trials), self.path)}

    def folder(self, out: Path, overwrite: bool) -> AbstractContextManager[Path]:
        """The folder to write into."""
        return new_folder(out, overwrite)

    def write(
        self, building: Path, trials: pd.DataFrame, images: pd.DataFrame, show_progress: bool
    ) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Any], list[str]]:
        """Write the responses as float32, some rows in memory at a time; rows of zeros are noted."""
        responses = allocate_array(building / RESPONSES, self.raw.shape, np.float32)
        silent: list[int] = []
        for start in range(0, len(self.raw), ROW_BLOCK):
            block = self.raw[start : start + ROW_BLOCK]
            responses[start : start + ROW_BLOCK] = block
            silent += (start + np.flatnonzero(~np.any(block, axis=1))).tolist()
        responses.flush()
        return trials, images, {}, _note_silent(silent, self.space.n_voxels)


def _array(src: Path, trials: pd.DataFrame, options: TableOptions) -> ArrayResponses:
    """The array, open, and where its columns lie."""
    for name in ("hemispheres", "missing_trials"):
        value = getattr(options, name)
        if value != TableOptions.model_fields[name].default:
            raise SynBrainError(
                f"--{name.replace('_', '-')} {value} is for responses in surface files, these are an array",
                "leave it out",
            )
    path = options.responses[0] if options.responses else src / RESPONSES
    raw = _open_responses(path, len(trials))
    space, notes = read_space(src, options, raw.shape[1])
    return ArrayResponses(path, raw, space, notes)


def _note_silent(rows: list[int], n_units: int) -> list[str]:
    """A note on rows that are 0 in every unit, as censored trials are stored; of few units by chance."""
    if not rows or n_units < ENOUGH_VOXELS:
        return []
    which = counted(len(rows), "response row is", "response rows are")
    return [f"{which} 0 in all {n_units} units, row {rows[0]} first: drop trials that were censored"]


def _with_ncsnr(
    space: VoxelSpace, responses: NDArray[np.float32], trials: pd.DataFrame
) -> tuple[VoxelSpace, str | None]:
    """The space with the reliability of its units, and where that is from; None where it is not known."""
    if space.ncsnr is not None:
        return space, "voxels.csv"
    ncsnr, split = ncsnr_of(responses, trials)
    return replace(space, ncsnr=ncsnr), split and f"trials of the {split} split"


def _open_responses(path: Path, n_trials: int) -> NDArray[Any]:
    """``responses.npy``, mapped; what is no (n_trials, n_units) of real numbers is told with what mends
    it.
    """
    if not path.exists() and not path.is_symlink() and path.name == RESPONSES:
        _tell_other_arrays(path.parent)
    if zipfile.is_zipfile(path):
        raise SynBrainError(
            f"{path} is an .npz archive under another name",
            f'save the array alone: with np.load("{RESPONSES}") as z: np.save("out.npy", z[z.files[0]])',
        )
    raw = open_array(path)
    mends = [
        (raw.dtype.names is not None, "np.stack([r[name] for name in r.dtype.names], axis=1)"),
        (raw.dtype.kind == "b", 'r.astype("float32")'),
        (raw.dtype.kind == "c", "np.abs(r), or r.real"),
        (raw.dtype.kind not in "fiu", 'r.astype("float32")'),
        (raw.ndim == 1, "r[:, None]"),
        (raw.ndim == 3 and raw.shape[0] * raw.shape[1] == n_trials, "r.reshape(-1, r.shape[-1])"),
        (raw.ndim != 2, "r.reshape(len(r), -1)"),
    ]
    mend = next((code for is_so, code in mends if is_so), None)
    if mend is not None or raw.shape[1] == 0:
        raise SynBrainError(
            f"{path} holds {raw.dtype} of shape {raw.shape}",
            "save real numbers as (n_trials, n_units)"
            + (f': r = np.load("{path.name}"); np.save("{path.name}", {mend})' if mend else "")
            + ("; rows then are all repeats of the first image, then of the next" if raw.ndim == 3 else ""),
        )
    if len(raw) != n_trials:
        is_turned = raw.shape[1] == n_trials
        raise SynBrainError(
            f"{path} has {counted(len(raw), 'row')} for {counted(n_trials, 'trial')}"
            + (f", and {counted(n_trials, 'column')}: it looks transposed" if is_turned else ""),
            f'turn it: r = np.load("{path.name}"); np.save("{path.name}", r.T)'
            if is_turned
            else "give one response row per row of trials.csv, in the same order",
        )
    return raw


def _tell_other_arrays(src: Path) -> None:
    """Raise with the mend where there is no ``responses.npy``, but an array of another form or name."""
    named = [path for path in sorted(src.glob("responses.*")) if path.name != RESPONSES]
    others = named or sorted(path for path in src.glob("*.np[yz]"))
    if not others:
        return
    first, code = others[0], f'save it with numpy: np.save("{RESPONSES}", array.astype("float32"))'
    if first.suffix == ".npz":
        names = []
        with suppress(zipfile.BadZipFile), zipfile.ZipFile(first) as archive:
            names = [Path(name).stem for name in archive.namelist()]
        name = names[0] if len(names) == 1 else "responses"
        code = f'save the array alone: np.save("{RESPONSES}", np.load("{first.name}")["{name}"])'
    elif first.suffix == ".npy":
        code = f"rename {first.name} to it, if that is (trials, units)"
    raise SynBrainError(f"{src} has no {RESPONSES}, but {', '.join(path.name for path in others)}", code)


def _fitting_rows(trials: pd.DataFrame) -> NDArray[np.bool_]:
    """Trials that models are fitted on: the training trials, or all where there are none."""
    train = (trials["split"] == "train").to_numpy()
    return train if train.any() else np.ones(len(trials), dtype=bool)


def check_responses(raw: NDArray[Any], fitting: NDArray[np.bool_], path: Path) -> list[int]:
    """Voxels (columns) that are constant over the trials ``fitting``; all values must be finite.

    Args:
        raw: (n_trials, n_voxels), read in blocks of rows.
        fitting: (n_trials,) which trials models will be fitted on.
        path: what errors point at.

    Raises:
        SynBrainError: where a value is NaN, infinite or beyond float32, or no voxel varies.
    """
    low = np.full(raw.shape[1], np.inf, dtype=np.float32)
    high = -low
    for start in range(0, len(raw), ROW_BLOCK):
        with np.errstate(over="ignore"):
            block = np.asarray(raw[start : start + ROW_BLOCK], dtype=np.float32)
        finite = np.isfinite(block)
        if not finite.all():
            row, column = np.argwhere(~finite)[0]
            raise SynBrainError(
                f"{path} has a value that is not finite in row {start + row}, column {column}",
                "drop that trial (with its line of trials.csv) or that unit",
            )
        used = block[fitting[start : start + ROW_BLOCK]]
        low = np.minimum(low, used.min(axis=0, initial=np.inf))
        high = np.maximum(high, used.max(axis=0, initial=-np.inf))
    constant = [int(voxel) for voxel in np.flatnonzero(low == high)]
    if len(constant) == raw.shape[1]:
        raise SynBrainError(f"no unit of {path} varies over the training trials", "check how it was made")
    return constant


def _copy_images(source: Path, target: Path, names: pd.Series[str]) -> None:
    require_space(target.parent, sum((source / name).stat().st_size for name in names))
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, target / name)
