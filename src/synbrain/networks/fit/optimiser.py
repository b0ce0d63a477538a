"""Rates of the optimiser: parameter groups, warm-up and decay."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from synbrain.networks.config import LoopConfig


def set_rates(optimizer: torch.optim.Optimizer, config: LoopConfig, step: int, n_steps: int) -> None:
    factor = min(1.0, (step + 1) / (config.warmup_steps + 1))
    if config.schedule == "cosine":
        factor *= 0.5 * (1 + math.cos(math.pi * step / n_steps))
    for group in optimizer.param_groups:
        group["lr"] = config.lr * factor * group.get("rate", 1.0)


def parameter_groups(
    weights: dict[str, nn.Parameter], rate_of: Callable[[str], float] | None
) -> list[dict[str, Any]]:
    """Parameters by the multiple of the learning rate that they get."""
    if rate_of is None:
        return [{"params": list(weights.values())}]
    rates = {name: rate_of(name) for name in weights}
    return [
        {"params": [p for name, p in weights.items() if rates[name] == rate], "rate": rate}
        for rate in sorted(set(rates.values()))
    ]
