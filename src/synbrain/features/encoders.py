"""The registry of image encoders. A further one is one function and one entry here."""

from __future__ import annotations

from typing import Any, Protocol

import torch

from synbrain.errors import SynBrainError
from synbrain.features.efficientnet import efficientnet_lite
from synbrain.features.encoder import PRECISIONS, Encoder, pick_device
from synbrain.features.joint import AND, encoders_of, joint_digest, joint_layer, joint_name
from synbrain.features.pixels import pixels
from synbrain.features.transformer import transformer
from synbrain.features.tuned import load_tuned
from synbrain.features.tuned_folder import PREFIX, tuned_folder

__all__ = ["ENCODERS", "Encoder", "EncoderFactory", "get_encoder"]


class EncoderFactory(Protocol):
    """Makes one encoder; ``weights`` None means its built-in ones, ``size`` None its own input size."""

    def __call__(
        self,
        name: str,
        weights: str | None,
        device: torch.device,
        precision: str = "float32",
        size: int | None = None,
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
    size: int | None = None,
) -> Encoder:
    """An encoder by name.

    Args:
        name: a key of ``ENCODERS``, or the folder or hub id of a tuned encoder (`synbrain tune-encoder`);
            several joined by ``+`` are one encoder with the layers of all.
        weights: file, folder or hub id of its weights; None for built-in ones (``clip`` has none). For
            the name of a tuned encoder, its folder or hub id; for several of those, joined by ``+``.
        device: as torch names it, or "auto".
        precision: "float32", or "bfloat16" / "float16" (autocast).
        size: of the pictures, pixels; None: the encoder's own. Only EfficientNets take another.

    Raises:
        SynBrainError: where the name is unknown or the weights cannot be loaded.

    >>> get_encoder("pixels").layers
    {'grid4': (16, 3), 'final': (256, 3)}
    """
    if len(names := encoders_of(name)) > 1:
        return _joint(names, weights, device=device, precision=precision, size=size)
    if precision not in PRECISIONS:
        raise SynBrainError(f"there is no precision {precision!r}", f"choose from {', '.join(PRECISIONS)}")
    where, given = pick_device(device), name
    if name.startswith(PREFIX) and weights is not None:
        given = weights
    folder = None if name in ENCODERS else tuned_folder(given)
    if folder is not None:
        encoder = load_tuned(folder, ENCODERS, where, precision, hub_id=given)
        if name.startswith(PREFIX) and encoder.name != name:
            raise SynBrainError(
                f"{given} holds {encoder.name}, not {name}", "give the folder of that encoder"
            )
        return encoder
    if name.startswith(PREFIX):
        raise SynBrainError(
            f"where the tuned encoder {name} lies is not known",
            "give its folder: --encoder-weights FOLDER beside a run, else --encoder FOLDER",
        )
    if name not in ENCODERS:
        raise SynBrainError(
            f"there is no encoder {name!r}",
            f"choose from {', '.join(ENCODERS)}, or give the folder of a tuned encoder; tokens of a file "
            "(`synbrain features --tokens`) have no network: in Python give their tokens",
        )
    if size is None:  # an encoder of a user's own need not know of other sizes
        return ENCODERS[name](name, weights, where, precision)
    return ENCODERS[name](name, weights, where, precision, size)


def _joint(names: list[str], weights: str | None, **how: Any) -> Encoder:
    """Several encoders as one; weights are those of the tuned ones among them, in their order."""
    given = iter(weights.split(AND) if weights is not None else [])
    parts = tuple(
        get_encoder(name, weights=next(given, None) if name.startswith(PREFIX) else None, **how)
        for name in names
    )

    def no_network(*_: Any) -> Any:
        raise SynBrainError(f"{joint_name(names)} has no network of its own", "encode with each of its parts")

    return Encoder(
        name=joint_name(part.name for part in parts),
        digest=joint_digest([part.digest for part in parts]),
        layers={joint_layer(p.name, layer): shape for p in parts for layer, shape in p.layers.items()},
        default_layer=joint_layer(parts[0].name, parts[0].default_layer),
        preprocess=parts[0].preprocess,
        describe={part.name: part.describe for part in parts},
        network=no_network,
        device=parts[0].device,
        parts=parts,
    )
