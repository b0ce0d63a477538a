"""The network of MindEye2's diffusion prior: a Transformer over [brain tokens, time, noised image tokens].

Sources: MindEye2's ``PriorNetwork`` over ``dalle2-pytorch`` 1.15.6's causal transformer (read, not copied);
names of parameters are the published ones, so that checkpoints load as they are. It differs from a plain
Transformer in:

* one key and value for all heads, and a learned null key and value in front of them;
* cosine attention: ``logits = 16 cos(q, k) + bias``, queries and keys of unit length;
* rotary positions on the first ``min(32, dim_head)`` dimensions, and T5's relative bias on top of them;
* a gated feed-forward ``x * SiLU(gate)``, layer norms without bias, and a last norm that first divides by the
  largest element (whose sign it so takes away: a row of negative numbers flips).
"""

from __future__ import annotations

import math

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional as F

COSINE_SCALE = 16.0
ROTARY_DIM, ROTARY_BASE = 32, 10000.0
BUCKETS, LARGEST_DISTANCE = 32, 128


class PriorConfig(BaseModel):
    """Sizes of the prior; the published ones are 256 tokens of 1664, depth 6, 32 heads of 52, 100 steps."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    tokens: int = Field(256, ge=1)
    dim: int = Field(1664, ge=4)
    depth: int = Field(6, ge=1)
    heads: int = Field(32, ge=1)
    dim_head: int = Field(52, ge=2)
    steps: int = Field(100, ge=2, description="of the noise schedule")
    drop: float = Field(0.2, ge=0, lt=1, description="chance that a condition is left out in training")
    residual: bool = Field(False, description="predict what the brain's tokens lack; published: all of it")


class PriorNetwork(nn.Module):
    """Predicts the clean image tokens from noised ones, the step and the brain's tokens."""

    def __init__(self, config: PriorConfig) -> None:
        super().__init__()
        self.config = config
        n, dim = config.tokens, config.dim
        self.learned_query = nn.Parameter(torch.randn(n, dim) * dim**-0.5)
        self.null_brain_embeds = nn.Parameter(torch.randn(n, dim))
        self.null_image_embed = nn.Parameter(torch.randn(n, dim))
        self.to_time_embeds = nn.Sequential(nn.Sequential(_Sinusoid(dim), _TimeMLP(dim)))
        self.causal_transformer = _Transformer(config)
        if config.residual:  # at first the prediction is the condition itself
            nn.init.zeros_(self.causal_transformer.project_out.weight)

    def forward(
        self,
        image: Tensor,
        times: Tensor,
        brain: Tensor,
        keep_brain: Tensor | None = None,
        keep_image: Tensor | None = None,
    ) -> Tensor:
        """(n, tokens, dim) float32, the predicted clean tokens.

        Args:
            image: (n, tokens, dim), noised.
            times: (n,) int64, steps of the schedule from 0 (nearly clean) on.
            brain: (n, tokens, dim), the condition.
            keep_brain, keep_image: (n,) bool; where False, the learned null tokens stand in.
        """
        start = brain if self.config.residual else None
        if keep_brain is not None:
            if start is not None:
                start = start * keep_brain[:, None, None]
            brain = torch.where(keep_brain[:, None, None], brain, self.null_brain_embeds.to(brain.dtype))
        if keep_image is not None:
            image = torch.where(keep_image[:, None, None], image, self.null_image_embed.to(image.dtype))
        time = self.time_embedding(times).to(brain.dtype)
        sequence = torch.cat([brain, time, image + self.learned_query], dim=1)
        predicted: Tensor = self.causal_transformer(sequence)[:, -self.config.tokens :]
        return predicted if start is None else start + predicted

    def time_embedding(self, times: Tensor) -> Tensor:
        """(n, 1, dim)."""
        embedded: Tensor = self.to_time_embeds(times)[:, None]
        return embedded

    def guided(self, image: Tensor, times: Tensor, brain: Tensor, scale: float = 1.0) -> Tensor:
        """Classifier-free guidance: null + scale (conditioned - null); scale 1 needs no second pass."""
        conditioned: Tensor = self(image, times, brain)
        if scale == 1.0:
            return conditioned
        nothing = torch.zeros(len(image), dtype=torch.bool, device=image.device)
        null: Tensor = self(image, times, brain, nothing, nothing)
        return null + scale * (conditioned - null)


class _Sinusoid(nn.Module):
    """(n,) steps to (n, dim): sines, then cosines, of frequencies 10000^(-i / (dim / 2 - 1)).

    Of an odd ``dim`` the last value is 0; there is none published.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim, self.pairs = dim, dim // 2

    def forward(self, times: Tensor) -> Tensor:
        steps = torch.arange(self.pairs, device=times.device, dtype=torch.float32)
        angles = times.float()[:, None] * torch.exp(-math.log(10000.0) / (self.pairs - 1) * steps)
        return F.pad(torch.cat([angles.sin(), angles.cos()], dim=-1), (0, self.dim % 2))


class _TimeMLP(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        first = nn.Sequential(nn.Linear(dim, 2 * dim), nn.SiLU())
        second = nn.Sequential(nn.Linear(2 * dim, 2 * dim), nn.SiLU())
        self.net = nn.Sequential(first, second, nn.Linear(2 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        embedded: Tensor = self.net(x)
        return embedded


class Norm(nn.Module):
    """Layer norm with a scale and no shift; ``stable`` divides by the row's largest element first."""

    def __init__(self, dim: int, *, stable: bool = False) -> None:
        super().__init__()
        self.g, self.stable = nn.Parameter(torch.ones(dim)), stable

    def forward(self, x: Tensor) -> Tensor:
        if self.stable:
            x = x / x.amax(dim=-1, keepdim=True).detach()
        eps = 1e-5 if x.dtype == torch.float32 else 1e-3
        return F.layer_norm(x, x.shape[-1:], eps=eps) * self.g


