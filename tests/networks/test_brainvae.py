"""BrainVAE: any voxel count, exact fast paths, memory, and the quirks of its architecture both ways."""

from __future__ import annotations

import copy

import pytest
import torch
from pydantic import ValidationError
from torch.autograd.graph import saved_tensors_hooks

from synbrain.networks.brainvae import BrainVAE, BrainVAEConfig

CONFIG = BrainVAEConfig(
    tokens=6, dim=8, channels=32, multipliers=(2, 3), res_blocks=1, pooled_length=1024, projector_width=16
)
SMALL = CONFIG.model_copy(update={"channels": 8, "multipliers": (1, 2), "pooled_length": 64})


def step(vae, y, noise):
    vae.zero_grad()
    recon, posterior, _ = vae(y, noise)
    ((recon - y).square().sum() + posterior.kl().sum()).backward()
    return torch.cat([recon.detach().flatten(), *(p.grad.flatten() for p in vae.parameters())])


def relative(a, b):
    return ((a - b).double().norm() / b.double().norm()).item()


@pytest.fixture(scope="module")
def wide():
    torch.manual_seed(0)
    return BrainVAE(CONFIG), torch.randn(2, 301), torch.randn(2, 6, 8)


@pytest.mark.parametrize("n_voxels", [1, 2, 63, 1000])
def test_any_number_of_voxels_through_the_same_weights(n_voxels):
    vae = BrainVAE(SMALL)
    posterior = vae.encode(torch.randn(3, n_voxels))
    assert posterior.mean.shape == posterior.logvar.shape == (3, 6, 8)
    assert vae.decode(posterior.mode(), n_voxels).shape == (3, n_voxels)
    assert not any(n_voxels in p.shape for p in vae.parameters() if n_voxels > 100)


def test_fast_path_equals_the_plain_one_in_values_and_gradients(wide):
    vae, y, noise = wide
    fast = step(vae, y, noise)
    vae.set_fast(False)
    plain = step(vae, y, noise)
    vae.set_fast(True)
    exact = step(copy.deepcopy(vae).double(), y.double(), noise.double())
    assert relative(fast, plain) < 1e-5
    assert relative(fast, exact) < 1.1 * relative(plain, exact)  # float32 itself is 5e-5 off here
    assert not torch.equal(fast, plain)  # else the fast path did not run


def test_checkpointing_gives_the_same_gradients_in_less_memory(wide):
    vae, y, noise = wide

    def saved():
        sizes = {}
        hooks = saved_tensors_hooks(
            lambda t: (sizes.__setitem__(t.untyped_storage().data_ptr(), t.untyped_storage().nbytes()), t)[1],
            lambda t: t,
        )
        with hooks:
            recon, _, _ = vae(y, noise)
        return sum(sizes.values()), recon

    kept, _ = saved()
    expected = step(vae, y, noise)
    vae.checkpointing = True
    fewer, _ = saved()
    got = step(vae, y, noise)
    vae.checkpointing = False
    assert torch.equal(got, expected)
    assert fewer < 0.7 * kept
    vae.set_fast(False)
    plain, _ = saved()
    vae.set_fast(True)
    assert kept < 0.7 * plain


def test_samples_of_a_batch_do_not_mix(wide):
    vae, y, _ = wide
    with torch.no_grad():
        both, one = vae.encode(y).mean, vae.encode(y[1:]).mean
    assert torch.allclose(both[1:], one, atol=1e-5)


def test_autocast_runs_and_stays_near(wide):
    vae, y, noise = BrainVAE(SMALL), *wide[1:]
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        posterior = vae.encode(y)
        recon = vae.decode(posterior.at(noise), y.shape[1])
        assert posterior.kl().dtype is torch.float32
    with torch.no_grad():
        expected = vae(y, noise)[0]
    assert 0 < relative(recon.float(), expected) < 0.05


def test_quirk_edge_kernel():
    assert BrainVAE(SMALL).encoder.conv_in.weight.shape[2] == 7
    one = BrainVAE(SMALL.model_copy(update={"edge_kernel": 1}))
    assert one.encoder.conv_in.weight.shape[2] == one.decoder.conv_out.weight.shape[2] == 1
    assert one.decode(torch.randn(1, 6, 8), 20).shape == (1, 20)


def test_quirk_norm_groups():
    published = BrainVAE(SMALL.model_copy(update={"channels": 64}))
    assert published.encoder.norm_out.num_groups == 32
    layer_norm = BrainVAE(SMALL.model_copy(update={"norm_groups": 1}))
    assert layer_norm.encoder.norm_out.num_groups == 1


def test_quirk_logvar_limit():
    y = torch.randn(2, 30)
    free = BrainVAE(SMALL)
    with torch.no_grad():
        free.logvar_head[-1].bias.fill_(50.0)
    held = BrainVAE(SMALL.model_copy(update={"logvar_limit": 8.0}))
    held.load_state_dict(free.state_dict())
    assert free.encode(y).logvar.max() > 40
    assert held.encode(y).logvar.abs().max() <= 8


@pytest.mark.parametrize(
    "wrong",
    [{"channels": 40}, {"down_blocks": 4}, {"pooled_length": 1025}, {"edge_kernel": 2}, {"n_voxels": 5}],
)
def test_sizes_that_do_not_fit_are_refused(wrong):
    with pytest.raises(ValidationError):
        BrainVAEConfig(**(CONFIG.model_dump() | wrong))
