"""Parameter names of the released code's networks against ours, both ways.

Ours differ in three things: attention projections are one linear layer instead of three 1x1 convolutions,
decoder levels are stored in the order in which they run, positions have no batch axis.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor

State = dict[str, Tensor]

# (ours, theirs); {i} and {j} are indices, {r} is an index counted from the other end.
_VAE = (
    (r"encoder\.conv_in\.", "encoder.conv_in."),
    (r"encoder\.conv_out\.", "encoder.conv_out."),
    (r"encoder\.norm_out\.", "encoder.norm_out."),
    (r"encoder\.levels\.(\d+)\.(\d+)\.", "encoder.down.{0}.block.{1}."),
    (r"encoder\.downs\.(\d+)\.", "encoder.down.{0}.downsample.conv."),
    (r"encoder\.middle\.", "encoder.mid."),
    (r"decoder\.conv_in\.", "decoder.conv_in."),
    (r"decoder\.conv_out\.", "decoder.conv_out."),
    (r"decoder\.norm_out\.", "decoder.norm_out."),
    (r"decoder\.levels\.(\d+)\.(\d+)\.", "decoder.up.{r}.block.{1}."),
    (r"decoder\.ups\.(\d+)\.", "decoder.up.{r}.upsample.trans_conv."),
    (r"decoder\.middle\.", "decoder.mid."),
    (r"mean_head\.", "pre_projector_mean."),
    (r"logvar_head\.", "pre_projector_logvar."),
    (r"post\.", "post_projector."),
)
_WITHIN = (
    ("block1.", "block_1."),
    ("block2.", "block_2."),
    ("attention.", "attn_1."),
    ("shortcut.", "nin_shortcut."),
    ("attn_1.out.", "attn_1.proj_out."),
)
_MAPPER = (
    (r"positions$", "pos_embed"),
    (r"timestep\.fc1\.", "t_embedder.mlp.0."),
    (r"timestep\.fc2\.", "t_embedder.mlp.2."),
    (r"blocks\.(\d+)\.qkv\.", "blocks.{0}.attn.qkv."),
    (r"blocks\.(\d+)\.out\.", "blocks.{0}.attn.proj."),
    (r"blocks\.(\d+)\.(fc[12])\.", "blocks.{0}.mlp.{1}."),
    (r"blocks\.(\d+)\.modulation\.linear\.", "blocks.{0}.adaLN_modulation.1."),
    (r"final_modulation\.linear\.", "final_layer.adaLN_modulation.1."),
    (r"final\.", "final_layer.linear."),
)


def vae_names(own: str, n_levels: int) -> list[str]:
    """The reference's names of our BrainVAE parameter ``own``: one, or three for q, k and v."""
    for pattern, theirs in _VAE:
        if match := re.match(pattern, own):
            last = n_levels - 1 - int(match[1]) if "{r}" in theirs else 0
            name = theirs.format(*match.groups(), r=last) + own[match.end() :]
            for ours, other in _WITHIN:
                name = name.replace(ours, other)
            if ".qkv." in name:
                return [name.replace(".qkv.", f".{part}.") for part in "qkv"]
            return [name]
    raise KeyError(own)


def mapper_names(ours: str) -> list[str]:
    """The reference's name of our Mapper parameter or buffer ``ours``, in a list of one."""
    for pattern, theirs in _MAPPER:
        if match := re.match(pattern, ours):
            return [theirs.format(*match.groups()) + ours[match.end() :]]
    raise KeyError(ours)


def reference_shapes(ours: str, shape: torch.Size, names: list[str]) -> list[tuple[int, ...]]:
    """Shapes that the reference gives to the tensors ``names`` that make up our tensor ``ours``."""
    if ours == "positions":
        return [(1, *shape)]
    piece = (shape[0] // len(names), *shape[1:])
    convolution = ".attention." in ours and len(shape) == 2
    return [(*piece, 1) if convolution else piece] * len(names)


def join(pieces: list[Tensor], shape: torch.Size) -> Tensor:
    """Our tensor of ``shape`` from the reference's, as float32."""
    return torch.cat([piece.float() for piece in pieces]).reshape(shape).contiguous()


def split(ours: str, tensor: Tensor, names: list[str]) -> State:
    """The reference's tensors from ours: the inverse of :func:`join`."""
    shapes = reference_shapes(ours, tensor.shape, names)
    parts = tensor.detach().chunk(len(names))
    return {n: p.reshape(s).clone() for n, p, s in zip(names, parts, shapes, strict=True)}


def vae_to_reference(state: State) -> State:
    """A BrainVAE state dict under the reference's names, without ``module.`` prefix."""
    n_levels = 1 + max(int(m[1]) for k in state if (m := re.match(r"encoder\.levels\.(\d+)\.", k)))
    out: State = {}
    for own, tensor in state.items():
        out |= split(own, tensor, vae_names(own, n_levels))
    return out


def mapper_to_reference(state: State) -> State:
    """A Mapper state dict (published shape, modulation="timestep") under the reference's names."""
    out: State = {}
    for own, tensor in state.items():
        out |= split(own, tensor, mapper_names(own))
    return out
