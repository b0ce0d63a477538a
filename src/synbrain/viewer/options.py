"""What a user may say about the page."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from synbrain.evaluation.options import N_SAMPLES


class ViewOptions(BaseModel):
    """How :func:`synbrain.viewer.view.view` shows a run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    subject: str | None = Field(None, description="whose responses, where the run has several subjects")
    images: int = Field(8, ge=1, description="test images in an exported page")
    trials: int = Field(4, ge=0, description="single synthetic trials shown of each picture")
    seed: int = Field(0, ge=0, description="of the synthetic trials")
    mni: bool = Field(False, description="the voxel positions are MNI mm, though the data do not say so")
    port: int = Field(8765, ge=0, le=65535, description="of the local page; any free one where it is taken")
    browser: bool = Field(True, description="open the page in a browser")


class ReportOptions(BaseModel):
    """How :func:`synbrain.viewer.report.report` scores and shows a run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    samples: int = Field(
        N_SAMPLES, ge=2, description="synthetic trials per test image that are scored, as in `evaluate`"
    )
    seed: int = Field(0, ge=0, description="of synthetic trials, baselines, decoded pictures and bootstrap")
    mni: bool = Field(False, description="the voxel positions are MNI mm, though the data do not say so")
    title: str = Field("SynBrain report", description="heading of the page")
