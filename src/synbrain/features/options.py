"""What making tokens can be told. Light to import: no torch."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field


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
    device: str = Field("auto", description="auto, cpu, cuda, ...")
    precision: str = Field("float32", description="float32, bfloat16 or float16 (the latter two for GPUs)")
