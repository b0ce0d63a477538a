"""Named sizes of BrainVAE and Mapper, and what they cost: parameters, arithmetic, memory."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from synbrain.errors import SynBrainError
from synbrain.networks.brainvae import BrainVAE, BrainVAEConfig
from synbrain.networks.mapper import Mapper, MapperConfig, mlp_parameters


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
        said = error.errors()[0]["msg"]
        raise SynBrainError(f"preset {name!r} cannot be built ({said})", "choose another number") from error


def parameter_counts(vae: BrainVAEConfig, mapper: MapperConfig) -> dict[str, int]:
    """Trainable parameters of both networks and of their parts; nothing is allocated.

    "mapper_folded" is what inference needs (:meth:`Mapper.fold`), "mapper_mlps" what the published few-shot
    adaptation trains.
    """
    with torch.device("meta"):
        v, m = BrainVAE(vae), Mapper(mapper)
        folded = Mapper(mapper.model_copy(update={"modulation": "constant"}))
    mlps = set(mlp_parameters(m))
    return {
        "vae": _size(v),
        "vae_encoder": _size(v.encoder),
        "vae_decoder": _size(v.decoder),
        "vae_heads": _size(v.mean_head) + _size(v.logvar_head),
        "vae_post": _size(v.post),
        "mapper": _size(m),
        "mapper_folded": _size(folded),
        "mapper_mlps": sum(p.numel() for name, p in m.named_parameters() if name in mlps),
    }


def step_gflop(vae: BrainVAEConfig, mapper: MapperConfig, n_voxels: int) -> dict[str, float]:
    """Arithmetic per sample, in GFLOP (1e9 multiplications and additions), of the plain operations.

    Winograd's convolutions do fewer than these; element-wise work is not counted. Keys: "vae_encode",
    "vae_forward", "vae_step" (forward and backward), "mapper_forward", "mapper_step".
    """
    with torch.device("meta"):
        v, m = BrainVAE(vae, fast=False), Mapper(mapper)
        y, noise = torch.empty(1, n_voxels), torch.empty(1, vae.tokens, vae.dim)
        tokens = torch.empty(1, *mapper.token_shape)
    forward = _gflop(lambda: v(y, noise)[0])
    mapped = _gflop(lambda: m(tokens))
    return {
        "vae_encode": _gflop(lambda: v.encode(y).mean),
        "vae_forward": forward,
        "vae_step": _gflop(lambda: v(y, noise)[0].sum().backward()),
        "mapper_forward": mapped,
        "mapper_step": _gflop(lambda: m(tokens).sum().backward()),
    }


def activation_bytes(
    vae: BrainVAEConfig,
    mapper: MapperConfig,
    n_voxels: int,
    *,
    batch: int = 1,
    checkpointing: bool = False,
    fast: bool = True,
) -> dict[str, int]:
    """Bytes that autograd keeps for the backward pass of one float32 training step, without parameters.

    Args:
        vae, mapper: sizes.
        n_voxels: of a response.
        batch: samples of a step.
        checkpointing: with recomputed activations.
        fast: with the fast paths of a CPU in float32; False for other devices.
    """
    with FakeTensorMode():  # CPU tensors without data: what a CPU keeps is kept, nothing is allocated
        v = BrainVAE(vae, checkpointing=checkpointing, fast=fast)
        m = Mapper(mapper, checkpointing=checkpointing)
        y, noise = torch.empty(batch, n_voxels), torch.empty(batch, vae.tokens, vae.dim)
        tokens = torch.empty(batch, *mapper.token_shape)
        return {
            "vae": saved_bytes(lambda: v(y, noise), v),
            "mapper": saved_bytes(lambda: m(tokens), m),
        }


def saved_bytes(forward: Callable[[], object], network: nn.Module) -> int:
    """Bytes of the distinct tensors that autograd keeps of ``forward()``, parameters not counted."""
    owned = {p.untyped_storage()._cdata for p in network.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}  # holds them, so that no address is used twice

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in owned:
            kept[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = forward()
    del result
    return sum(storage.nbytes() for storage in kept.values())


def _size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _gflop(work: Callable[[], object]) -> float:
    counter = FlopCounterMode(display=False)
    with counter:
        work()
    return float(counter.get_total_flops()) / 1e9
