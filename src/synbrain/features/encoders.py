"""The registry of image encoders. A further one is one function and one entry here."""

from __future__ import annotations

from typing import Protocol

import torch

from synbrain.errors import SynBrainError
from synbrain.features.efficientnet import efficientnet_lite
from synbrain.features.encoder import PRECISIONS, Encoder, pick_device
from synbrain.features.pixels import pixels
from synbrain.features.transformer import transformer

__all__ = ["ENCODERS", "Encoder", "EncoderFactory", "get_encoder"]


class EncoderFactory(Protocol):
    """Makes one encoder; ``weights`` None means its built-in ones."""

    def __call__(
        self, name: str, weights: str | None, device: torch.device, precision: str = "float32"
    ) -> Encoder: ...


ENCODERS: dict[str, EncoderFactory] = {
    "efficientnet-lite0": efficientnet_lite,
    "efficientnet-lite2": efficientnet_lite,
    "clip": transformer,
    "dinov2": transformer,
    "mae": transformer,
    "siglip": transformer,
    "pixels": pixels,
}


def get_encoder(
    name: str,
    *,
    weights: str | None = None,
    device: str | torch.device = "cpu",
    precision: str = "float32",
) -> Encoder:
    """An encoder by name.

    Args:
        name: a key of ``ENCODERS``.
        weights: file, folder or hub id of its weights; None for built-in ones (``clip`` has none).
        device: as torch names it, or "auto".
        precision: "float32", or "bfloat16" / "float16" (autocast).

    Raises:
        SynBrainError: where the name is unknown or the weights cannot be loaded.

    >>> get_encoder("pixels").layers
    {'grid4': (16, 3), 'final': (256, 3)}
    """
    if name not in ENCODERS:
        raise SynBrainError(f"there is no encoder {name!r}", f"choose from {', '.join(ENCODERS)}")
    if precision not in PRECISIONS:
        raise SynBrainError(f"there is no precision {precision!r}", f"choose from {', '.join(PRECISIONS)}")
    return ENCODERS[name](name, weights, pick_device(device), precision)
