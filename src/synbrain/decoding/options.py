"""What a user may say about a decoder's training."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from synbrain.data.budget import By
from synbrain.decoding.mindeye2.config import MindEye2Options


class DecoderOptions(BaseModel):
    """How :func:`synbrain.decoding.train.train_decoder` trains.

    Example:
        >>> DecoderOptions(method="ridge", budget="1h").grid
        3
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: str = Field("mindeye2", description="mindeye2, ridge, nearest, shuffled or mean")
    encoder: str = Field("efficientnet-lite0", description="whose tokens are decoded")
    layer: str | None = Field(None, description="token layer; the last that was made if left out")
    grid: int = Field(3, ge=0, description="side that the grid of tokens is pooled to; 0: every token")
    components: int = Field(64, ge=0, description="principal components of the tokens; 0: all")
    budget: int | str = Field("all", description="1h, a number or all; validation images come out of it")
    by: By = Field("session", description="what a number counts: first sessions, or images")
    budget_seed: int | None = Field(None, ge=0, description="draw the images of a budget by images")
    validation_fraction: float = Field(0.1, gt=0, lt=1, description="of the training images, for stopping")
    synthetic_weight: float = Field(
        0.5, ge=0, lt=1, description="share of a batch that is synthetic, where --augment is given"
    )
    shared_test_images: Literal["refuse", "drop"] = Field(
        "refuse", description="what to do about training images that are test images of another dataset"
    )
    seed: int = Field(0, ge=0, description="of weights, batches, noise and the held-out images")
    mindeye2: MindEye2Options = Field(MindEye2Options(), description="sizes, losses and steps of mindeye2")
