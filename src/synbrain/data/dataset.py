"""A dataset on disk: one subject's trials, responses, stimuli and voxel space in one folder.

::

    DATASET/
      dataset.json        format, unit, scaling, counts, where the stimuli lie, provenance
      trials.parquet      one row per trial, in the order of the response rows
      images.parquet      one row per distinct image, in the order of the token rows
      responses.npy       (n_trials, n_voxels) float32, memory-mapped
      space/              the voxel space
      tokens/ENCODER/     token stores, made by ``synbrain features``
      checksums.json      SHA-256 of every file above but the tokens, which carry their own
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from synbrain.data.options import PictureOptions
from synbrain.data.pictures import array_to_rgb, open_image
from synbrain.data.space import VoxelSpace, import_xarray
from synbrain.describe import as_html, as_text, counted
from synbrain.errors import SynBrainError, unreadable
from synbrain.files import (
    MANIFEST,
    atomic_path,
    digest,
    open_array,
    read_json,
    verify_manifest,
    write_json,
    write_manifest,
)

FORMAT_VERSION = 1
DATASET_JSON, TRIALS, IMAGES, RESPONSES = (
    "dataset.json",
    "trials.parquet",
    "images.parquet",
    "responses.npy",
)
TRIAL_COLUMNS = {"image": "int32", "session": "int16", "repeat": "int16", "split": "str"}
Split = Literal["train", "test"]


class Stimuli(PictureOptions):
    """Where the stimuli lie, and how they are decoded (:mod:`synbrain.data.pictures`).

    A folder of image files, or one HDF5 brick (n, h, w, 3) uint8.
    """

    kind: Literal["folder", "hdf5"]
    path: str  # relative to the dataset's folder where possible
    key: str = "imgBrick"  # the HDF5 dataset; images.parquet's column `row` indexes it


class SyntheticTrials(BaseModel):
    """Where the responses of a synthetic dataset come from (`synbrain augment`)."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    run: str = Field(description="digest of the run that made them")
    recipe: str
    subject: str
    seed: int
    kind: str = Field(description="trial, mean or isotropic")
    hours: float
    images_of: str = Field(description="name of the dataset whose images are shown")
    n_images: int
    trained_images: str = Field("", description="marks of the images that the run saw; empty: not known")

    def __str__(self) -> str:
        return (
            f"{self.kind}, made by run {self.run[:10]} ({self.recipe}), seed {self.seed}, of {self.n_images} "
            f"images of {self.images_of}"
        )


class NsdOrigin(BaseModel):
    """Of a dataset that comes from the Natural Scenes Dataset itself, not from another tree in its layout."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    subject: int = Field(description="1 to 8")
    n_sessions: int = Field(description="whose betas were read")


class DatasetInfo(BaseModel):
    """What ``dataset.json`` says. ``scaling`` holds what is needed to go back to the raw unit."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    format: int = FORMAT_VERSION
    name: str
    subject: str
    unit: str
    n_trials: int
    n_voxels: int
    n_images: int
    stimuli: Stimuli
    scaling: dict[str, Any] = Field(default_factory=dict)
    trials_per_session: int | None = Field(
        None, description="as scanned, before trials were left out; where all sessions have as many"
    )
    synthetic: SyntheticTrials | None = Field(None, description="None: the responses were measured")
    nsd: NsdOrigin | None = None
    provenance: dict[str, Any] = Field(default_factory=dict, description="for people to read")

    @model_validator(mode="before")
    @classmethod
    def _of_older(cls, content: Any) -> Any:
        """Datasets that were prepared before some fields were ones keep their values under provenance."""
        if not isinstance(content, dict):
            return content
        older = content.get("provenance", {})
        fields = {key: older[key] for key in ("trials_per_session", "synthetic") if key in older}
        if older.get("design_is_nsd"):
            fields["nsd"] = {"subject": older["subject"], "n_sessions": older["n_sessions"]}
        return fields | content


