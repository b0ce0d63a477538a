"""Half-precision weights that are computed with in float32, a block of rows at a time.

A full-size MindEye2 holds 2.2 G parameters. In half precision they are mapped from the file; a float32 copy
of one layer would double them. So a large layer casts some rows, multiplies, and forgets them.
"""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Network = TypeVar("Network", bound=nn.Module)
BLOCK_VALUES = 2**24  # 64 MiB of float32
HALF = (torch.float16, torch.bfloat16)


class StreamedLinear(nn.Linear):
    """y = x W^T + b in float32, with W in half precision."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) to (..., out_features) float32."""
        rows = max(1, BLOCK_VALUES // self.in_features)
        parts = [F.linear(x.float(), block.float()) for block in self.weight.split(rows)]
        out = parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)
        return out if self.bias is None else out + self.bias.float()


def stream_half(network: Network) -> Network:
    """Let every linear layer with half-precision weights compute in float32; cast what else is half.

    A network in float32 is returned as it is.
    """
    inside = set()
    for module in network.modules():
        if type(module) is nn.Linear and module.weight.dtype in HALF:
            module.__class__ = StreamedLinear  # the same parameters, another forward
            inside.add(id(module.weight))
    for parameter in network.parameters():
        if id(parameter) not in inside and parameter.dtype in HALF:
            parameter.data = parameter.data.float()
        parameter.requires_grad_(parameter.dtype not in HALF)
    return network
