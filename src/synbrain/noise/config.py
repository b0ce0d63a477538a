"""Settings of the fit of trial noise."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class NoiseConfig(BaseModel):
    """How the trial noise is fitted; nothing here looks at test images."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    factors: tuple[int, ...] = Field(
        (0, 1, 2, 4, 8, 16, 32), min_length=1, description="numbers of shared factors to choose from"
    )
    mean_dependent: bool = Field(True, description="let the variance grow with the mean")
    shaped: bool = Field(True, description="let margins be skewed and flatter than a normal")
    inflation: Literal["none", "balanced", "predictive"] = Field(
        "balanced",
        description="what errors of the mean add to the variance: nothing, all of it (trials then vary too "
        "much), or what keeps coverage and variance ratio equally near to their targets",
    )
    max_ratio: float = Field(1.1, gt=1, description="balanced: bound on the median variance ratio")
    max_trials: int = Field(20_000, ge=100, description="trials from which the factors are fitted at most")
