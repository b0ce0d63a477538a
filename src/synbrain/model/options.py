"""What a user may say about predictions and synthetic trials that go to a file."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from synbrain.data.options import PictureOptions
from synbrain.networks.config import Precision

Format = Literal["npy", "nifti", "gifti", "cifti", "csv", "parquet", "netcdf"]


class OutputOptions(PictureOptions):
    """Whose responses are written, in what form, and how the pictures are decoded."""

    by: Literal["voxel", "roi"] = Field("voxel", description="voxels, or means over each ROI")
    subject: str | None = Field(None, description="whose responses, where the run has several subjects")
    format: Format | None = Field(
        None,
        description="must agree with the suffix of --out, which decides by itself where this is left out",
    )
    encoder_weights: str | None = Field(
        None, description="file, folder or hub id of the encoder's weights, where the run cannot name it"
    )
    batch_size: int | None = Field(
        None, ge=1, description="images at a time; by default 32, or up to 256 where a run has no networks"
    )


class PredictOptions(OutputOptions):
    """How :func:`synbrain.model.prediction.predict_to` predicts.

    >>> PredictOptions(sd=True, background="grey").by
    'voxel'
    """

    sd: bool = Field(
        False,
        description="also write the predictive sd of a single trial: trial noise and what is not known of "
        "the mean",
    )
    interval: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="also write the bounds of the central interval that holds a single trial with this "
        "probability, such as 0.9",
    )
    samples: int = Field(
        200, ge=20, description="predictive draws an image from which sd and intervals of ROI means are made"
    )
    seed: int = Field(0, ge=0, description="of these draws")


class SynthesizeOptions(OutputOptions):
    """How :func:`synbrain.model.synthesis.synthesize` draws trials.

    >>> SynthesizeOptions(samples=100, seed=7).noise_factor is None
    True
    """

    samples: int = Field(8, ge=1, description="trials per image")
    seed: int = Field(0, ge=0, description="of the trials; one seed, the same bytes")
    noise_factor: float | None = Field(
        None, description="published isotropic noise on the latents instead of the run's trial noise"
    )
    precision: Precision = Field(
        "auto",
        description="of the networks; auto: bf16 for wide ones on a CPU with AMX or AVX-512 BF16, else fp32",
    )
