"""What a user may say about the consistency of synthetic brains. Light to import: no torch."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field


class ConsistencyOptions(BaseModel):
    """How :func:`synbrain.analysis.consistency_report.consistency` compares brains.

    >>> ConsistencyOptions(samples=5).min_voxels
    10
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    categories: Path | None = Field(
        None,
        description="CSV with a column nsdId or name, and a column category; without it, no selectivity",
    )
    samples: int = Field(3, ge=2, description="synthetic trials per test image")
    min_voxels: int = Field(10, ge=1, description="areas with fewer voxels are left out")
    seed: int = Field(0, ge=0, description="of synthetic trials and of the shuffled control")
