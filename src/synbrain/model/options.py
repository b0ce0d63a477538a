"""What a user may say about predictions and synthetic trials that go to a file."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from synbrain.networks.config import Precision

Format = Literal["npy", "nifti", "gifti", "cifti", "csv", "parquet", "netcdf"]
OF_FORMAT = "must agree with the suffix of --out, which decides by itself where this is left out"


class PredictOptions(BaseModel):
    """How :func:`synbrain.model.prediction.predict_to` predicts."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sd: bool = Field(False, description="also write the sd of single trials")
    interval: float | None = Field(
        None, gt=0, lt=1, description="also write the bounds of the central interval of trials, such as 0.9"
    )
    by: Literal["voxel", "roi"] = Field("voxel", description="voxels, or means over each ROI")
    samples: int = Field(200, ge=20, description="trials an image from which intervals (and ROI sd) are made")
    seed: int = Field(0, ge=0, description="of these trials")
    subject: str | None = Field(None, description="whose responses, where the run has several subjects")
    format: Format | None = Field(None, description=OF_FORMAT)
    batch_size: int = Field(32, ge=1, description="images at a time")


class SynthesizeOptions(BaseModel):
    """How :func:`synbrain.model.synthesis.synthesize` draws trials."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    samples: int = Field(8, ge=1, description="trials per image")
    seed: int = Field(0, ge=0, description="of the trials; one seed, the same bytes")
    subject: str | None = Field(None, description="whose responses, where the run has several subjects")
    noise_factor: float | None = Field(
        None, description="published isotropic noise on the latents instead of the run's trial noise"
    )
    precision: Precision = Field(
        "auto", description="of the networks; auto: bf16 for wide ones on a CPU with AMX, else fp32"
    )
    by: Literal["voxel", "roi"] = Field("voxel", description="voxels, or means over each ROI")
    format: Format | None = Field(None, description=OF_FORMAT)
    batch_size: int = Field(32, ge=1, description="images at a time")
