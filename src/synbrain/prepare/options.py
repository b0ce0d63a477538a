"""What the readers of tables and BIDS trees can be told. Light to import: no numpy."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from synbrain.data.options import MISSING_TRIALS, MissingTrials, PictureOptions

Mesh = Literal["fsaverage", "fsaverage6", "fsaverage5", "fsLR", "other"]


class SourceOptions(PictureOptions):
    """Where the images lie, and which of them are test images.

    >>> SourceOptions().test_fraction
    0.2
    """

    images: Path | None = Field(
        None,
        description="folder that image names are relative to; SRC/images or SRC/stimuli if left out",
    )
    test_images: Path | None = Field(
        None,
        description="text file of the test images' names, one a line; or the word repeated: all images that "
        "were shown more than once",
    )
    test_fraction: float = Field(
        0.2, ge=0, le=1, description="share of images drawn for the test where no split is given"
    )
    seed: int = Field(0, ge=0, description="of that draw")


class SurfaceOptions(SourceOptions):
    """Which hemispheres of betas on a surface are taken, and on which mesh they lie.

    >>> SurfaceOptions(mesh="fsLR").hemispheres
    'both'
    """

    mesh: Mesh | None = Field(
        None,
        description="mesh of the vertices; if left out what the files' names say (space-fsaverage), or their "
        "number. Maps are drawn on that of fsaverage",
    )
    hemispheres: Literal["both", "left", "right"] = Field(
        "both", description="of betas with a file a hemisphere: both, or one alone"
    )
    missing_trials: MissingTrials = MISSING_TRIALS


class BidsOptions(SurfaceOptions):
    """Which files of a BIDS tree are read, and how its images are split.

    >>> BidsOptions(subject="01").test_fraction
    0.2
    """

    mask: Path | None = Field(
        None,
        description="volume on the grid of the betas, above 0 is in; the only *_mask.nii.gz or mask.nii.gz "
        "if left out. On a surface .label, .annot, .label.gii, .shape.gii, .mgz (of one hemisphere: that of "
        "the other lies beside it) or .dlabel.nii; all vertices if left out",
    )
    subject: str | None = Field(None, description="01 for sub-01; needed where there are several")
    pattern: str | None = Field(
        None, description='file names of the betas, such as "*space-T1w*_betas.nii.gz"'
    )
    image_column: str | None = Field(
        None, description="events column that names the image; stim_file, ..., trial_type if left out"
    )
    trial_order: Literal["refuse", "onset", "table"] = Field(
        "refuse",
        description="what order the volumes have where events do not stand in the order of their onsets: "
        "refuse, that of the onsets, or that of the table's lines",
    )
    design: Path | None = Field(
        None,
        description="a table with one line per volume over all files (image, optionally session, run and "
        "split), or a .txt of image names alone, instead of events",
    )
    atlases: list[Path] | None = Field(
        None,
        description="label volumes on the grid of the betas, names from .ctab or .tsv beside them; on a "
        "surface label files as for --mask",
    )
    scaling: Literal["none", "session-zscore"] = Field(
        "none", description="none, or session-zscore (fitted on the training trials of each session)"
    )
    unit: str = Field("as recorded", description="what one unit of the betas is; z-scores name themselves")


class TableOptions(SurfaceOptions):
    """What is known of the columns of a response array, how images are split, and how pictures are decoded.

    >>> TableOptions(background="grey").mask_order
    'C'
    """

    responses: list[Path] | None = Field(
        None,
        description="files of the responses, where they are no SRC/responses.npy: one .npy, or .func.gii, "
        ".shape.gii, .mgh (both hemispheres), .dscalar.nii or .dtseries.nii with a map a trial; several are "
        "joined in the natural order of their names",
    )
    voxels: Path | None = Field(
        None,
        description="table with one line per response column: x, y, z (mm), or vertex; hemisphere, "
        "ncsnr, and "
        "a column per atlas; SRC/voxels.csv if left out and there",
    )
    mask: Path | None = Field(
        None,
        description="volume whose voxels above 0 are the response columns; SRC/mask.nii.gz if left "
        "out and there. Of responses on a surface: the vertices to take, as for prepare bids",
    )
    mask_order: Literal["C", "F"] = Field(
        "C",
        description="order of the mask's voxels: x slowest (C, as numpy and nilearn) or x fastest "
        "(F, as MATLAB)",
    )
    atlases: list[Path] | None = Field(
        None,
        description="label volumes in the space of the mask, names from .ctab or .tsv beside them; of "
        "responses on a surface label files (.annot, .label, .label.gii, .mgz, .dlabel.nii)",
    )
