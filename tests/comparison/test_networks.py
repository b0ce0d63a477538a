from __future__ import annotations

import numpy as np
import pytest
import torch

from synbrain.comparison.compare import compare
from synbrain.comparison.options import CompareOptions
from synbrain.comparison.recipes import ContrastTarget
from synbrain.networks.brainvae import BrainVAEConfig
from synbrain.networks.mapper import MapperConfig
from synbrain.networks.presets import PRESETS, Preset

MICRO = Preset(
    BrainVAEConfig(
        tokens=3, dim=4, channels=4, multipliers=(1,), res_blocks=1, pooled_length=8, down_blocks=1,
        up_blocks=1, projector_width=8, norm_groups=2, edge_kernel=3,
    ),
    MapperConfig(tokens=3, dim=4, depth=2, heads=2),
)  # fmt: skip
SHORT = {"vae": {"epochs": 1}, "mapper": {"steps": 3, "round_steps": 3}}


@pytest.fixture
def micro(monkeypatch):
    monkeypatch.setitem(PRESETS, "micro", MICRO)


def test_networks_and_their_ablations_train_and_score(micro, toy, tmp_path):
    names = ["reference", "no_mapper", "synbrain_no_networks", "diffusion", "latent_down1"]
    settings = {
        "methods": names,
        "seeds": 1,
        "preset": "micro",
        "samples": 4,
        "n_bootstrap": 50,
        "n_subsets": 2,
    }
    options = CompareOptions.model_validate({**settings, **SHORT})
    found = compare(toy.dataset, options, out=tmp_path / "out", tokens=toy.tokens)
    assert found.failed == {}
    scores = found.scores
    assert set(found.about.skipped) == {"latent_down1"}
    differ = {scores.value(name, "mse") for name in names[:-1]}
    assert len(differ) == 4
    assert scores.value("reference", "syn_retrieval") is not None
    assert (
        scores.value("reference", "variance_ratio")
        == 0
        < scores.value("synbrain_no_networks", "variance_ratio")
    )
    assert scores.value("diffusion", "variance_ratio") > 0
    # one VAE, trained alike, whatever comes before it
    raw = {scores.value(name, "raw_retrieval") for name in ("reference", "no_mapper", "diffusion")}
    assert len(raw) == 1
    assert "raw_retrieval" not in scores.rows["synbrain_no_networks"]
    assert not (tmp_path / "out/training").exists()
    assert "--vae.epochs 1 --mapper.steps 3" in found.about.command


def test_without_a_mapper_the_contrasted_tokens_are_decoded():
    tokens = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 3, 8)).astype(np.float32))
    assert ContrastTarget((3, 8))(tokens) is tokens
    assert ContrastTarget((3, 4))(tokens).shape == (2, 3, 4)
