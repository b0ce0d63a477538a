"""Building blocks of the networks: residual 1-D convolutions, attention, resampling, projectors."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NORM_EPS = 1e-6  # the reference's value for every GroupNorm and for the mapper's LayerNorm


def group_norm(channels: int, groups: int) -> nn.GroupNorm:
    """GroupNorm over ``groups`` groups, or one group per channel where there are fewer channels.

    Source: ``Normalize`` in the reference's ``src/vae/module.py``; the paper's text says LayerNorm.
    """
    return nn.GroupNorm(groups if channels >= groups else channels, channels, eps=NORM_EPS)


class ResBlock(nn.Module):
    """Norm, SiLU, convolution, twice, added to the input. (batch, c_in, length) to (batch, c_out, length)."""

    def __init__(self, c_in: int, c_out: int, groups: int) -> None:
        super().__init__()
        self.norm1 = group_norm(c_in, groups)
        self.conv1 = nn.Conv1d(c_in, c_out, 3, padding=1)
        self.norm2 = group_norm(c_out, groups)
        self.conv2 = nn.Conv1d(c_out, c_out, 3, padding=1)
        self.shortcut = nn.Conv1d(c_in, c_out, 1) if c_in != c_out else None

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        out: Tensor = h + (x if self.shortcut is None else self.shortcut(x))
        return out


class AttentionBlock(nn.Module):
    """Single-head self-attention over positions, added to the input; (batch, channels, length)."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.norm = group_norm(channels, groups)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x).transpose(1, 2)
        q, k, v = self.qkv(h).unsqueeze(1).chunk(3, dim=-1)
        out: Tensor = self.out(F.scaled_dot_product_attention(q, k, v).squeeze(1))
        return x + out.transpose(1, 2)


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
