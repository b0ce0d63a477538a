"""What a user may say about a comparison."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from synbrain.evaluation.options import N_SAMPLES
from synbrain.metrics.intervals import N_BOOTSTRAP
from synbrain.metrics.retrieval import N_SUBSETS, N_WAY
from synbrain.training.options import AdaptOptions, MapperOptions, VAEOptions
from synbrain.training.overrides import given_values


class CompareOptions(BaseModel):
    """Which methods a comparison fits, and how it scores them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    methods: list[str] = Field(
        ["all"],
        description="all (every system), groups (controls, linear, networks, bounds, ablations) or names, "
        "with commas or spaces between; mean_map, ridge and ceiling come along in any case",
    )
    seeds: int = Field(3, ge=1, description="number of seeds; what does not depend on a seed is fitted once")
    preset: str = Field("tiny", description="sizes of the networks")
    encoder: str = Field("efficientnet-lite0", description="whose tokens to use; A+B reads those of both")
    layers: list[str] | None = Field(None, description="token layers; all that were made if left out")
    samples: int = Field(
        N_SAMPLES, ge=2, description="synthetic trials per test image (at least 19 for 90 % intervals)"
    )
    n_way: int = Field(N_WAY, ge=2, description="candidates in raw and synthetic retrieval")
    n_subsets: int = Field(N_SUBSETS, ge=1, description="random sets of candidates in retrieval")
    device: str = Field("auto", description="where methods are fitted and scored: auto, cpu, cuda or mps")
    n_bootstrap: int = Field(N_BOOTSTRAP, ge=1, description="bootstrap samples over test images")
    vae: VAEOptions = Field(
        VAEOptions(),
        description="settings of stage 1 that differ, for every method with networks of SynBrain",
    )
    mapper: MapperOptions = Field(MapperOptions(), description="settings of stage 2, likewise")

    @property
    def changes(self) -> dict[str, Any]:
        """Values of the training configuration that differ from every recipe, nested."""
        return given_values({"vae": self.vae, "mapper": self.mapper})


class AdaptationCurveOptions(AdaptOptions):
    """Which budgets of a new subject's images are adapted to; ``budget`` is replaced by each of them.

    >>> AdaptationCurveOptions(budgets=["25", "all"], draws=2, networks=False).by
    'session'
    """

    budgets: list[str] = Field(
        ["10", "25", "50", "100", "all"],
        description="numbers of distinct training images, 1h (250 images) or all",
    )
    draws: int = Field(
        5, ge=1, description="random draws of each budget's images; --seed is that of the first draw"
    )
    n_bootstrap: int = Field(N_BOOTSTRAP, ge=1, description="bootstrap samples over test images")
