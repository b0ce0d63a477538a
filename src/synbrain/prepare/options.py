"""What the reader of BIDS trees can be told. Light to import: no numpy."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class BidsOptions(BaseModel):
    """Which files of a BIDS tree are read, and how its images are split.

    >>> BidsOptions(subject="01").test_fraction
    0.2
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    mask: Path | None = Field(
        None,
        description="volume on the grid of the betas, above 0 is in; the only *_mask.nii.gz if left out",
    )
    subject: str | None = Field(None, description="01 for sub-01; needed where there are several")
    images: Path | None = Field(
        None,
        description="folder that image names are relative to; SRC/stimuli or SRC/images if left out",
    )
    pattern: str | None = Field(
        None, description='file names of the betas, such as "*space-T1w*_betas.nii.gz"'
    )
    image_column: str | None = Field(
        None, description="events column that names the image; stim_file, ..., trial_type if left out"
    )
    test_images: Path | None = Field(None, description="text file of the test images' names, one a line")
    test_fraction: float = Field(
        0.2, description="share of images drawn for the test where no split is given"
    )
    seed: int = Field(0, ge=0, description="of that draw")
    atlases: list[Path] | None = Field(
        None, description="label volumes on the grid of the betas, names from .ctab or .tsv beside them"
    )
    scaling: Literal["none", "session-zscore"] = Field(
        "none", description="none, or session-zscore (fitted on training trials; one file per session)"
    )
    unit: str = Field("as recorded", description="what one unit of the betas is; z-scores name themselves")
