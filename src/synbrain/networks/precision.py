"""What a network computes in: float32, or half precision through autocast."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import nn

from synbrain.errors import SynBrainError
from synbrain.networks.config import Precision

# Narrower networks gain nothing from bf16 on a CPU or lose, as casting takes longer than products (width 64:
# half the speed; 256: the VAE gains twofold, the mapper nothing; 1664: docs/research/performance.md).
WIDE = 512


def chosen_precision(precision: Precision, device: torch.device, network: nn.Module) -> Precision:
    """``precision``, or what ``auto`` comes to: bf16 for wide networks on a CPU with AMX, else float32.

    GPUs stay at float32 until it was measured on one.
    """
    if precision != "auto":
        return precision
    wide = max((min(p.shape[:2]) for p in network.parameters() if p.ndim > 1), default=0) >= WIDE
    return "bf16" if device.type == "cpu" and wide and has_amx() else "fp32"


def has_amx() -> bool:
    """Whether this CPU multiplies bf16 matrices in tiles."""
    ask = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return bool(ask is not None and ask())


def autocast_dtype(precision: Precision, device: torch.device) -> torch.dtype | None:
    """The autocast dtype, None for float32. Both halves run on a CPU too, most of which emulate them.

    Args:
        precision: of :func:`chosen_precision`.
        device: where it shall run.

    Raises:
        SynBrainError: where torch's autocast has not got that precision on ``device``.
    """
    if precision in ("fp32", "auto"):
        return None
    if not torch.amp.is_autocast_available(device.type):
        raise SynBrainError(
            f"{device.type} has no {precision}", "pass --vae.precision fp32 and --mapper.precision fp32"
        )
    return torch.bfloat16 if precision == "bf16" else torch.float16


def autocast(device: torch.device, dtype: torch.dtype | None) -> Any:
    """The context in which a network on ``device`` computes in ``dtype``; None: as it is."""
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)
