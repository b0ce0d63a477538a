"""What the published checkpoints do not say about themselves. Light to import: no torch."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class ReferenceOptions(BaseModel):
    """Whose checkpoints they are, and of which sizes.

    >>> ReferenceOptions(subject="subj02").n_voxels is None
    True
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    subject: str = Field("subj01", description="the subject's name in the run")
    n_voxels: int | None = Field(
        None, description="voxels of its responses; NSD's for subj01 to subj08 if left out"
    )
    heads: int | None = Field(
        None, description="attention heads of the mapper, where its checkpoint does not say"
    )
    weights: str | None = Field(
        None, description="CLIP weights (folder or hub id) to record the encoder's digest of; any if left out"
    )
