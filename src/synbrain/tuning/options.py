"""What tuning an encoder can be told. Light to import: no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from synbrain.networks.config import LoopConfig, Precision
from synbrain.training.options import SharedTestImages

# Layers that the readouts see by default: the middle of the network and what follows, as V4 asks for.
LAYERS = {
    "efficientnet-lite0": ("block7", "block10", "block14"),
    "efficientnet-lite2": ("block10", "block14", "block19"),
}
# Pixels, of EfficientNets. 112 costs a quarter, and its readouts are as good; but the linear path of a
# session that was not tuned on gains half as much: its windows see a coarser map (docs/research/tuning.md).
SIZE = 224
# Of the network's weights. For EfficientNets four times what was tried first is better; for other networks no
# other was tried (docs/research/tuning.md, "Other ways to tune it").
RATE, EFFICIENTNET_RATE = 2e-4, 8e-4


class TuneOptions(BaseModel):
    """How an encoder is tuned.

    >>> TuneOptions(epochs=2).loop(n_steps=100).warmup_steps
    10
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    encoder: str = Field("efficientnet-lite0", description="the registered encoder that is tuned")
    weights: str | None = Field(
        None, description="file, folder or hub id of its weights; built-in by default"
    )
    layers: list[str] | None = Field(
        None, description="layers that the readouts see, and that the tuned encoder has; by default three"
    )
    size: int | None = Field(
        None, ge=16, description="of the pictures, pixels; 224 for EfficientNets, else the encoder's own"
    )
    side: int | None = Field(
        None, ge=1, description="rows of the map that readouts see; those of the finest layer, at most 16"
    )
    channels: int = Field(192, ge=1, description="of that map")
    freeze: list[str] = Field(
        [], description="parts of the network that stay as they are, by the beginning of their name"
    )
    epochs: int = Field(6, ge=1, description="passes over the images of all subjects")
    batch_size: int = Field(32, ge=1, description="images in a step, of all subjects, over all processes")
    lr: float | None = Field(
        None, gt=0, description="learning rate of the encoder's weights; 8e-4 for EfficientNets, else 2e-4"
    )
    lr_readout: float = Field(5e-3, gt=0, description="of the map's convolution and of readout weights")
    lr_places: float = Field(0.12, gt=0, description="of the places that readouts look at")
    weight_decay: float = Field(0.01, ge=0, description="of AdamW")
    warmup: float = Field(0.1, ge=0, lt=1, description="share of the steps in which the rates rise")
    loss: Literal["squared", "poisson"] = Field(
        "squared", description="squared error of z-scored repeat means, or Poisson for counts"
    )
    ceiling_weights: bool = Field(
        False, description="weigh each unit by its noise ceiling where single trials are there"
    )
    teachers: list[str] = Field(
        [], description="tuned encoders, of the same datasets, whose readouts are learned from as well"
    )
    taught_weight: float = Field(
        1.0, ge=0, description="of what teachers predict for units of other subjects, beside what is measured"
    )
    contrast: float = Field(
        0.0, ge=0, lt=1, description="augmentation: brightness and contrast vary by this share; nothing moves"
    )
    lora_rank: int = Field(0, ge=0, description="train low-rank updates of this rank (peft); 0: the weights")
    validation_fraction: float = Field(
        0.1, gt=0, lt=1, description="share of the training images that the encoder is not tuned on"
    )
    shared_test_images: SharedTestImages = Field(
        "refuse", description="what to do about training images that are test images of another dataset"
    )
    precision: Precision = Field(
        "auto", description="autocast; auto: bf16 on a CPU with instructions for it, else fp32"
    )
    device: str = Field("auto", description="auto, cpu, cuda, ...")
    checkpoint_minutes: float = Field(10.0, gt=0, description="time between checkpoints")
    seed: int = Field(0, description="of readouts, batches and the images held out")

    @property
    def size_of_pictures(self) -> int | None:
        """``size``, or 224 for EfficientNets."""
        return self.size or (SIZE if self._is_efficientnet else None)

    @property
    def rate(self) -> float:
        """``lr``, or 8e-4 for EfficientNets and 2e-4 for others."""
        return self.lr or (EFFICIENTNET_RATE if self._is_efficientnet else RATE)

    @property
    def _is_efficientnet(self) -> bool:
        return self.encoder.startswith("efficientnet")

    def loop(self, n_steps: int) -> LoopConfig:
        """Settings of the training loop: rates rise, then fall along a cosine; the last weights are kept.

        No step is chosen by the held-out images, so that they can choose penalties afterwards.
        """
        return LoopConfig(
            lr=self.rate,
            weight_decay=self.weight_decay,
            schedule="cosine",
            warmup_steps=round(self.warmup * n_steps),
            batch_size=self.batch_size,
            precision=self.precision,
            stop="never",
            checkpoint_minutes=self.checkpoint_minutes,
        )
