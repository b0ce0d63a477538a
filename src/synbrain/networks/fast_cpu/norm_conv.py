"""GroupNorm, SiLU and a convolution as one operation that keeps its input alone for the backward pass.

Autograd keeps the inputs of all three; here the two that are cheap to make again are made again. Values are
those of the three operations one after another; ``tests/networks/fast_cpu/test_norm_conv.py`` holds that.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from synbrain.networks.fast_cpu import winograd

NORM_EPS = 1e-6  # the reference's value for every GroupNorm and for the mapper's LayerNorm

Kind = Literal["direct", "winograd", "edge"]
Gradients = tuple[Tensor | None, Tensor | None]


def norm_silu_conv(x: Tensor, norm: nn.GroupNorm, conv: nn.Conv1d, fast: bool) -> Tensor:
    """``conv(silu(norm(x)))``.

    Args:
        x: (batch, channels, length), or (batch, channels, 4, length / 4) in phases (``winograd``).
        norm: the normalisation.
        conv: stride 1 and padding of half a kernel; kernel 3 for signals in phases.
        fast: take the operation of this module where it is the faster one: float32 on a CPU. Elsewhere
            compilers and vendor libraries do better with the plain operations.
    """
    if not (fast and on_cpu_in_float32(x)):
        return conv(F.silu(norm(x)))  # type: ignore[no-any-return]
    kind: Kind = "winograd" if x.ndim == 4 else ("edge" if conv.out_channels == 1 else "direct")
    apply: Any = _NormSiluConv.apply
    out: Tensor = apply(x, norm.weight, norm.bias, conv.weight, conv.bias, norm.num_groups, kind)
    return out


def on_cpu_in_float32(x: Tensor) -> bool:
    """Whether ``x`` is computed with in float32 on a CPU, where the operations of this module pay.

    So is a tensor without data (the meta device), which stands for one on a CPU when memory is counted.
    """
    return (
        x.device.type in ("cpu", "meta") and x.dtype is torch.float32 and not torch.is_autocast_enabled("cpu")
    )


class _NormSiluConv(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        gamma: Tensor,
        beta: Tensor,
        weight: Tensor,
        bias: Tensor,
        groups: int,
        kind: Kind,
    ) -> Tensor:
        ctx.save_for_backward(x, gamma, beta, weight)
        ctx.groups, ctx.kind = groups, kind
        h = F.silu(_normalise(x, gamma, beta, groups)[0], inplace=True)
        return _convolve(h, weight, bias, kind)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, gamma, beta, weight = ctx.saved_tensors
        need_x, need_gamma, need_beta, need_weight, need_bias = ctx.needs_input_grad[:5]
        grad = grad.contiguous()
        through = need_x or need_gamma or need_beta
        normed, mean, rstd = _normalise(x, gamma, beta, ctx.groups)
        grad_h, grad_weight = _convolve_backward(grad, F.silu(normed), weight, ctx.kind, through, need_weight)
        grad_bias = grad.sum(dim=(0, *range(2, grad.ndim))) if need_bias else None
        if grad_h is None:
            return None, None, None, grad_weight, grad_bias, None, None
        grad_h = torch.ops.aten.silu_backward(grad_h, normed)
        batch, channels = x.shape[:2]
        grad_x, grad_gamma, grad_beta = torch.ops.aten.native_group_norm_backward(
            grad_h,
            x,
            mean,
            rstd,
            gamma,
            batch,
            channels,
            x[0, 0].numel(),
            ctx.groups,
            [need_x, need_gamma, need_beta],
        )
        return grad_x, grad_gamma, grad_beta, grad_weight, grad_bias, None, None


def _normalise(x: Tensor, gamma: Tensor, beta: Tensor, groups: int) -> tuple[Tensor, Tensor, Tensor]:
    batch, channels = x.shape[:2]
    out: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.native_group_norm(
        x, gamma, beta, batch, channels, x[0, 0].numel(), groups, NORM_EPS
    )
    return out


def _convolve(h: Tensor, weight: Tensor, bias: Tensor, kind: Kind) -> Tensor:
    if kind == "winograd":
        return winograd.convolve(h, weight, bias)
    if kind == "edge":
        return _to_one(h, weight) + bias[:, None]
    return F.conv1d(h, weight, bias, padding=weight.shape[2] // 2)


def _convolve_backward(
    grad: Tensor, h: Tensor, weight: Tensor, kind: Kind, need_h: bool, need_weight: bool
) -> Gradients:
    if kind == "winograd":
        return winograd.convolve_backward(grad, h, weight, need_h, need_weight)
    if kind == "edge":
        return _to_one_backward(grad, h, weight)
    padding = [weight.shape[2] // 2]
    gradients = torch.ops.aten.convolution_backward(
        grad, h, weight, None, [1], padding, [1], False, [0], 1, [need_h, need_weight, False]
    )
    return gradients[0], gradients[1]


def _to_one(h: Tensor, weight: Tensor) -> Tensor:
    """Convolution to one channel: one matrix product for all taps, then shifted sums.

    A library's blocked convolution leaves most of its output block empty here.
    """
    taps = weight[0].T @ h  # (batch, kernel, length)
    kernel, length = taps.shape[1:]
    padded = F.pad(taps, (kernel // 2, kernel // 2))
    return torch.stack([padded[:, j, j : j + length] for j in range(kernel)]).sum(0).unsqueeze(1)


def _to_one_backward(grad: Tensor, h: Tensor, weight: Tensor) -> Gradients:
    kernel, length = weight.shape[2], grad.shape[2]
    padded = F.pad(grad[:, 0], (kernel // 2, kernel // 2))
    taps = torch.stack([padded[:, kernel - 1 - j : kernel - 1 - j + length] for j in range(kernel)], dim=1)
    grad_weight = (taps @ h.transpose(1, 2)).sum(0).T.unsqueeze(0)
    return weight[0] @ taps, grad_weight
