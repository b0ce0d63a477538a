"""Convolutions of kernel 3 with half the multiplications, on positions stored in four phases.

F(4, 3) of Winograd (1980; Lavin and Gray 2016): four outputs of a 3-tap filter from six products instead of
twelve, at the points 0, 1, -1, 2, -2 and infinity. It is the same function; float32 rounding differs by
about 1e-6 relative, as little as between two orders of summation.

Position 4 t + p of a signal is stored at [..., p, t]. There every transform is a sum of contiguous rows,
and normalisation, SiLU, 1x1 convolution and attention do not notice the order of positions.
"""

from __future__ import annotations

import torch
from torch import Tensor

PHASES = 4
MIN_LENGTH = 512  # below, the transforms cost more than the products they save
MIN_CHANNELS = 64
CHUNK = 2**19  # channels times tiles transformed at once


def to_phases(x: Tensor) -> Tensor:
    """(batch, channels, length) to (batch, channels, 4, length / 4)."""
    batch, channels, length = x.shape
    return x.view(batch, channels, length // PHASES, PHASES).transpose(2, 3).contiguous()


def from_phases(x: Tensor) -> Tensor:
    """The inverse of :func:`to_phases`; signals not in phases (3 axes) pass."""
    return x.transpose(2, 3).flatten(2) if x.ndim == 4 else x


def worthwhile(channels: int, length: int) -> bool:
    """Whether a signal can be, and is worth being, kept in phases."""
    return length % PHASES == 0 and length >= MIN_LENGTH and channels >= MIN_CHANNELS


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Kernel-3 convolution with padding 1 of (batch, c_in, 4, t); weight (c_out, c_in, 3)."""
    filters = _filters(weight)
    out = x.new_empty(x.shape[0], weight.shape[0], *x.shape[2:])
    for one, into in zip(x, out, strict=True):
        for start, stop in _chunks(x.shape[3], max(weight.shape[:2])):
            products = torch.bmm(filters, _points(one, start, stop))
            _gather_outputs(products, into[..., start:stop])
    return out if bias is None else out.add_(bias[:, None, None])


def convolve_backward(
    grad: Tensor, x: Tensor, weight: Tensor, need_x: bool = True, need_weight: bool = True
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of :func:`convolve` with respect to ``x`` and ``weight``, by its adjoint."""
    filters = _filters(weight).transpose(1, 2)
    grad_x = torch.empty_like(x) if need_x else None
    grad_filters = weight.new_zeros(6, *weight.shape[:2]) if need_weight else None
    for i in range(len(x)):
        for start, stop in _chunks(x.shape[3], max(weight.shape[:2])):
            spread = _spread_outputs(grad[i, ..., start:stop])
            if grad_filters is not None:
                grad_filters.baddbmm_(spread, _points(x[i], start, stop).transpose(1, 2))
            if grad_x is not None:
                _gather_points(torch.bmm(filters, spread), grad_x[i], start, stop)
    return grad_x, None if grad_filters is None else _filters_backward(grad_filters)


def _chunks(tiles: int, channels: int) -> list[tuple[int, int]]:
    """Runs of tiles whose transforms fit into a cache; larger ones are bound by memory."""
    length = max(1, CHUNK // channels)
    return [(start, min(start + length, tiles)) for start in range(0, tiles, length)]


def _filters(weight: Tensor) -> Tensor:
    """(6, c_out, c_in), the filter transform: 1/4 a, -1/6 (a +- b + c), 1/24 (a +- 2 b + 4 c), c."""
    a, b, c = weight.unbind(2)
    out = weight.new_empty(6, *weight.shape[:2])
    torch.mul(a, 1 / 4, out=out[0])
    out[5].copy_(c)
    total = a + c
    torch.add(total, b, out=out[1])
    torch.sub(total, b, out=out[2])
    out[1:3].mul_(-1 / 6)
    torch.add(a, c, alpha=4, out=total)
    torch.add(total, b, alpha=2, out=out[3])
    torch.sub(total, b, alpha=2, out=out[4])
    out[3:5].mul_(1 / 24)
    return out


def _filters_backward(u: Tensor) -> Tensor:
    """(c_out, c_in, 3), the adjoint of :func:`_filters`."""
    p, n = (u[1] + u[2]).mul_(-1 / 6), (u[1] - u[2]).mul_(-1 / 6)
    q, d = (u[3] + u[4]).mul_(1 / 24), (u[3] - u[4]).mul_(1 / 24)
    a = torch.add(p, u[0], alpha=1 / 4).add_(q)
    b = n.add_(d, alpha=2)
    c = torch.add(p, q, alpha=4).add_(u[5])
    return torch.stack([a, b, c], dim=2)


def _points(x: Tensor, start: int, stop: int) -> Tensor:
    """(6, c, stop - start), the input transform of these tiles of (c, 4, t), with their neighbours."""
    x0, x1, x2, x3 = x[..., start:stop].unbind(1)
    out = x.new_empty(6, *x0.shape)
    a, b = torch.sub(x3, x1, alpha=4), torch.sub(x2, x0, alpha=4)
    torch.add(a, b, out=out[1])
    torch.sub(a, b, out=out[2])
    torch.sub(x3, x1, out=a)
    torch.sub(x2, x0, out=b)
    torch.add(a, b, alpha=2, out=out[3])
    torch.sub(a, b, alpha=2, out=out[4])
    torch.sub(a, x1, alpha=4, out=out[0])
    torch.add(x2, b, alpha=4, out=out[5]).neg_()
    before, after = max(start - 1, 0), min(stop + 1, x.shape[2])
    out[0, :, before + 1 - start :].add_(x[:, 3, before : stop - 1], alpha=4)
    out[5, :, : after - start - 1].add_(x[:, 0, start + 1 : after])
    return out


def _gather_points(m: Tensor, out: Tensor, start: int, stop: int) -> None:
    """The adjoint of :func:`_points`: these tiles of ``out`` (c, 4, t), tiles before ``start`` being done.

    What falls on the first position of the tile after ``stop`` waits there to be added to.
    """
    x0, x1, x2, x3 = out[..., start:stop].unbind(1)
    waiting = out[:, 0, start].clone() if start else None
    p, n = m[1] + m[2], m[1] - m[2]
    q, d = m[3] + m[4], m[3] - m[4]
    torch.sub(m[5], n, out=x0).mul_(4).sub_(d, alpha=2)
    torch.add(q, m[0], alpha=5, out=x1).add_(p, alpha=4).neg_()
    torch.add(n, d, alpha=2, out=x2).sub_(m[5], alpha=5)
    torch.add(p, q, out=x3).add_(m[0])
    x0[:, 1:].add_(m[5, :, :-1])
    x3[:, :-1].add_(m[0, :, 1:], alpha=4)
    if waiting is not None:
        x0[:, 0].add_(waiting)
        out[:, 3, start - 1].add_(m[0, :, 0], alpha=4)
    if stop < out.shape[2]:
        out[:, 0, stop] = m[5, :, -1]


def _gather_outputs(m: Tensor, out: Tensor) -> None:
    """The output transform of (6, c, t) into ``out`` (c, 4, t)."""
    y0, y1, y2, y3 = out.unbind(1)
    p, n = m[1] + m[2], m[1] - m[2]
    q, d = m[3] + m[4], m[3] - m[4]
    torch.add(m[0], p, out=y0).add_(q)
    torch.add(n, d, alpha=2, out=y1)
    torch.add(p, q, alpha=4, out=y2)
    torch.add(n, d, alpha=8, out=y3).add_(m[5])


def _spread_outputs(grad: Tensor) -> Tensor:
    """(6, c, t), the adjoint of :func:`_gather_outputs`, of (c, 4, t)."""
    g0, g1, g2, g3 = grad.unbind(1)
    out = grad.new_empty(6, grad.shape[0], grad.shape[2])
    out[0].copy_(g0)
    out[5].copy_(g3)
    even, odd = g0 + g2, g1 + g3
    torch.add(even, odd, out=out[1])
    torch.sub(even, odd, out=out[2])
    torch.add(g0, g2, alpha=4, out=even)
    torch.add(g1, g3, alpha=4, out=odd)
    torch.add(even, odd, alpha=2, out=out[3])
    torch.sub(even, odd, alpha=2, out=out[4])
    return out
