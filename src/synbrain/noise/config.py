"""Settings of the fit of trial noise and of the mean's uncertainty."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class NoiseConfig(BaseModel):
    """How both uncertainties are fitted; nothing here looks at test images."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    factors: tuple[int, ...] = Field(
        (0, 1, 2, 4, 8, 16, 32), min_length=1, description="numbers of shared factors to choose from"
    )
    mean_dependent: bool = Field(True, description="let the trial variance grow with the mean")
    shaped: bool = Field(True, description="let margins be skewed and flatter or heavier than a normal")
    by_distance: bool = Field(True, description="let the mean be less certain for images far from training")
    max_trials: int = Field(20_000, ge=100, description="trials from which the factors are fitted at most")
