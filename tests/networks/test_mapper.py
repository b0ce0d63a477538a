"""Mapper: shapes, folding, start, projection, and the quirks of the published network both ways."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from synbrain.errors import SynBrainError
from synbrain.networks.blocks import sinusoid
from synbrain.networks.mapper import Mapper, MapperConfig, mlp_parameters

CONFIG = MapperConfig(tokens=5, dim=12, depth=2, heads=3)


def randomised(config, **options):
    torch.manual_seed(0)
    mapper = Mapper(config, **options)
    with torch.no_grad():
        for parameter in mapper.parameters():
            parameter.normal_(std=0.2)
    return mapper


def changed(**changes):
    return CONFIG.model_copy(update=changes)


def test_starts_at_zero_output_with_gradients_that_leave_it():
    mapper = Mapper(CONFIG)
    x = torch.randn(2, 5, 12)
    assert torch.equal(mapper(x), torch.zeros(2, 5, 12))
    (mapper(x) - 1).square().sum().backward()
    assert mapper.final.bias.grad.abs().sum() > 0


def test_published_shape_has_no_projection():
    mapper = Mapper(CONFIG)
    assert not CONFIG.projects
    assert mapper.project is None
    assert mapper.mix_tokens is None


@pytest.mark.parametrize(("n_in", "d_in"), [(5, 20), (9, 12), (9, 20)])
def test_tokens_of_another_grid_are_projected(n_in, d_in):
    config = changed(input_tokens=n_in, input_dim=d_in)
    assert config.projects
    mapper = randomised(config)
    x = torch.randn(2, n_in, d_in, requires_grad=True)
    out = mapper(x)
    assert out.shape == (2, 5, 12)
    out.square().sum().backward()
    assert (x.grad.abs().sum(dim=(0, 2)) > 0).all()
    assert torch.allclose(mapper.fold()(x), out, atol=1e-5)


def test_quirk_modulation_folds_into_constants_of_the_same_function():
    mapper = randomised(CONFIG)
    folded = mapper.fold()
    assert folded.config.modulation == "folded"
    x = torch.randn(3, 5, 12)
    assert torch.equal(folded(x), mapper(x))
    n_params = [sum(p.numel() for p in m.parameters()) for m in (mapper, folded)]
    assert n_params[1] < 0.7 * n_params[0]
    assert torch.equal(folded.fold()(x), folded(x))


def test_a_folded_mapper_shares_its_weights_and_is_not_to_be_trained():
    mapper = randomised(CONFIG)
    folded = mapper.fold()
    assert folded.blocks[0].qkv.weight.data_ptr() == mapper.blocks[0].qkv.weight.data_ptr()
    mapper.require_trainable()
    with pytest.raises(SynBrainError, match="without fold=True"):
        folded.require_trainable()


def test_folding_the_published_mapper_saves_142_million_parameters():
    with torch.device("meta"):
        mapper = Mapper(MapperConfig())
    folded = mapper.fold()
    whole, less = (sum(p.numel() for p in m.parameters()) / 1e6 for m in (mapper, folded))
    assert whole == pytest.approx(410.4, abs=0.1)
    assert whole - less == pytest.approx(142, abs=0.5)


def test_quirk_constant_modulation_trains():
    mapper = Mapper(changed(modulation="constant"))
    assert torch.equal(mapper(torch.randn(2, 5, 12)), torch.zeros(2, 5, 12))
    x = torch.randn(4, 5, 12)
    losses = []
    for _ in range(40):
        loss = (mapper(x) - x.flip(1)).square().mean()
        mapper.zero_grad()
        loss.backward()
        with torch.no_grad():
            for parameter in mapper.parameters():
                parameter.sub_(parameter.grad, alpha=2.0)
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_quirk_prediction():
    x = torch.randn(2, 5, 12)
    direct, difference = randomised(CONFIG), randomised(changed(prediction="v"))
    difference.load_state_dict(direct.state_dict())
    assert torch.allclose(difference(x), direct(x) + x)


def test_checkpointing_gives_the_same_gradients():
    x = torch.randn(2, 5, 12)
    grads = []
    for checkpointing in (False, True):
        mapper = randomised(CONFIG, checkpointing=checkpointing)
        mapper(x).square().sum().backward()
        grads.append([p.grad for p in mapper.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


@pytest.mark.parametrize("modulation", ["timestep", "constant"])
def test_autocast_runs_and_stays_near(modulation):
    mapper, x = randomised(changed(modulation=modulation, input_dim=20)), torch.randn(2, 5, 20)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = mapper(x)
        out.float().square().sum().backward()
    expected = mapper(x)
    assert 0 < (out.float() - expected).norm() < 0.05 * expected.norm()
    assert all(p.grad is not None for p in mapper.parameters())


def test_tokens_attend_to_each_other_and_positions_matter():
    mapper = randomised(CONFIG)
    x = torch.randn(1, 5, 12)
    moved = x.clone()
    moved[0, 4] *= -1
    assert (mapper(moved)[0, 0] - mapper(x)[0, 0]).abs().max() > 1e-4
    assert not torch.allclose(mapper(x.flip(1)).flip(1), mapper(x), atol=1e-4)


def test_positions_are_fixed_sinusoids():
    table = sinusoid(7, 6)
    assert torch.allclose(table[3, 0], torch.tensor(3.0).sin())
    assert torch.allclose(table[3, 5], (torch.tensor(3.0) / 10000 ** (2 / 3)).cos())
    assert "positions" not in dict(Mapper(CONFIG).named_parameters())


def test_few_shot_adaptation_names_the_mlps_alone():
    mapper = Mapper(changed(input_dim=20))
    names = mlp_parameters(mapper)
    assert len(names) == 2 * 2 * 2  # blocks, layers, weight and bias
    assert all(".fc1." in name or ".fc2." in name for name in names)
    assert not any(name.startswith("timestep") for name in names)


@pytest.mark.parametrize(
    "wrong", [{"heads": 5}, {"dim": 9, "heads": 3}, {"prediction": "v", "input_dim": 3}, {"path": 1}]
)
def test_sizes_that_do_not_fit_are_refused(wrong):
    with pytest.raises(ValidationError):
        MapperConfig(**(CONFIG.model_dump() | wrong))
