"""Exponential moving average of parameters, with the warm-up that short runs need."""

from __future__ import annotations

import torch
from torch import Tensor


def ema_decay_at(decay: float, step: int, warmup: bool) -> float:
    """The decay of update number ``step`` (0-based).

    With warm-up it rises as (1 + t) / (10 + t), so that the average follows a young run; without it
    (the published setting), a decay of .9999 leaves a run of a few hundred steps at its initial weights.
    """
    return min(decay, (1 + step) / (10 + step)) if warmup else decay


@torch.no_grad()
def update_ema(average: dict[str, Tensor], parameters: dict[str, Tensor], decay: float) -> None:
    """Move ``average`` towards ``parameters`` in place: a <- decay * a + (1 - decay) * p."""
    averages = list(average.values())
    if averages:
        torch._foreach_lerp_(averages, [parameters[name].detach() for name in average], 1.0 - decay)
