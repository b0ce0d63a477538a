"""Losses against independent forms, and each published quirk in both settings."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax

from synbrain.networks.losses import (
    VAELossConfig,
    contrastive_target,
    kl,
    mapper_loss,
    mapper_target,
    reconstruction,
    soft_clip,
    vae_losses,
)
from synbrain.networks.posterior import Posterior


def by_numpy(z, tokens, temperature):
    a, b = (
        x.reshape(len(x), -1) / np.linalg.norm(x.reshape(len(x), -1), axis=1)[:, None] for x in (z, tokens)
    )
    aim, cosine = softmax(b @ b.T / temperature, axis=1), a @ b.T / temperature
    rows = -(log_softmax(cosine, axis=1) * aim).sum(1).mean()
    return (rows - (log_softmax(cosine.T, axis=1) * aim).sum(1).mean()) / 2


@pytest.fixture
def batch():
    torch.manual_seed(0)
    return torch.randn(6, 3, 4), torch.randn(6, 3, 4)


def test_soft_clip_is_the_symmetric_soft_cross_entropy(batch):
    z, tokens = batch
    for temperature in (0.125, 1.0):
        expected = by_numpy(z.double().numpy(), tokens.double().numpy(), temperature)
        assert soft_clip(z, tokens, temperature).item() == pytest.approx(expected, rel=1e-5)


def test_soft_clip_prefers_aligned_latents_and_ignores_scale(batch):
    _, tokens = batch
    aligned, shuffled = soft_clip(tokens, tokens), soft_clip(tokens.roll(1, 0), tokens)
    assert aligned < shuffled
    assert torch.allclose(soft_clip(tokens * 7, tokens), aligned, rtol=1e-5)


def test_quirk_contrast_per_replica_or_gathered(batch):
    z, tokens = batch
    parts = (soft_clip(z[:3], tokens[:3]) + soft_clip(z[3:], tokens[3:])) / 2
    assert torch.allclose(soft_clip(z, tokens, replicas=2), parts)
    assert not torch.allclose(soft_clip(z, tokens), parts)
    assert torch.isfinite(soft_clip(z[:1], tokens[:1], replicas=2))


def test_gathered_contrast_equals_one_process_with_the_whole_batch(batch, tmp_path):
    z, tokens = batch
    torch.save((z, tokens), tmp_path / "batch.pt")
    # processes of their own: a fork of this one would wait for OpenMP threads that it does not have
    worker = Path(__file__).with_name("gather_worker.py")
    running = [subprocess.Popen([sys.executable, str(worker), str(tmp_path), str(rank)]) for rank in range(2)]
    assert [process.wait(timeout=200) for process in running] == [0, 0]
    whole = z.clone().requires_grad_()
    expected = soft_clip(whole, tokens)
    expected.backward()
    for rank in range(2):
        loss, grad = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert torch.allclose(loss, expected)
        assert torch.allclose(grad, whole.grad[rank * 3 : rank * 3 + 3], atol=1e-7)


def test_quirk_reconstruction_summed_or_per_voxel():
    recon, y = torch.zeros(2, 10), torch.full((2, 10), 2.0)
    assert reconstruction(recon, y, "sum").item() == 40.0
    assert reconstruction(recon, y, "mean").item() == 4.0
    more = torch.full((2, 50), 2.0)
    assert reconstruction(torch.zeros(2, 50), more, "mean").item() == 4.0


def _losses(batch, **settings):
    z, tokens = batch
    posterior = Posterior(z * 0.5, torch.zeros_like(z))
    recon, y = torch.ones(6, 20), torch.zeros(6, 20)
    return vae_losses(recon, y, posterior, z, tokens, VAELossConfig(**settings))


def test_total_is_the_weighted_sum(batch):
    found = _losses(batch, kl_weight=0.5, clip_weight=3.0)
    expected = found.reconstruction + 0.5 * found.kl + 3 * found.soft_clip
    assert torch.allclose(found.total, expected)
    assert found.reconstruction.item() == 20.0
    assert torch.allclose(found.kl, kl(Posterior(batch[0] * 0.5, torch.zeros_like(batch[0]))))
    without = _losses(batch, clip_weight=0.0)
    assert without.soft_clip.item() == 0.0


def test_quirk_contrast_on_the_sample_or_the_mean(batch):
    z, tokens = batch
    posterior = Posterior(z + 1, torch.zeros_like(z))
    y = torch.zeros(6, 2)

    def clip(seen):
        config = VAELossConfig(contrast_on=seen, replicas=1)
        return vae_losses(y, y, posterior, z, tokens, config).soft_clip

    assert torch.allclose(clip("sample"), soft_clip(z, tokens))
    assert torch.allclose(clip("mean"), soft_clip(z + 1, tokens))


def test_quirk_contrast_batch_setting(batch):
    assert torch.allclose(_losses(batch).soft_clip, soft_clip(*batch, replicas=2))
    assert torch.allclose(_losses(batch, contrast_batch="gathered").soft_clip, soft_clip(*batch))


def test_quirk_mapper_target_mean_or_sample():
    mean = torch.randn(2, 3, 4, requires_grad=True)
    q = Posterior(mean, torch.zeros(2, 3, 4))
    assert torch.equal(mapper_target(q), mean)
    assert not mapper_target(q).requires_grad
    drawn = mapper_target(q, "sample", torch.Generator().manual_seed(0))
    assert torch.equal(drawn, q.sample(torch.Generator().manual_seed(0)).detach())
    assert mapper_loss(torch.zeros(2, 3), torch.full((2, 3), 3.0)).item() == 9.0


def test_half_precision_is_reduced_in_float32():
    recon = torch.full((1, 20000), 10.0).half()
    assert reconstruction(recon, torch.zeros(1, 20000).half()).item() == 2e6
    z = torch.full((2, 300, 300), 20.0).half()
    assert torch.isfinite(soft_clip(z, z))


def test_contrastive_target_keeps_cosines(batch):
    _, tokens = batch
    assert contrastive_target(tokens, 3, 4) is tokens
    torch.manual_seed(0)
    wide = torch.randn(8, 10, 64) + torch.randn(8, 1, 64) * 2
    narrow = contrastive_target(wide, 10, 48)
    assert narrow.shape == (8, 10, 48)
    assert torch.equal(narrow, contrastive_target(wide, 10, 48))
    a, b = (torch.corrcoef(x.flatten(1)) for x in (wide, narrow))
    upper = torch.triu_indices(8, 8, 1)
    assert torch.corrcoef(torch.stack([a[*upper], b[*upper]]))[0, 1] > 0.6
    assert contrastive_target(wide, 5, 64).shape == (8, 5, 64)
