"""What the published code does in a step, on the weights of our networks: the other side of the benchmark.

Written from the facts of how it computes, not copied: attention with the whole matrix of weights, ``x *
sigmoid(x)`` as two operations, three separate projections, a timestep embedded anew for every sample,
LayerNorm and modulation one after another, parameter-by-parameter AdamW and EMA.
"""

from __future__ import annotations

from itertools import zip_longest
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synbrain.networks.blocks import AttentionBlock, Middle, ResBlock
from synbrain.networks.brainvae import BrainVAE
from synbrain.networks.mapper import Mapper
from synbrain.networks.posterior import Posterior


def swish(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def res_block(block: ResBlock, x: Tensor) -> Tensor:
    h = block.conv1(swish(block.norm1(x)))
    h = block.conv2(swish(block.norm2(h)))
    return cast(Tensor, (x if block.shortcut is None else block.shortcut(x)) + h)


def attention(block: AttentionBlock, x: Tensor) -> Tensor:
    h = block.norm(x)
    weights, biases = block.qkv.weight.chunk(3), block.qkv.bias.chunk(3)
    q, k, v = (F.conv1d(h, w.unsqueeze(2), b) for w, b in zip(weights, biases, strict=True))
    score = torch.bmm(q.permute(0, 2, 1), k) * q.shape[1] ** -0.5
    h = torch.bmm(v, F.softmax(score, dim=2).permute(0, 2, 1))
    return x + F.conv1d(h, block.out.weight.unsqueeze(2), block.out.bias)


def middle(mid: Middle, x: Tensor) -> Tensor:
    return res_block(mid.block2, attention(mid.attention, res_block(mid.block1, x)))


def level(blocks: Any, h: Tensor) -> Tensor:
    for block in blocks:
        h = res_block(block, h)
    return h


def encode(vae: BrainVAE, y: Tensor) -> Posterior:
    net = vae.encoder
    h = net.pool(net.conv_in(y.unsqueeze(1)))
    for blocks, down in zip_longest(net.levels, net.downs):
        h = level(blocks, h)
        h = h if down is None else down(h)
    h = net.conv_out(swish(net.norm_out(middle(net.middle, h))))
    moments = torch.cat((vae.mean_head(h), vae.logvar_head(h)), dim=1)
    return Posterior(*torch.chunk(moments, 2, dim=1))


def decode(vae: BrainVAE, z: Tensor, n_voxels: int) -> Tensor:
    net = vae.decoder
    h = middle(net.middle, net.conv_in(vae.post(z)))
    for blocks, up in zip_longest(net.levels, net.ups):
        h = level(blocks, h)
        h = h if up is None else up(h)
    h = F.interpolate(h, size=n_voxels, mode="linear", align_corners=True)
    return cast(Tensor, net.conv_out(swish(net.norm_out(h))).squeeze(1))


def run_vae(vae: BrainVAE, y: Tensor, noise: Tensor) -> tuple[Tensor, Posterior, Tensor]:
    posterior = encode(vae, y)
    z = posterior.mean + torch.exp(0.5 * posterior.logvar) * noise
    return decode(vae, z, y.shape[1]), posterior, z


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return x * (1 + scale.unsqueeze(1)) + shift.unsqueeze(1)


def run_mapper(mapper: Mapper, tokens: Tensor) -> Tensor:
    assert mapper.timestep is not None
    batch, n, dim = tokens.shape
    code = torch.zeros(batch, mapper.timestep.fc1.in_features, device=tokens.device)
    code[:, : code.shape[1] // 2] = 1.0
    c = mapper.timestep.fc2(F.silu(mapper.timestep.fc1(code)))
    x = tokens + mapper.positions
    block: Any
    for block in mapper.blocks:
        shift1, scale1, gate1, shift2, scale2, gate2 = block.modulation.linear(F.silu(c)).chunk(6, dim=-1)
        h = modulate(F.layer_norm(x, (dim,), eps=1e-6), shift1, scale1)
        qkv = block.qkv(h).reshape(batch, n, 3, block.heads, dim // block.heads).permute(2, 0, 3, 1, 4)
        # the reference trains its mapper with timm's fused attention (--fused-attn, on by default)
        h = F.scaled_dot_product_attention(*qkv.unbind(0))
        x = x + gate1.unsqueeze(1) * block.out(h.transpose(1, 2).reshape(batch, n, dim))
        h = modulate(F.layer_norm(x, (dim,), eps=1e-6), shift2, scale2)
        x = x + gate2.unsqueeze(1) * block.fc2(F.gelu(block.fc1(h), approximate="tanh"))
    assert mapper.final_modulation.linear is not None
    shift, scale = mapper.final_modulation.linear(F.silu(c)).chunk(2, dim=-1)
    return cast(Tensor, mapper.final(modulate(F.layer_norm(x, (dim,), eps=1e-6), shift, scale)))


def default_adamw(network: nn.Module, weight_decay: float) -> torch.optim.AdamW:
    """torch's own choice: parameter by parameter on a CPU, foreach on CUDA."""
    return torch.optim.AdamW(network.parameters(), lr=1e-4, weight_decay=weight_decay)


@torch.no_grad()
def update_average(average: dict[str, Tensor], network: nn.Module, decay: float) -> None:
    for name, parameter in network.named_parameters():
        average[name].mul_(decay).add_(parameter, alpha=1 - decay)
