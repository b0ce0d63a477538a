"""Named sizes of BrainVAE and Mapper, and what they cost: parameters, arithmetic, memory."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pydantic import ValidationError

from synbrain.errors import SynBrainError
from synbrain.networks.brainvae import BrainVAEConfig
from synbrain.networks.mapper import MapperConfig


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
        name: a key of ``PRESETS``, with ``-depthN`` (blocks of the mapper) or ``-downN`` (levels of the VAE
            that halve the length) behind it to change that alone.
        tokens: (n_tokens, dim) of the encoder's stage. The latent takes over the number of tokens; where
            the width differs from the latent's, the mapper gets an input projection. None: the preset's.

    Raises:
        SynBrainError: for an unknown name.
    """
    chosen = _called(name)
    if tokens is None:
        return chosen
    n_tokens, dim = tokens
    vae = chosen.vae.model_copy(update={"tokens": n_tokens})
    input_dim = dim if dim != chosen.mapper.dim else None
    mapper = chosen.mapper.model_copy(update={"tokens": n_tokens, "input_dim": input_dim})
    return Preset(vae, mapper)


def _called(name: str) -> Preset:
    if name in PRESETS:
        return PRESETS[name]
    changed = re.fullmatch(r"(.+)-(depth|down)(\d+)", name)
    if changed is None:
        raise SynBrainError(f"no preset {name!r}", f"choose one of {', '.join(PRESETS)}")
    base, number = _called(changed[1]), int(changed[3])
    try:
        if changed[2] == "depth":
            mapper = MapperConfig.model_validate(base.mapper.model_dump() | {"depth": number})
            return Preset(base.vae, mapper)
        blocks = {"down_blocks": number, "up_blocks": number}
        return Preset(BrainVAEConfig.model_validate(base.vae.model_dump() | blocks), base.mapper)
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise SynBrainError(f"preset {name!r} cannot be built ({reason})", "choose another number") from error
