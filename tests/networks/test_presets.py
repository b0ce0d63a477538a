"""Published parameter counts and arithmetic, without allocating anything; presets fitted to encoders."""

from __future__ import annotations

import pytest
import torch

from synbrain.errors import SynBrainError
from synbrain.networks.brainvae import BrainVAE, BrainVAEConfig
from synbrain.networks.mapper import Mapper, MapperConfig
from synbrain.networks.presets import PRESETS, preset
from synbrain.training.cost import activation_bytes, parameter_counts, saved_bytes, step_gflop


def millions(name):
    counts = parameter_counts(PRESETS[name].vae, PRESETS[name].mapper)
    return {part: round(count / 1e6, 1) for part, count in counts.items()}


def test_published_parameter_counts():
    got = millions("paper-4096")
    assert got["vae"] == 78.3
    assert (got["vae_encoder"], got["vae_decoder"]) == (12.3, 17.9)
    assert (got["vae_heads"], got["vae_post"]) == (32.0, 16.0)
    assert got["mapper"] == 410.4
    assert got["mapper_mlps"] == 177.3
    assert millions("paper-1024")["vae"] == 65.4
    assert millions("paper-4096-depth12")["mapper"] == 609.9
    assert millions("paper-4096-depth4")["mapper"] == 211.0
    assert round(got["mapper"] - got["mapper_folded"], -1) == 140  # a third folds away


@pytest.mark.parametrize(
    ("name", "hidden"), [("paper-4096", 4096), ("paper-2048", 2048), ("paper-1024", 1024)]
)
def test_paper_sizes(name, hidden):
    chosen = preset(name)
    assert chosen.vae.hidden == hidden
    assert (chosen.vae.tokens, chosen.vae.dim) == (chosen.mapper.tokens, chosen.mapper.dim) == (256, 1664)


def test_arithmetic_of_the_published_model():
    paper = PRESETS["paper-4096"]
    got = step_gflop(paper.vae, paper.mapper, 15724)
    assert got["vae_forward"] == pytest.approx(398, abs=1)
    assert got["vae_step"] == pytest.approx(1193, abs=3)
    assert got["mapper_forward"] == pytest.approx(138, rel=0.03)  # which leaves attention out
    assert got["mapper_step"] == pytest.approx(413, rel=0.03)
    assert got["vae_encode"] < 0.6 * got["vae_forward"]


def test_saved_activations_of_the_published_model_stay_under_the_limits():
    paper = PRESETS["paper-4096"]

    def gib(**options):
        return activation_bytes(paper.vae, paper.mapper, 15724, **options)["vae"] / 2**30

    assert gib() < 0.6
    assert gib(fast=False) < 1.3
    assert gib(checkpointing=True, fast=False) < 0.5


@pytest.mark.parametrize("fast", [True, False])
def test_counted_activations_are_those_that_autograd_keeps(fast):
    vae = BrainVAEConfig(
        tokens=6, dim=8, channels=64, multipliers=(1, 1), res_blocks=1, pooled_length=1024, projector_width=16
    )
    mapper = MapperConfig(tokens=6, dim=8, depth=2, heads=2)
    counted = activation_bytes(vae, mapper, 100, batch=2, fast=fast)
    v, m = BrainVAE(vae, fast=fast), Mapper(mapper)
    noise, tokens = torch.randn(2, 6, 8), torch.randn(2, 6, 8)
    y = torch.randn(2, 100)
    real_v = saved_bytes(lambda: v(y, noise), v)
    real_m = saved_bytes(lambda: m(tokens), m)
    assert counted["vae"] == real_v
    assert counted["mapper"] == real_m


def test_presets_follow_the_encoder():
    fitted = preset("tiny", tokens=(49, 1280))
    assert fitted.mapper.token_shape == (49, 1280)
    assert (fitted.vae.tokens, fitted.vae.dim) == (49, 64)
    assert Mapper(fitted.mapper)(torch.randn(1, 49, 1280)).shape == (1, 49, 64)
    assert not preset("paper-4096", tokens=(256, 1664)).mapper.projects
    assert preset("small", tokens=(16, 256)).vae.tokens == 16
    with pytest.raises(SynBrainError, match="paper-4096"):
        preset("huge")
