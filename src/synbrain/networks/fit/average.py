"""Copies of a stage's weights: the moving average that is validated, and those that are kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


def ema_decay_at(decay: float, step: int, warmup: bool) -> float:
    """The decay of update number ``step`` (0-based).

    With warm-up it rises as (1 + t) / (10 + t), so that the average follows a young run; without it
    (the published setting), a decay of .9999 leaves a run of a few hundred steps at its initial weights.
    """
    return min(decay, (1 + step) / (10 + step)) if warmup else decay


@torch.no_grad()
def update_ema(average: Mapping[str, Tensor], parameters: Mapping[str, Tensor], decay: float) -> None:
    """Move ``average`` towards ``parameters`` in place: a <- decay * a + (1 - decay) * p."""
    averages = list(average.values())
    if averages:
        torch._foreach_lerp_(averages, [parameters[name].detach() for name in average], 1.0 - decay)


def load_weights(weights: dict[str, nn.Parameter], values: dict[str, Tensor]) -> None:
    """Copy ``values`` into parameters of the same names."""
    with torch.no_grad():
        for name, value in values.items():
            weights[name].copy_(value)


def copied(tensors: Any) -> dict[str, Tensor]:
    """Copies on the CPU of tensors or parameters by name."""
    return {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}
