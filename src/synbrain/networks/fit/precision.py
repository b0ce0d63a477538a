"""What a stage computes in: float32, or half precision through autocast."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch

from synbrain.errors import SynBrainError


def autocast_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """The autocast dtype, None for float32. Both halves run on a CPU too, most of which emulate them.

    Raises:
        SynBrainError: where torch's autocast has not got that precision on ``device``.
    """
    if precision == "fp32":
        return None
    if not torch.amp.is_autocast_available(device.type):
        raise SynBrainError(
            f"{device.type} has no {precision}", "pass --vae.precision fp32 and --mapper.precision fp32"
        )
    return torch.bfloat16 if precision == "bf16" else torch.float16


def autocast(device: torch.device, dtype: torch.dtype | None) -> Any:
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)
