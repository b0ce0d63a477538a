"""What a network computes in: float32, or half precision through autocast."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import nn

from synbrain.errors import SynBrainError
from synbrain.networks.config import Precision

# Narrower networks gain nothing from bf16 on a CPU or lose, as casting takes longer than products (width 64:
# half the speed; 256: the VAE gains 1.5 to 2 times, the mapper little; 1664: docs/research/performance.md).
WIDE = 512


def chosen_precision(precision: Precision, device: torch.device, network: nn.Module) -> Precision:
    """``precision``, or what ``auto`` comes to: bf16 for wide networks on a CPU with bf16, else float32.

    GPUs stay at float32 until it was measured on one.
    """
    if precision != "auto":
        return precision
    wide = max((min(p.shape[:2]) for p in network.parameters() if p.ndim > 1), default=0) >= WIDE
    return "bf16" if device.type == "cpu" and wide and multiplies_bf16() else "fp32"


def multiplies_bf16() -> bool:
    """Whether this CPU has instructions for bf16 products: AMX or AVX-512 BF16. Others emulate them."""
    asked = (getattr(torch.cpu, f"_is_{name}_supported", None) for name in ("amx_tile", "avx512_bf16"))
    return any(ask is not None and ask() for ask in asked)


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
