"""Building blocks of the networks: residual 1-D convolutions, attention, resampling, projectors."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synbrain.networks.fast_cpu import winograd
from synbrain.networks.fast_cpu.norm_conv import NORM_EPS, norm_silu_conv, on_cpu_in_float32


def group_norm(channels: int, groups: int) -> nn.GroupNorm:
    """GroupNorm over ``groups`` groups, or one group per channel where there are fewer channels.

    Source: ``Normalize`` in the reference's ``src/vae/module.py``; the paper's text says LayerNorm.
    """
    return nn.GroupNorm(groups if channels >= groups else channels, channels, eps=NORM_EPS)


class ResBlock(nn.Module):
    """Norm, SiLU, convolution, twice, added to the input. (batch, c_in, length) to (batch, c_out, length).

    Where it pays (``fast``), the result is in phases (see
    :mod:`synbrain.networks.fast_cpu.winograd`), and so may the input be.
    """

    def __init__(self, c_in: int, c_out: int, groups: int) -> None:
        super().__init__()
        self.fast = True
        self.norm1 = group_norm(c_in, groups)
        self.conv1 = nn.Conv1d(c_in, c_out, 3, padding=1)
        self.norm2 = group_norm(c_out, groups)
        self.conv2 = nn.Conv1d(c_out, c_out, 3, padding=1)
        self.shortcut = nn.Conv1d(c_in, c_out, 1) if c_in != c_out else None

    def forward(self, x: Tensor) -> Tensor:
        if self._in_phases(x):
            x = winograd.to_phases(x)
        h = norm_silu_conv(x, self.norm1, self.conv1, self.fast)
        h = norm_silu_conv(h, self.norm2, self.conv2, self.fast)
        skipped: Tensor = x if self.shortcut is None else pointwise(x, self.shortcut)
        return h + skipped

    def _in_phases(self, x: Tensor) -> bool:
        width = min(self.conv1.in_channels, self.conv1.out_channels)
        fast = self.fast and x.ndim == 3 and on_cpu_in_float32(x)
        return fast and winograd.worthwhile(width, x.shape[2])


def pointwise(x: Tensor, conv: nn.Conv1d) -> Tensor:
    """``conv`` of kernel 1 over (batch, channels, ...) with any number of position axes."""
    out: Tensor = conv(x.flatten(2))
    return out.reshape(*out.shape[:2], *x.shape[2:])


class AttentionBlock(nn.Module):
    """Single-head self-attention over positions, added to the input; (batch, channels, ...).

    Positions may come in any order, as nothing codes them.
    """

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.norm = group_norm(channels, groups)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x).flatten(2).transpose(1, 2)
        q, k, v = self.qkv(h).unsqueeze(1).chunk(3, dim=-1)
        out: Tensor = self.out(F.scaled_dot_product_attention(q, k, v).squeeze(1))
        return x + out.transpose(1, 2).reshape(x.shape)


class Downsample(nn.Conv1d):
    """Halves the length with a strided convolution of kernel 7."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 7, stride=2, padding=3)


class Upsample(nn.ConvTranspose1d):
    """Doubles the length with a transposed convolution of kernel 7."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 7, stride=2, padding=3, output_padding=1)


class Middle(nn.Module):
    """Residual block, attention, residual block at the coarsest length."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.block1 = ResBlock(channels, channels, groups)
        self.attention = AttentionBlock(channels, groups)
        self.block2 = ResBlock(channels, channels, groups)

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.block2(self.attention(self.block1(x)))
        return h


def projector(d_in: int, width: int, d_out: int) -> nn.Sequential:
    """Three times LayerNorm, GELU, Linear: d_in to width to width to d_out, over the last axis."""
    return nn.Sequential(
        nn.LayerNorm(d_in),
        nn.GELU(),
        nn.Linear(d_in, width),
        nn.LayerNorm(width),
        nn.GELU(),
        nn.Linear(width, width),
        nn.LayerNorm(width),
        nn.GELU(),
        nn.Linear(width, d_out),
    )


def sinusoid(positions: int, dim: int) -> Tensor:
    """(positions, dim) float32, sines then cosines of position / 10000^(i / (dim / 2))."""
    half = dim // 2
    rate = 10000.0 ** (-torch.arange(half, dtype=torch.float64) / half)
    angle = torch.arange(positions, dtype=torch.float64)[:, None] * rate
    return torch.cat([angle.sin(), angle.cos()], dim=1).float()
