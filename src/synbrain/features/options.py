"""What making tokens can be told. Light to import: no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class StoreOptions(BaseModel):
    """How tokens are written.

    >>> StoreOptions(batch_size=8).store is None
    True
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    batch_size: int = Field(32, description="images in one forward pass")
    threads: int = Field(2, description="threads that decode images ahead of the network")
    store: Path | None = Field(
        None,
        description="folder of tokens shared by the datasets of one HDF5 stimulus file: it gets every "
        "picture of the file, and the dataset a pointer to it",
    )


class FeatureOptions(StoreOptions):
    """Which encoder makes the tokens, and how.

    >>> FeatureOptions(encoder="pixels", layers=["grid4"]).device
    'auto'
    """

    encoder: str = Field(
        "efficientnet-lite0", description="name of the encoder (efficientnet-lite0, clip, pixels)"
    )
    layers: list[str] | None = Field(
        None, description="layers of the encoder's network; its final one by default"
    )
    weights: str | None = Field(
        None, description="file, folder or hub id of the encoder's weights; clip needs it"
    )
    tokens: Path | None = Field(
        None,
        description="tokens that you have already: a .npy of (images, width) or (images, tokens, width), "
        "stored under the name that --encoder gives, as the layer --layers (final)",
    )
    names: Path | None = Field(
        None,
        description="text file with the image of each row of --tokens, one a line; for an HDF5 stimulus file "
        "it may be left out, where --tokens has a row for each of its pictures",
    )
    device: str = Field("auto", description="auto, cpu, cuda, ...")
    precision: str = Field("float32", description="float32, bfloat16 or float16 (the latter two for GPUs)")

    @model_validator(mode="after")
    def _names_of_tokens(self) -> Self:
        if self.names is not None and self.tokens is None:
            raise ValueError("--names alone says nothing; it belongs to --tokens")
        return self
