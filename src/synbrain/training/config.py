"""What training can be told; every quirk of the published recipe is a value here.

The values of the published recipe and where each comes from stand in ``recipes.py``;
``docs/research/quirks.md`` is the ledger of what each does.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from synbrain.linear.config import LinearPathConfig
from synbrain.networks.config import MapperStageConfig, VAEStageConfig
from synbrain.noise.config import NoiseConfig


class TrainConfig(BaseModel):
    """One training run, complete: what ``synbrain train`` resolves its recipe and options to."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    recipe: str = "calibrated"
    preset: str = Field("tiny", description="sizes of the networks, a name in networks/presets.py")
    network_layer: str | None = Field(None, description="encoder layer the networks read; none: the last")
    scale: Literal["standardise", "raw"] = Field(
        "standardise", description="responses as z-scores over training trials, or as they are"
    )
    validation_fraction: float = Field(0.1, gt=0, lt=1, description="of the training images")
    subject_weights: dict[str, float] = Field(
        default_factory=dict, description="of each subject in sampling; empty: its number of trials"
    )
    linear_path: bool = Field(True, description="give the mean a linear path, fitted first")
    response_noise: bool = Field(True, description="fit the trial noise, last")
    linear: LinearPathConfig = LinearPathConfig()
    noise: NoiseConfig = NoiseConfig()
    shrink: Literal["none", "subject", "voxel"] = Field(
        "subject", description="factor on the networks' part, fitted on validation images"
    )
    vae: VAEStageConfig = VAEStageConfig()
    mapper: MapperStageConfig = MapperStageConfig()
    seed: int = Field(0, ge=0)
