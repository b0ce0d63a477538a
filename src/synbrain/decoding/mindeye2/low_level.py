"""MindEye2's optional low-level head: a blurry picture's latents from the backbone's hidden vector.

    hidden (n, h) -> linear -> (n, 64, 7, 7) -> norm -> VAE decoder -> (n, 4, 28, 28) latents of Stable
                                             Diffusion -> 1x1 convolutions   -> (n, 49, 512) auxiliary
                                             features

Sources: MedARC-AI/MindEyeV2 ``models.py`` (read, not copied). Names of parameters are the published ones.
The VAE decoder is that of diffusers, which is needed for it alone (``pip install 'synbrain[pictures]'``).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from synbrain.errors import SynBrainError

CHANNELS, SIDE = 64, 7
AUXILIARY = 512
PREFIXES = ("blin1.", "bnorm.", "bupsampler.", "b_maps_projector.")


class LowLevelHead(nn.Module):
    """The head beside a backbone; ``hidden`` is the width of what the blocks give."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.blin1 = nn.Linear(hidden, CHANNELS * SIDE * SIDE)
        self.bdropout = nn.Dropout(0.3)
        self.bnorm = nn.GroupNorm(1, CHANNELS)
        self.bupsampler = _vae_decoder()
        self.b_maps_projector = nn.Sequential(
            nn.Conv2d(CHANNELS, AUXILIARY, 1, bias=False),
            nn.GroupNorm(1, AUXILIARY),
            nn.ReLU(),
            nn.Conv2d(AUXILIARY, AUXILIARY, 1, bias=False),
            nn.GroupNorm(1, AUXILIARY),
            nn.ReLU(),
            nn.Conv2d(AUXILIARY, AUXILIARY, 1),
        )

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """(latents (n, 4, 28, 28), auxiliary features (n, 49, 512)) of (n, hidden)."""
        maps = self.bnorm(self.bdropout(self.blin1(hidden)).unflatten(1, (CHANNELS, SIDE, SIDE)))
        return self.bupsampler(maps), self.b_maps_projector(maps).flatten(2).transpose(1, 2)


def _vae_decoder() -> Any:
    try:
        from diffusers.models.autoencoders.vae import Decoder
    except ImportError as error:
        raise SynBrainError(
            "the low-level head needs diffusers", "install it with `pip install 'synbrain[pictures]'`"
        ) from error
    return Decoder(
        in_channels=CHANNELS,
        out_channels=4,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(32, 64, 128),
        layers_per_block=1,
    )


def low_level_weights(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The head's tensors of a backbone's; empty where the checkpoint was trained without it.

    Older diffusers named the attention's projections otherwise; both are read.
    """
    renamed = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
    head = {name: value for name, value in state.items() if name.startswith(PREFIXES)}
    for old, new in renamed.items():
        head = {name.replace(f"attentions.0.{old}.", f"attentions.0.{new}."): v for name, v in head.items()}
    return head