@dataclass(frozen=True, repr=False)
class Dataset:
    """One subject's recordings; large arrays stay on disk until they are indexed.

    Attributes:
        path: the dataset's folder.
        info: what ``dataset.json`` says.
        trials: columns image (row of ``images``), session, repeat (both 0-based), split, and what
            the source adds; row i belongs to ``responses[i]``.
        images: one row per distinct image: name (file name or id), split, and what the source adds.
        responses: (n_trials, n_voxels) float32 memory map, in ``info.unit``.
        space: positions, ROIs and ncsnr of the voxels.

    >>> from synbrain.simulate.example import toy_dataset
    >>> dataset = toy_dataset()
    >>> dataset.trials["split"].value_counts().to_dict()
    {'train': 80, 'test': 40}
    >>> dataset.load_image(0).size
    (64, 64)
    """

    path: Path
    info: DatasetInfo
    trials: pd.DataFrame
    images: pd.DataFrame
    responses: NDArray[np.float32]
    space: VoxelSpace

    @property
    def n_trials(self) -> int:
        return self.info.n_trials

    @property
    def n_voxels(self) -> int:
        return self.info.n_voxels

    @property
    def n_images(self) -> int:
        return self.info.n_images

    def image_rows(self, split: Split) -> NDArray[np.int64]:
        """Rows of ``images`` that belong to ``split`` and have a trial, ascending."""
        _require_split(split)
        rows = self.trials.loc[self.trials["split"] == split, "image"]
        return np.unique(rows.to_numpy(dtype=np.int64))

    def trial_rows(self, split: Split) -> NDArray[np.int64]:
        """Rows of ``trials`` (and of ``responses``) that belong to ``split``, in recorded order."""
        _require_split(split)
        return np.flatnonzero((self.trials["split"] == split).to_numpy())

    @property
    def digest(self) -> str | None:
        """Of the manifest, which changes with every file but the tokens; None where there is none."""
        manifest = self.path / MANIFEST
        return digest(manifest) if manifest.exists() else None

    def stimulus_path(self) -> Path:
        """The folder or the HDF5 file of the stimuli."""
        return (self.path / self.info.stimuli.path).resolve()

    def _facts(self) -> dict[str, Any]:
        info = self.info
        size = f"{counted(info.n_trials, 'trial')} x {counted(info.n_voxels, *self.space.unit_words)}"
        counts = {split: len(self.image_rows(split)) for split in ("train", "test")}
        return {
            "name": info.name,
            "subject": info.subject,
            "responses": f"{size}, {info.unit}",
            **({} if info.synthetic is None else {"synthetic": str(info.synthetic)}),
            "images": f"{counts['train']} train, {counts['test']} test",
            "space": self.space.kind,
            "ROIs": len(self.space.roi_masks()),
            "path": self.path,
        }

    def __repr__(self) -> str:
        return as_text("Dataset", self._facts())

    def _repr_html_(self) -> str:
        return as_html("Dataset", self._facts())

    def to_xarray(self) -> Any:
        """The trials as an :class:`xarray.DataArray` (trial, voxel), with images, sessions and ROIs named.

        The responses stay mapped: nothing is read until it is indexed.

        Raises:
            SynBrainError: where xarray is not installed.
        """
        xarray = import_xarray()
        names = self.images["name"].astype(str).to_numpy(dtype=object)
        columns = [column for column in self.trials.columns if column != "image"]
        coordinates: dict[str, Any] = {"trial": np.arange(self.n_trials)}
        coordinates["image"] = ("trial", names[self.trials["image"].to_numpy(dtype=np.int64)])
        coordinates |= {column: ("trial", self.trials[column].to_numpy()) for column in columns}
        return xarray.DataArray(
            self.responses,
            dims=("trial", "voxel"),
            coords=coordinates | self.space.coordinates_by_name(),
            name="response",
            attrs={"units": self.info.unit, "subject": self.info.subject, "dataset": self.info.name},
        )

    def load_image(self, row: int) -> Image.Image:
        """Image ``row`` of ``images`` as RGB.

        Raises:
            SynBrainError: where the file is missing or cannot be decoded.
        """
        where, stimuli = self.stimulus_path(), self.info.stimuli
        if stimuli.kind == "hdf5":
            return read_brick(where, stimuli, int(self.images["row"].iloc[row]))
        return open_image(where / str(self.images["name"].iloc[row]), stimuli)


def _require_split(split: str) -> None:
    if split not in get_args(Split):
        raise SynBrainError(f"there is no split {split!r}", f"choose {' or '.join(get_args(Split))}")


def datasets_of(given: Any) -> list[Dataset]:
    """One dataset or several as a list; what is none is told with what makes it one.

    Raises:
        SynBrainError: for a path, or no dataset at all.
    """
    listed = list(given) if isinstance(given, Iterable) and not isinstance(given, str) else [given]
    for one in listed:
        if not isinstance(one, Dataset):
            raise SynBrainError(f"{str(one)[:100]!r} is no dataset", "give what load_dataset(FOLDER) opens")
    if not listed:
        raise SynBrainError("no dataset was given", "give at least one")
    return listed


