"""The fused and Winograd paths compute the plain operations' values and gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from synbrain.networks.blocks import group_norm
from synbrain.networks.fast_cpu import winograd
from synbrain.networks.fast_cpu.norm_conv import norm_silu_conv


def relative(got, expected):
    return ((got.double() - expected.double()).norm() / expected.double().norm()).item()


def gradients(forward, x, modules, weights):
    x = x.clone().requires_grad_()
    for module in modules:
        module.zero_grad()
    out = forward(x)
    (out * weights).sum().backward()
    return [out.detach(), x.grad, *(p.grad.clone() for m in modules for p in m.parameters())]


@pytest.mark.parametrize(
    ("c_out", "kernel", "length", "phases"),
    [(6, 3, 40, False), (6, 7, 33, False), (1, 7, 33, False), (1, 1, 9, False), (1, 3, 8, False),
     (12, 3, 40, True), (6, 3, 4, True)],
)  # fmt: skip
def test_fused_operation_equals_the_plain_ones(c_out, kernel, length, phases):
    torch.manual_seed(0)
    norm, conv = group_norm(8, 4), nn.Conv1d(8, c_out, kernel, padding=kernel // 2)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x, weights = torch.randn(3, 8, length), torch.randn(3, c_out, length)

    def fast(x):
        h = norm_silu_conv(winograd.to_phases(x) if phases else x, norm, conv, True)
        return winograd.from_phases(h)

    exact = [norm.double(), conv.double()]
    expected = gradients(lambda x: conv(F.silu(norm(x))), x.double(), exact, weights.double())
    norm.float(), conv.float()
    for got, right in zip(gradients(fast, x, [norm, conv], weights), expected, strict=True):
        assert got.shape == right.shape
        assert relative(got, right) < 3e-6


def test_frozen_parts_get_no_gradient():
    norm, conv = group_norm(8, 4), nn.Conv1d(8, 8, 3, padding=1).requires_grad_(False)
    x = winograd.to_phases(torch.randn(2, 8, 16)).requires_grad_()
    norm_silu_conv(x, norm, conv, True).sum().backward()
    assert x.grad is not None
    assert conv.weight.grad is None
    trained = nn.Conv1d(8, 8, 3, padding=1)
    norm_silu_conv(x.detach(), norm.requires_grad_(False), trained, True).sum().backward()
    assert trained.weight.grad is not None


@settings(max_examples=25)
@given(
    st.integers(1, 3),
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(1, 12),
    st.integers(1, 40),
    st.integers(0, 99),
)
def test_winograd_is_the_convolution(batch, c_in, c_out, tiles, chunk, seed):
    torch.manual_seed(seed)
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setattr(winograd, "CHUNK", chunk)  # several chunks, so that their seams show
    x = torch.randn(batch, c_in, 4 * tiles, dtype=torch.float64)
    weight = torch.randn(c_out, c_in, 3, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(c_out, dtype=torch.float64)
    x.requires_grad_()
    expected = F.conv1d(x, weight, bias, padding=1)
    grad = torch.randn_like(expected)
    grad_x, grad_weight = torch.autograd.grad(expected, (x, weight), grad)
    with torch.no_grad():
        inside = winograd.to_phases(x)
        got = winograd.from_phases(winograd.convolve(inside, weight, bias))
        back_x, back_weight = winograd.convolve_backward(winograd.to_phases(grad), inside, weight)
    monkeypatch.undo()
    assert torch.allclose(got, expected, rtol=1e-10, atol=1e-10)
    assert torch.allclose(winograd.from_phases(back_x), grad_x, rtol=1e-10, atol=1e-10)
    assert torch.allclose(back_weight, grad_weight, rtol=1e-10, atol=1e-10)


def test_winograd_in_float32_rounds_like_the_plain_convolution():
    torch.manual_seed(0)
    x, weight = torch.randn(1, 256, 512), torch.randn(256, 256, 3) / 28
    exact = F.conv1d(x.double(), weight.double(), padding=1)
    got = winograd.from_phases(winograd.convolve(winograd.to_phases(x), weight, None))
    assert relative(got, exact) < 2e-6
    assert relative(F.conv1d(x, weight, padding=1), exact) < 2e-6
