"""What preparing and fetching the Natural Scenes Dataset can be told. Light to import: no numpy."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from synbrain.data.options import MISSING_TRIALS, MissingTrials
from synbrain.data.units import ScalingKind

NsdSpace = Literal["func1pt8mm", "func1mm", "fsaverage"]
TestSet = Literal["shared1000", "shared515", "shared907"]
Repeats = Literal["all", "available", "complete"]
OtherShared = Literal["leave-out", "train"]
Betas = Literal["betas_assumehrf", "betas_fithrf", "betas_fithrf_GLMdenoise_RR"]
BUCKET = "natural-scenes-dataset"


class NsdOptions(BaseModel):
    """Which betas, voxels and trials of a subject become the dataset.

    >>> NsdOptions(scaling="session-zscore", rois=["prf-visualrois/V1v"]).test_set
    'shared1000'
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    betas: str = Field("betas_fithrf_GLMdenoise_RR", description="the beta version, a folder's name")
    space: NsdSpace = Field(
        "func1pt8mm", description="func1pt8mm or func1mm (int16 volumes), or fsaverage (float surface files)"
    )
    mask: str | Path | None = Field(
        None,
        description="a label volume's name, or a file on the grid of the betas, above 0 is in; nsdgeneral if "
        "neither this nor rois is given",
    )
    rois: list[str] | None = Field(
        None,
        description="take the union of these, such as floc-faces or prf-visualrois/V1v; within the mask if "
        "one is given",
    )
    scaling: ScalingKind = Field(
        "percent",
        description="percent signal change (int16 / 300), session-zscore (fitted on training trials), or "
        "reference (int16 / 2000, as published)",
    )
    sessions: int | str = Field("all", description="all, or how many of the first")
    test_set: TestSet = Field(
        "shared1000",
        description="shared1000, shared515 (all repeats in all subjects), or shared907 (seen by all)",
    )
    repeats: Repeats = Field(
        "all",
        description="refuse test images that lack repeats (all), use what there is (available), or only the "
        "complete ones",
    )
    other_shared: OtherShared = Field(
        "leave-out", description="shared images outside the test set: leave them out, or train on them"
    )
    missing_trials: MissingTrials = MISSING_TRIALS


class DownloadOptions(BaseModel):
    """Which of NSD's files are fetched, and from where.

    >>> DownloadOptions(sessions="2").format
    'nii.gz'
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    sessions: str = Field("all", description="all, or how many, from the first")
    betas: Betas = Field("betas_fithrf_GLMdenoise_RR", description="the beta version")
    space: Literal["func1pt8mm", "fsaverage"] = Field(
        "func1pt8mm", description="the subject's own volume at 1.8 mm, or the fsaverage surface"
    )
    format: Literal["nii.gz", "hdf5"] = Field(
        "nii.gz",
        description="file format of the volume betas; hdf5 needs no decompression of whole sessions",
    )
    no_stimuli: bool = Field(False, description="leave out the 73,000 images")
    endpoint_url: str | None = Field(None, description="another S3 server than Amazon's (a mirror)")
    bucket: str = Field(BUCKET, description="the bucket's name")
    workers: int = Field(4, ge=1, description="files fetched at once")
