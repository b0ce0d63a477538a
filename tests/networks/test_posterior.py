"""The posterior against torch's own normal distribution."""

from __future__ import annotations

import torch
from torch.distributions import Normal, kl_divergence

from synbrain.networks.posterior import Posterior


def posterior(scale=1.0):
    torch.manual_seed(0)
    return Posterior(torch.randn(3, 4, 5), torch.randn(3, 4, 5) * scale)


def test_kl_is_the_divergence_summed_per_sample():
    q = posterior()
    expected = kl_divergence(Normal(q.mean, (q.logvar / 2).exp()), Normal(0.0, 1.0)).sum(dim=(1, 2))
    assert q.kl().shape == (3,)
    assert torch.allclose(q.kl(), expected, rtol=1e-5)


def test_kl_of_half_precision_does_not_overflow():
    q = Posterior(torch.zeros(1, 400, 400).half(), torch.full((1, 400, 400), 12.0).half())
    assert q.kl().dtype is torch.float32
    assert torch.isfinite(q.kl()).all()
    assert not torch.isfinite(q.logvar.exp()).any()  # which half precision alone would have given


def test_samples_have_the_moments_and_follow_the_generator():
    q = Posterior(torch.full((20000, 1, 1), 2.0), torch.full((20000, 1, 1), -1.0))
    a = q.sample(torch.Generator().manual_seed(1))
    b = q.sample(torch.Generator().manual_seed(1))
    assert torch.equal(a, b)
    assert not torch.equal(a, q.sample(torch.Generator().manual_seed(2)))
    assert abs(a.mean() - 2.0) < 0.02
    assert abs(a.var() - torch.tensor(-1.0).exp()) < 0.02


def test_mode_and_noise():
    q = posterior()
    assert torch.equal(q.mode(), q.mean)
    assert torch.equal(q.at(torch.zeros_like(q.mean)), q.mean)
    assert torch.allclose(q.at(torch.ones_like(q.mean)) - q.mean, (q.logvar / 2).exp(), atol=1e-6)


def test_sampling_is_differentiable():
    mean, logvar = torch.randn(2, 3, 4, requires_grad=True), torch.zeros(2, 3, 4, requires_grad=True)
    Posterior(mean, logvar).sample(torch.Generator().manual_seed(0)).sum().backward()
    assert torch.equal(mean.grad, torch.ones(2, 3, 4))
    assert logvar.grad.abs().sum() > 0