def read_brick(path: Path, stimuli: Stimuli, row: int) -> Image.Image:
    """Picture ``row`` of an HDF5 stimulus file as RGB.

    Raises:
        SynBrainError: where the file is missing, locked or damaged, or holds something else than pictures.
    """
    try:
        import h5py

        with h5py.File(path, "r") as file:
            pixels = file[stimuli.key][row]
    except (OSError, KeyError, ValueError, IndexError) as error:
        raise unreadable(path, error, "restore the stimuli") from error
    return array_to_rgb(pixels, stimuli, f"picture {row} of {path}")


def load_dataset(path: str | Path) -> Dataset:
    """Open a dataset folder; responses are memory-mapped, small files are checked.

    Raises:
        SynBrainError: where a file is missing, was altered, or does not fit the others.

    >>> from synbrain.simulate.example import toy_dataset
    >>> dataset = load_dataset(toy_dataset().path)
    >>> dataset.n_trials, dataset.n_voxels, dataset.info.unit
    (120, 12, 'arbitrary unit')
    """
    folder = Path(path)
    if not (folder / DATASET_JSON).exists():
        raise SynBrainError(
            f"{folder} is not a dataset (no {DATASET_JSON})",
            "make one with `synbrain prepare table|nsd|bids`",
        )
    verify_manifest(folder, only={DATASET_JSON, TRIALS, IMAGES, "space/space.json"})
    try:
        info = DatasetInfo.model_validate(read_json(folder / DATASET_JSON))
    except ValidationError as error:
        raise SynBrainError(f"{folder / DATASET_JSON} is not valid ({error})", "make it again") from error
    if info.format != FORMAT_VERSION:
        raise SynBrainError(
            f"{folder} has format {info.format}, this version reads {FORMAT_VERSION}",
            "prepare it again, or install the version that wrote it",
        )
    dataset = Dataset(
        path=folder,
        info=info,
        trials=pd.read_parquet(folder / TRIALS),
        images=pd.read_parquet(folder / IMAGES),
        responses=open_array(folder / RESPONSES),
        space=VoxelSpace.load(folder / "space"),
    )
    check_consistency(dataset)
    return dataset


def check_consistency(dataset: Dataset) -> None:
    """Raise where trials, images, responses and space do not fit together."""
    info, trials = dataset.info, dataset.trials
    shape = dataset.responses.shape
    if shape != (len(trials), dataset.space.n_voxels) or len(trials) != info.n_trials:
        raise SynBrainError(
            f"responses have shape {shape}, but there are {counted(len(trials), 'trial')} and "
            f"{counted(dataset.space.n_voxels, *dataset.space.unit_words)}",
            f"give one response row per trial and one column per {dataset.space.unit_name}",
        )
    missing = [column for column in TRIAL_COLUMNS if column not in trials]
    if missing:
        raise SynBrainError(f"trials lack the columns {missing}", "prepare the dataset again")
    if len(dataset.images) != info.n_images or not trials["image"].between(0, info.n_images - 1).all():
        raise SynBrainError("trials name images that are not listed", "prepare the dataset again")
    in_both = set(dataset.image_rows("train")) & set(dataset.image_rows("test"))
    if in_both:
        raise SynBrainError(
            f"{counted(len(in_both), 'image is', 'images are')} in the training and in the test split",
            "split by image: all trials of an image belong to one split",
        )


def write_tables(
    folder: Path,
    info: DatasetInfo,
    trials: pd.DataFrame,
    images: pd.DataFrame,
    space: VoxelSpace,
    extra: Iterable[str] = (),
) -> None:
    """Write everything but the responses, which stand in ``folder/responses.npy`` already.

    Args:
        folder: the folder that is being built.
        info: what ``dataset.json`` is to say.
        trials: one row per response row, with the columns of ``TRIAL_COLUMNS``.
        images: one row per distinct image, with name and split.
        space: the voxels, in the column order of the responses.
        extra: further files in ``folder`` that the manifest shall list (relative names).
    """
    check_consistency(Dataset(folder, info, trials, images, open_array(folder / RESPONSES), space))
    for name, table in ((TRIALS, trials), (IMAGES, images)):
        with atomic_path(folder / name) as partial:
            table.to_parquet(partial, index=False)
    space_files = [f"space/{name}" for name in space.save(folder / "space")]
    write_json(folder / DATASET_JSON, info.model_dump())
    write_manifest(folder, [DATASET_JSON, TRIALS, IMAGES, RESPONSES, *space_files, *extra])


def relative_to_dataset(path: Path, out: Path) -> str:
    """``path`` as dataset.json of the dataset ``out`` names it: relative where the disk allows it."""
    try:
        return Path(os.path.relpath(path.resolve(), out.resolve())).as_posix()
    except ValueError:  # another drive
        return path.resolve().as_posix()
