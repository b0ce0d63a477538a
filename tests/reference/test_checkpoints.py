"""Reading the reference trainers' checkpoints: any size, any broken tensor named, nothing executed."""

from __future__ import annotations

import argparse
import os

import pytest
import torch

from synbrain.errors import SynBrainError
from synbrain.networks.brainvae import BrainVAE, BrainVAEConfig
from synbrain.networks.mapper import Mapper, MapperConfig
from synbrain.reference.checkpoints import read_reference_mapper, read_reference_vae
from synbrain.reference.names import mapper_to_reference, vae_to_reference

VAE_SIZES = [
    BrainVAEConfig(
        tokens=5, dim=6, channels=4, multipliers=(1, 3), res_blocks=2, pooled_length=16, down_blocks=0,
        up_blocks=0, projector_width=7,
    ),
    BrainVAEConfig(
        tokens=9, dim=12, channels=8, multipliers=(2, 1, 4, 2), res_blocks=1, pooled_length=64, down_blocks=3,
        up_blocks=2, projector_width=10, edge_kernel=1,
    ),
    BrainVAEConfig(
        tokens=3, dim=8, channels=32, multipliers=(2,), res_blocks=3, pooled_length=32, down_blocks=1,
        projector_width=16,
    ),
]  # fmt: skip


def randomised(module):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.uniform_(-0.3, 0.3)
    return module.eval()


def save_vae(path, vae, prefix="module.", **changes):
    state = {prefix + name: tensor for name, tensor in vae_to_reference(vae.state_dict()).items()}
    state.update(changes)
    torch.save({"epoch": 3, "model": state, "optimizer": {}, "train_losses": [1.0]}, path)
    return path


def save_mapper(path, mapper, args, prefix=""):
    ema = {prefix + name: tensor for name, tensor in mapper_to_reference(mapper.state_dict()).items()}
    model = {name: torch.zeros_like(tensor) for name, tensor in ema.items()}
    torch.save({"model": model, "ema": ema, "opt": {}, "args": args, "steps": 10}, path)
    return path


@pytest.fixture
def vae():
    return randomised(BrainVAE(VAE_SIZES[0]))


@pytest.mark.parametrize("prefix", ["module.", ""])
@pytest.mark.parametrize("config", VAE_SIZES)
def test_vae_of_any_size_comes_back(tmp_path, config, prefix):
    vae = randomised(BrainVAE(config))
    back = read_reference_vae(save_vae(tmp_path / "vae.pth", vae, prefix))
    assert back.config == config
    y = torch.randn(2, 37)
    with torch.no_grad():
        a, b = vae.encode(y), back.encode(y)
        assert torch.equal(a.mean, b.mean)
        assert torch.equal(a.logvar, b.logvar)
        assert torch.equal(vae.decode(a.mean, 37), back.decode(a.mean, 37))


@pytest.mark.parametrize("prefix", ["module.", ""])
@pytest.mark.parametrize(
    ("tokens", "dim", "depth", "heads", "ratio"), [(7, 12, 1, 3, 4.0), (4, 8, 12, 2, 2.0)]
)
def test_mapper_of_any_size_comes_back_with_its_ema(tmp_path, tokens, dim, depth, heads, ratio, prefix):
    config = MapperConfig(tokens=tokens, dim=dim, depth=depth, heads=heads, mlp_ratio=ratio)
    mapper = randomised(Mapper(config))
    args = argparse.Namespace(model_depth=depth, model_head=heads, prediction="x")
    back = read_reference_mapper(save_mapper(tmp_path / "m.pt", mapper, args, prefix))
    assert back.config == config
    x = torch.randn(2, tokens, dim)
    assert torch.equal(back(x), mapper(x))


def test_heads_come_from_the_flag_where_the_checkpoint_has_none(tmp_path):
    mapper = randomised(Mapper(MapperConfig(tokens=3, dim=12, depth=1, heads=4)))
    path = save_mapper(tmp_path / "m.pt", mapper, argparse.Namespace(prediction="v"))
    with pytest.raises(SynBrainError, match="--heads"):
        read_reference_mapper(path)
    back = read_reference_mapper(path, heads=4)
    assert back.config.prediction == "v"
    x = torch.randn(2, 3, 12)
    assert torch.allclose(back(x), mapper(x) + x)
    saved = save_mapper(tmp_path / "n.pt", mapper, argparse.Namespace(model_head=4))
    with pytest.raises(SynBrainError, match="4 heads, not 3"):
        read_reference_mapper(saved, heads=3)


def test_a_mapper_without_ema_is_refused(tmp_path):
    torch.save({"model": {}}, tmp_path / "m.pt")
    with pytest.raises(SynBrainError, match="EMA"):
        read_reference_mapper(tmp_path / "m.pt", heads=2)


@pytest.mark.parametrize(
    "name",
    [
        "encoder.conv_in.weight",
        "encoder.down.1.block.0.conv1.weight",
        "decoder.up.0.block.2.norm1.bias",
        "encoder.mid.attn_1.k.weight",
        "post_projector.8.bias",
    ],
)
@pytest.mark.parametrize("fault", ["missing", "misshapen"])
def test_the_broken_tensor_is_named(tmp_path, vae, name, fault):
    state = vae_to_reference(vae.state_dict())
    if fault == "missing":
        del state[name]
    else:
        state[name] = state[name][:-1]
    torch.save({"model": state}, tmp_path / "vae.pth")
    with pytest.raises(SynBrainError) as told:
        read_reference_vae(tmp_path / "vae.pth")
    assert f"{fault}: {name}" in str(told.value)
    assert str(told.value).count(" instead of ") == (fault == "misshapen")  # that tensor alone


def test_an_extra_tensor_is_named(tmp_path, vae):
    path = save_vae(tmp_path / "vae.pth", vae, **{"module.encoder.head.weight": torch.zeros(2)})
    with pytest.raises(SynBrainError, match=r"extra: encoder\.head\.weight"):
        read_reference_vae(path)


class Malicious:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def test_pickled_code_is_not_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": Malicious()}, "vae.pth")
    with pytest.raises(SynBrainError, match="not executed"):
        read_reference_vae(tmp_path / "vae.pth")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("content", [b"", b"not a checkpoint"])
def test_a_broken_file_is_told(tmp_path, content):
    (tmp_path / "vae.pth").write_bytes(content)
    with pytest.raises(SynBrainError):
        read_reference_vae(tmp_path / "vae.pth")
    with pytest.raises(SynBrainError, match="missing"):
        read_reference_vae(tmp_path / "absent.pth")