class _Attention(nn.Module):
    def __init__(self, config: PriorConfig) -> None:
        super().__init__()
        inner = config.heads * config.dim_head
        self.heads, self.dim_head = config.heads, config.dim_head
        self.null_kv = nn.Parameter(torch.randn(2, config.dim_head))
        self.norm = Norm(config.dim)
        self.to_q = nn.Linear(config.dim, inner, bias=False)
        self.to_kv = nn.Linear(config.dim, 2 * config.dim_head, bias=False)
        self.to_out = nn.Sequential(nn.Linear(inner, config.dim, bias=False), Norm(config.dim))

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """(n, length, dim) twice; ``bias`` (heads, length, 1 + length)."""
        x = self.norm(x)
        q = self.to_q(x).unflatten(-1, (self.heads, self.dim_head)).transpose(1, 2)
        k, v = self.to_kv(x).chunk(2, dim=-1)
        q, k = _rotated(q), _rotated(k)
        null_k, null_v = (null.to(x.dtype).expand(len(x), 1, -1) for null in self.null_kv)
        k, v = torch.cat([null_k, k], dim=1), torch.cat([null_v, v], dim=1)
        # all heads share one key and one value: a stride of 0 stands for the copies
        k, v = (y[:, None].expand(-1, self.heads, -1, -1) for y in (F.normalize(k, dim=-1), v))
        mixed = F.scaled_dot_product_attention(
            F.normalize(q, dim=-1), k, v, attn_mask=bias.to(q.dtype)[None], scale=COSINE_SCALE
        )
        out: Tensor = self.to_out(mixed.transpose(1, 2).flatten(2))
        return out


def _rotated(x: Tensor) -> Tensor:
    """Rotary positions on (..., length, dim_head): pairs of neighbours turn by position * frequency."""
    width = min(ROTARY_DIM, x.shape[-1])
    turned = width // 2 * 2  # of an odd head the last dimension has no partner
    exponents = torch.arange(0, turned, 2, device=x.device, dtype=torch.float32) / width
    positions = torch.arange(x.shape[-2], device=x.device, dtype=torch.float32)
    angles = positions[:, None] * ROTARY_BASE**-exponents
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    a, b = x[..., :turned:2], x[..., 1:turned:2]
    pairs = torch.stack([a * cos - b * sin, b * cos + a * sin], dim=-1).flatten(-2)
    return torch.cat([pairs, x[..., turned:]], dim=-1)


class _Gated(nn.Module):
    """Halves x, gate to ``x * SiLU(gate)``."""

    def forward(self, x: Tensor) -> Tensor:
        values, gate = x.chunk(2, dim=-1)
        return values * F.silu(gate)


def _feed_forward(dim: int) -> nn.Sequential:
    # the identities keep the published names: 0 norm, 1 linear, 5 linear
    into, out = nn.Linear(dim, 8 * dim, bias=False), nn.Linear(4 * dim, dim, bias=False)
    return nn.Sequential(Norm(dim), into, _Gated(), nn.Identity(), nn.Identity(), out)


class _RelativeBias(nn.Module):
    """T5's bias by bucket of distance; the null key counts as the first, so keys are one position late."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.relative_attention_bias = nn.Embedding(BUCKETS, heads)

    def forward(self, length: int) -> Tensor:
        """(heads, length, 1 + length)."""
        device = self.relative_attention_bias.weight.device
        queries = torch.arange(length, device=device)[:, None]
        keys = torch.arange(length + 1, device=device)[None]
        bias: Tensor = self.relative_attention_bias(distance_bucket(queries - keys))
        return bias.permute(2, 0, 1)


def distance_bucket(distance: Tensor) -> Tensor:
    """Bucket 0..31 of query minus key position: exact up to 15, then logarithmic up to 128; later keys get
    0.
    """
    distance = distance.clamp_min(0)
    exact = BUCKETS // 2
    far = torch.log(distance.clamp_min(1).float() / exact) / math.log(LARGEST_DISTANCE / exact)
    far = (exact + (far * (BUCKETS - exact)).long()).clamp_max(BUCKETS - 1)
    return torch.where(distance < exact, distance, far)


class _Transformer(nn.Module):
    def __init__(self, config: PriorConfig) -> None:
        super().__init__()
        self.rel_pos_bias = _RelativeBias(config.heads)
        self.layers = nn.ModuleList(
            nn.ModuleList([_Attention(config), _feed_forward(config.dim)]) for _ in range(config.depth)
        )
        self.norm = Norm(config.dim, stable=True)
        self.project_out = nn.Linear(config.dim, config.dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        bias = self.rel_pos_bias(x.shape[1])
        for layer in self.layers:
            x = x + layer[0](x, bias)  # type: ignore[index]
            x = x + layer[1](x)  # type: ignore[index]
        out: Tensor = self.project_out(self.norm(x))
        return out
