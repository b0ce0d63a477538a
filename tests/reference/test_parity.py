"""Outputs, losses and gradients of the published implementation, at its own checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from synbrain.networks.config import VAELossConfig
from synbrain.networks.losses import mapper_loss, vae_losses
from synbrain.reference.checkpoints import read_reference_mapper, read_reference_vae

PARITY = Path(__file__).parents[2] / "../shared/parity"
VOXELS = (151, 90, 400)

pytestmark = pytest.mark.skipif(not PARITY.is_dir(), reason="the reference's vectors are not at hand")


@pytest.fixture(scope="module")
def vectors():
    return load_file(PARITY / "vectors.safetensors")


@pytest.fixture(scope="module")
def meta():
    return json.loads((PARITY / "meta.json").read_text())


@pytest.fixture(scope="module")
def vae():
    return read_reference_vae(PARITY / "vae_last.pth")


@pytest.fixture(scope="module")
def mapper():
    return read_reference_mapper(PARITY / "mapper_last.pt")


def near(got, expected, tolerance=1e-5):
    got, expected = torch.as_tensor(got).double(), torch.as_tensor(expected).double()
    assert got.shape == expected.shape
    assert (got - expected).norm() <= tolerance * expected.norm()
    assert (got - expected).abs().max() <= tolerance * expected.abs().max()


@pytest.mark.parametrize("n_voxels", VOXELS)
def test_posterior_and_reconstruction(vae, vectors, n_voxels):
    with torch.no_grad():
        posterior = vae.encode(vectors[f"y_{n_voxels}"].squeeze(1))
        near(posterior.mean, vectors[f"mean_{n_voxels}"])
        near(posterior.logvar, vectors[f"logvar_{n_voxels}"])
        z = posterior.at(vectors[f"eps_{n_voxels}"])
        near(vae.decode(z, n_voxels), vectors[f"recon_{n_voxels}"].squeeze(1))
        near(vae.decode(posterior.mode(), n_voxels), vectors[f"recon_mode_{n_voxels}"].squeeze(1))


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("n_voxels", VOXELS)
def test_losses_and_gradient_norm(vae, vectors, meta, n_voxels, checkpointing):
    expected = meta["losses"][str(n_voxels)]
    y, noise = vectors[f"y_{n_voxels}"].squeeze(1), vectors[f"eps_{n_voxels}"]
    vae.zero_grad()
    vae.checkpointing = checkpointing
    recon, posterior, z = vae(y, noise)
    losses = vae_losses(recon, y, posterior, z, vectors["z_clip"], VAELossConfig(replicas=1))
    losses.total.backward()
    vae.checkpointing = False
    norm = torch.stack([p.grad.norm() for p in vae.parameters()]).norm()
    near(losses.reconstruction.detach(), expected["reconstruction"])
    near(losses.kl.detach(), expected["kl"])
    near(losses.soft_clip.detach(), expected["soft_clip"])
    near(losses.total.detach(), expected["total"])
    near(norm, expected["grad_norm"])


def test_mapper_and_synthesis(vae, mapper, vectors, meta):
    with torch.no_grad():
        z = mapper(vectors["z_clip"])
        near(z, vectors["mapper_out"])
        near(mapper.fold()(vectors["z_clip"]), vectors["mapper_out"])
        near(vae.decode(z, 151), vectors["synth"].squeeze(1))
        near(mapper_loss(z, vectors[f"mean_{meta['voxels'][-1]}"]), meta["mapper_loss"])


def test_sizes_are_inferred(vae, mapper, meta):
    given = meta["ddconfig"]
    assert vae.config.tokens == given["z_channels"]
    assert vae.config.channels == given["ch"]
    assert list(vae.config.multipliers) == given["ch_mult"]
    assert vae.config.pooled_length == given["ada_length"]
    assert (vae.config.down_blocks, vae.config.up_blocks) == (1, 1)
    assert (mapper.config.depth, mapper.config.heads) == (2, 4)
