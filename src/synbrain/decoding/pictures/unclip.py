"""The sampler of MindEye2's SDXL unCLIP: noise levels, start, guided Euler steps, pixels.

Source: the ``sgm`` code inside MedARC-AI/MindEyeV2 (read, not copied). The network is any function of (x,
time index, tokens, vector) that predicts the noise; with the published weights it is diffusers'
``UNet2DConditionModel`` (:mod:`synbrain.decoding.pictures`). With ``b`` the scaled-linear betas and ``a``
the product of ``1 - b``:

    sigma^2 = (1 - a) / a,      input of the network = x / sqrt(sigma^2 + 1),
    noise   = uncond + scale (cond - uncond),      x <- x + (sigma_next - sigma) noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

TRAINING_STEPS = 1000
BETA_START, BETA_END = 0.00085, 0.012
OFFSET_NOISE, GUIDANCE, STEPS = 0.04, 5.0, 38
# (x scaled, time index (n,), tokens (n, n_tokens, dim), vector (n, d)) -> predicted noise, shape of x
NoiseNetwork = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def noise_levels() -> Tensor:
    """(1000,) float32, ascending: sigma of every training step."""
    root = torch.linspace(BETA_START**0.5, BETA_END**0.5, TRAINING_STEPS, dtype=torch.float64)
    kept = torch.cumprod(1 - root**2, dim=0)
    return ((1 - kept) / kept).sqrt().float()


def sampling_indices(steps: int) -> list[int]:
    """Training steps that the sampler visits, descending from 999.

    >>> sampling_indices(4)
    [999, 749, 499, 249]
    """
    return [int(i) for i in np.linspace(TRAINING_STEPS - 1, 0, steps, endpoint=False).astype(int)]


def sampling_levels(steps: int) -> Tensor:
    """(steps + 1,) float32, descending and ending in 0."""
    return torch.cat([noise_levels()[sampling_indices(steps)], torch.zeros(1)])


def size_embedding(height: int = 768, width: int = 768) -> Tensor:
    """(1, 1024) float32: cosines, then sines, of the target's size and crop at 0, 256 values each."""
    frequencies = torch.exp(-math.log(10000.0) * torch.arange(128, dtype=torch.float32) / 128)
    angles = torch.tensor([height, width, 0, 0], dtype=torch.float32)[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1).flatten()[None]


@dataclass(frozen=True)
class Condition:
    """What guides the network.

    Attributes:
        tokens: (n, n_tokens, dim), the predicted image tokens.
        nothing: the same shape; fresh standard normal tokens as published (not zeros).
        vector: (n, d), :func:`size_embedding` for each picture; the same with and without condition.
    """

    tokens: Tensor
    nothing: Tensor
    vector: Tensor


def start(latent: Tensor, noise: Tensor, offset: Tensor, first_level: Tensor) -> Tensor:
    """(z + sigma_0 (noise + .04 offset)) / sqrt(1 + sigma_0^2), of about unit variance.

    Args:
        latent: (n, c, h, w), zeros where there is no picture to start from.
        noise: (n, c, h, w) standard normal.
        offset: (n,) standard normal, shifts a whole picture.
        first_level: () sigma_0 of the sampler.
    """
    shifted = noise + OFFSET_NOISE * offset.view(-1, 1, 1, 1)
    return (latent + first_level * shifted) / (1 + first_level**2).sqrt()


@torch.inference_mode()
def sample(
    network: NoiseNetwork,
    x: Tensor,
    condition: Condition,
    *,
    steps: int = STEPS,
    guidance: float = GUIDANCE,
) -> Tensor:
    """Denoise ``x`` from :func:`start`, at the level of the first step, by Euler steps with guidance.

    Args:
        network: predicts the noise.
        x: (n, c, h, w).
        condition: tokens with and without the picture's content.
        steps: 38 as published.
        guidance: 5 as published.
    """
    levels = sampling_levels(steps)
    x = x * (1 + levels[0] ** 2).sqrt()
    for i, index in enumerate(sampling_indices(steps)):
        scaled = x / (levels[i] ** 2 + 1).sqrt()
        times = torch.full((len(x),), index, dtype=torch.int64, device=x.device)
        conditioned = network(scaled, times, condition.tokens, condition.vector)
        plain = network(scaled, times, condition.nothing, condition.vector)
        noise = plain + guidance * (conditioned - plain)
        x = x + (levels[i + 1] - levels[i]) * noise
    return x


def to_pixels(decoded: Tensor) -> Tensor:
    """Decoder output to [0, 1]: ``clamp(.8 x + .2)`` as published.

    It is .5 x + .5 elsewhere; the brighter map makes up for tokens of washed-out pictures.
    """
    return (0.8 * decoded + 0.2).clamp(0, 1)
