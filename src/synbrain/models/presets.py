"""Named sizes of BrainVAE and Mapper, and what they cost: parameters, arithmetic, memory."""

from __future__ import annotations

from dataclasses import dataclass

from synbrain.errors import SynBrainError
from synbrain.models.brainvae import BrainVAEConfig
from synbrain.models.mapper import MapperConfig


@dataclass(frozen=True)
class Preset:
    """Sizes of both networks."""

    vae: BrainVAEConfig
    mapper: MapperConfig


def _paper(down_blocks: int, depth: int) -> Preset:
    return Preset(BrainVAEConfig(down_blocks=down_blocks, up_blocks=down_blocks), MapperConfig(depth=depth))


# The published sizes: d = 4096, 2048, 1024 (Table 5 of the paper), mapper depth 4, 8, 12 (Table 6).
PRESETS: dict[str, Preset] = {
    "tiny": Preset(
        BrainVAEConfig(
            tokens=49,
            dim=64,
            channels=16,
            multipliers=(1, 2, 2),
            res_blocks=1,
            pooled_length=512,
            down_blocks=2,
            up_blocks=2,
            projector_width=128,
        ),
        MapperConfig(tokens=49, dim=64, depth=2, heads=4),
    ),
    "small": Preset(
        BrainVAEConfig(
            tokens=49,
            dim=256,
            channels=32,
            multipliers=(2, 4, 4),
            pooled_length=2048,
            projector_width=512,
        ),
        MapperConfig(tokens=49, dim=256, depth=4, heads=8),
    ),
    "paper-4096": _paper(1, 8),
    "paper-2048": _paper(2, 8),
    "paper-1024": _paper(3, 8),
    "paper-4096-depth4": _paper(1, 4),
    "paper-4096-depth12": _paper(1, 12),
}


def preset(name: str, tokens: tuple[int, int] | None = None) -> Preset:
    """The sizes called ``name``, fitted to an encoder.

    Args:
        name: a key of ``PRESETS``.
        tokens: (n_tokens, dim) of the encoder's stage. The latent takes over the number of tokens; where
            the width differs from the latent's, the mapper gets an input projection. None: the preset's.

    Raises:
        SynBrainError: for an unknown name.
    """
    if name not in PRESETS:
        raise SynBrainError(f"no preset {name!r}", f"choose one of {', '.join(PRESETS)}")
    chosen = PRESETS[name]
    if tokens is None:
        return chosen
    n_tokens, dim = tokens
    vae = chosen.vae.model_copy(update={"tokens": n_tokens})
    input_dim = dim if dim != chosen.mapper.dim else None
    mapper = chosen.mapper.model_copy(update={"tokens": n_tokens, "input_dim": input_dim})
    return Preset(vae, mapper)
