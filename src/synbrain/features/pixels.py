"""Colours on a coarse grid: no network at all, a control for every encoder and quick in tests."""

from __future__ import annotations

import torch

from synbrain.errors import SynBrainError
from synbrain.features.encoder import Encoder, encoder_digest, grid_tokens, own_size_only
from synbrain.features.preprocessing import Preprocessing

GRIDS = {"grid4": 4, "final": 16}


def pixels(
    name: str,
    weights: str | None,
    device: torch.device,
    precision: str = "float32",
    size: int | None = None,
) -> Encoder:
    """Mean R, G, B in [0, 1] of 16 x 16 (``final``) or 4 x 4 (``grid4``) patches."""
    if weights is not None:
        raise SynBrainError("the pixels encoder has no weights", "leave --weights out")
    own_size_only(name, size, 64)
    preprocess = Preprocessing(64, "pil-bicubic", value_range=1, mean=(0.0,) * 3, std=(1.0,) * 3)
    layers = {layer: (rows**2, 3) for layer, rows in GRIDS.items()}
    describe = {
        "preprocessing": preprocess.describe(),
        "layers": {layer: list(shape) for layer, shape in layers.items()},
        "tokens": "grid, row-major, average-pooled",
    }

    def network(batch: torch.Tensor, wanted: tuple[str, ...]) -> dict[str, torch.Tensor]:
        return {layer: grid_tokens(batch, GRIDS[layer]) for layer in wanted}

    return Encoder(
        name=name,
        digest=encoder_digest(name, "none", describe),
        layers=layers,
        default_layer="final",
        preprocess=preprocess,
        describe=describe,
        network=network,
        device=device,
        precision=precision,
    )
