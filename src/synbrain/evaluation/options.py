"""What a user may say about an evaluation."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from synbrain.metrics.intervals import N_BOOTSTRAP
from synbrain.metrics.retrieval import N_SUBSETS, N_WAY

N_SAMPLES = 20


class EvaluateOptions(BaseModel):
    """How :func:`synbrain.evaluate` scores.

    >>> EvaluateOptions(samples=40, rows=["mean_map", "ridge"]).seed
    0
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    samples: int = Field(
        N_SAMPLES, ge=2, description="synthetic trials per test image (19 at least for 90 % intervals)"
    )
    seed: int = Field(0, ge=0, description="of synthetic trials, baselines, retrieval subsets and bootstrap")
    rows: list[str] = Field(
        ["mean_map", "ridge", "ceiling", "oracle"],
        description="control rows: names of baselines, ceiling, oracle (simulated data only)",
    )
    subject: str | None = Field(
        None, description="of a run with several subjects; the dataset's own where left out"
    )
    n_way: int = Field(N_WAY, ge=2, description="candidates in raw and synthetic retrieval")
    n_subsets: int = Field(N_SUBSETS, ge=1, description="random sets of candidates in retrieval")
    n_bootstrap: int = Field(N_BOOTSTRAP, ge=1, description="bootstrap samples over test images")
