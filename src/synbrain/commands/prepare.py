"""``synbrain prepare table|nsd|bids``: recordings to a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from synbrain.data.dataset import Dataset
from synbrain.data.scaling import ScalingKind
from synbrain.prepare import bids, table
from synbrain.prepare.nsd import prepare as nsd_prepare
from synbrain.prepare.nsd.layout import NsdSpace
from synbrain.prepare.nsd.trials import OtherShared, Repeats, TestSet


def prepare_table(
    src: Path,
    out: Path,
    *,
    unit: str = "as recorded",
    name: str | None = None,
    copy_images: bool = False,
    overwrite: bool = False,
) -> None:
    """Make a dataset of images/, trials.csv and responses.npy.

    Args:
        src: folder with images/, trials.csv (image, repeat, split, optionally session) and responses.npy.
        out: the dataset folder to write.
        unit: what one unit of response is, such as "percent signal change".
        name: the dataset's name; the source folder's if left out.
        copy_images: copy the images into the dataset.
        overwrite: replace a dataset that stands there.
    """
    made = table.prepare_table(
        src, out, unit=unit, name=name, copy_images=copy_images, overwrite=overwrite, show_progress=True
    )
    tell(made)


def prepare_nsd(
    src: Path,
    out: Path,
    *,
    subject: int,
    betas: str = "betas_fithrf_GLMdenoise_RR",
    space: NsdSpace = "func1pt8mm",
    mask: str | None = None,
    rois: list[str] | None = None,
    scaling: ScalingKind = "percent",
    sessions: str = "all",
    test_set: TestSet = "shared1000",
    repeats: Repeats = "all",
    other_shared: OtherShared = "leave-out",
    workers: int = 2,
    overwrite: bool = False,
) -> None:
    """Make a dataset of one subject of the Natural Scenes Dataset, or of a tree in its layout.

    An interrupted run goes on at the next session when the same command is given again.

    Args:
        src: the root, in which nsddata and nsddata_betas lie.
        out: the dataset folder to write.
        subject: the subject's number, 1 to 8 in NSD.
        betas: the beta version, a folder's name.
        space: func1pt8mm or func1mm (volumes), or fsaverage (surface).
        mask: a label volume's name or a file, above 0 is in; nsdgeneral if neither this nor rois is given.
        rois: take the union of these, such as floc-faces or prf-visualrois/V1v.
        scaling: percent (int16 / 300), session-zscore, or reference (int16 / 2000).
        sessions: all, or how many of the first.
        test_set: shared1000, shared515 (all repeats in all subjects), or shared907 (seen by all).
        repeats: refuse test images that lack repeats (all), use what there is, or only the complete ones.
        other_shared: leave shared images outside the test set out, or train on them.
        workers: sessions read at the same time.
        overwrite: replace a dataset that stands there.
    """
    made = nsd_prepare.prepare_nsd(
        src, out, subject=subject, betas=betas, space=space, mask=mask, rois=rois, scaling=scaling,
        sessions=sessions, test_set=test_set, repeats=repeats, other_shared=other_shared,
        workers=workers, overwrite=overwrite, show_progress=True,
    )  # fmt: skip
    tell(made)


def prepare_bids(
    src: Path,
    out: Path,
    *,
    mask: Path | None = None,
    subject: str | None = None,
    images: Path | None = None,
    pattern: str | None = None,
    image_column: str | None = None,
    test_images: Path | None = None,
    test_fraction: float = 0.2,
    seed: int = 0,
    atlases: list[Path] | None = None,
    scaling: Literal["none", "session-zscore"] = "none",
    unit: str = "as recorded",
    workers: int = 2,
    overwrite: bool = False,
) -> None:
    """Make a dataset of single-trial NIfTI betas, events tables and a mask (GLMsingle, fMRIPrep-style).

    Args:
        src: the folder to read, with its subfolders.
        out: the dataset folder to write.
        mask: volume on the grid of the betas, above 0 is in; the only *_mask.nii.gz if left out.
        subject: 01 for sub-01; needed where there are several.
        images: folder of the stimuli; SRC/stimuli or SRC/images if left out.
        pattern: file names of the betas, such as "*_betas.nii.gz".
        image_column: events column that names the image; stim_file, ..., trial_type if left out.
        test_images: text file of the test images' names, one a line.
        test_fraction: share of images drawn for the test where no split is given.
        seed: of that draw.
        atlases: label volumes on the grid of the betas, names from .ctab or .tsv beside them.
        scaling: none, or session-zscore (fitted on training trials).
        unit: what one unit of the betas is.
        workers: files read at the same time.
        overwrite: replace a dataset that stands there.
    """
    made = bids.prepare_bids(
        src, out, mask=mask, subject=subject, images=images, pattern=pattern, image_column=image_column,
        test_images=test_images, test_fraction=test_fraction, seed=seed, atlases=atlases, scaling=scaling,
        unit=unit, workers=workers, overwrite=overwrite, show_progress=True,
    )  # fmt: skip
    tell(made)


def tell(dataset: Dataset) -> None:
    """Print what a prepared dataset holds, and what was noticed while it was made."""
    info = dataset.info
    n_train, n_test = (len(dataset.image_rows(split)) for split in ("train", "test"))
    print(
        f"{info.name}: {info.n_trials} trials x {info.n_voxels} voxels in {info.unit}; "
        f"{n_train} training and {n_test} test images -> {dataset.path}"
    )
    constant = info.provenance.get("constant_voxels") or []
    if constant:
        shown = ", ".join(map(str, constant[:8])) + (", ..." if len(constant) > 8 else "")
        print(f"{len(constant)} voxels never vary over the training trials (kept, ncsnr 0): {shown}")
    for note in info.provenance.get("notes") or []:
        print(note)
