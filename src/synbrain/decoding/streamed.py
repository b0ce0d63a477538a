"""Half-precision weights that are computed with in float32, a block of rows at a time.

A full-size MindEye2 holds 2.2 G parameters. In half precision they are mapped from the file; a float32 copy
of one layer would double them. So a large layer casts some rows, multiplies, and forgets them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from synbrain.errors import SynBrainError
from synbrain.files import require_space
from synbrain.system_memory import page_out

Network = TypeVar("Network", bound=nn.Module)
BLOCK_VALUES = 2**24  # 64 MiB of float32
NAMES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64"}
HALF = (torch.float16, torch.bfloat16)


class StreamedLinear(nn.Linear):
    """y = x W^T + b in float32, with W in half precision."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) to (..., out_features) float32."""
        rows = max(1, BLOCK_VALUES // self.in_features)
        x = x.float()
        out = torch.empty(*x.shape[:-1], self.out_features, device=x.device)
        cast = torch.empty(min(rows, self.out_features), self.in_features, device=x.device)  # used again
        for start in range(0, self.out_features, rows):
            block = self.weight[start : start + rows]
            cast[: len(block)] = block
            out[..., start : start + len(block)] = F.linear(x, cast[: len(block)])
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


def write_tensors(path: Path, tensors: Mapping[str, Tensor], *, half: bool = False) -> None:
    """Write a safetensors file a block at a time, so that mapped tensors are never in memory as a whole.

    ``safetensors.torch.save_file`` copies every tensor to bytes first, which doubles the memory.

    Args:
        path: written as given (see ``files.atomic_path``).
        tensors: by name; any may be mapped from a file.
        half: floating tensors of two dimensions or more become float16; vectors stay as they are.
    """
    kinds = {name: _stored_dtype(tensor, half) for name, tensor in tensors.items()}
    header, end = {}, 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor.numel() * kinds[name].itemsize
        header[name] = {
            "dtype": NAMES[kinds[name]], "shape": list(tensor.shape), "data_offsets": [start, end]
        }  # fmt: skip
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)  # the data start at a multiple of 8
    require_space(path.parent, end + len(encoded))
    with path.open("wb") as file:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        for name, tensor in tensors.items():
            # contiguous parameters only: a view of all values in order, without a copy
            for block in tensor.detach().reshape(-1).split(BLOCK_VALUES):
                cast = block.to("cpu", kinds[name])
                if half and not bool(torch.isfinite(cast).all()):
                    raise SynBrainError(
                        f"tensor {name} holds values that float16 cannot", "the checkpoint is damaged"
                    )
                file.write(cast.contiguous().view(torch.uint8).numpy().data)
                release(block)


def release(tensor: Tensor) -> None:
    """Let the system take back the memory that a mapped tensor was read into; its values stay what they are.

    Pages of a mapped file count as a process's memory until somebody else wants them.
    """
    if tensor.device.type == "cpu":
        page_out(tensor.data_ptr(), tensor.numel() * tensor.element_size())


def _stored_dtype(tensor: Tensor, half: bool) -> torch.dtype:
    return torch.float16 if half and tensor.is_floating_point() and tensor.ndim > 1 else tensor.dtype
