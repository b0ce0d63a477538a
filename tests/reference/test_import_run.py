"""``synbrain import-reference`` end to end, from checkpoints to a run that predicts."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from synbrain.cli import main
from synbrain.data.units import UNITS
from synbrain.errors import SynBrainError
from synbrain.features.tokens import TokenSet
from synbrain.model.synbrain import SynBrain
from synbrain.networks.brainvae import BrainVAE, BrainVAEConfig
from synbrain.networks.mapper import Mapper, MapperConfig
from synbrain.reference.import_run import import_reference
from synbrain.reference.names import mapper_to_reference, vae_to_reference
from synbrain.simulate.example import toy_dataset

PARITY = Path(__file__).parents[2] / "../shared/parity"


@pytest.fixture
def checkpoints(tmp_path):
    torch.manual_seed(0)
    vae = BrainVAE(
        BrainVAEConfig(tokens=5, dim=6, channels=4, multipliers=(1, 2), pooled_length=32, projector_width=8)
    ).eval()
    mapper = Mapper(MapperConfig(tokens=5, dim=6, depth=3, heads=2)).eval()
    with torch.no_grad():
        for parameter in mapper.parameters():
            parameter.normal_(std=0.3)
    state = {f"module.{k}": v for k, v in vae_to_reference(vae.state_dict()).items()}
    torch.save({"model": state, "epoch": 1}, tmp_path / "vae.pth")
    ema = mapper_to_reference(mapper.state_dict())
    args = argparse.Namespace(model_head=2, prediction="x")
    torch.save({"model": {}, "ema": ema, "args": args, "steps": 1}, tmp_path / "mapper.pt")
    return tmp_path, vae, mapper


def run(folder, *options):
    return main(
        ["import-reference", "--vae", f"{folder}/vae.pth", "--mapper", f"{folder}/mapper.pt", *options]
    )


def test_the_run_computes_what_the_checkpoints_do(checkpoints):
    folder, vae, mapper = checkpoints
    assert run(folder, "--out", f"{folder}/run", "--subject", "mine", "--n-voxels", "21") == 0
    model = SynBrain.from_pretrained(folder / "run")
    tokens = torch.randn(4, 5, 6)
    with torch.no_grad():
        expected = vae.decode(mapper(tokens), 21)
    store = TokenSet("clip", "any", {"final": tokens.numpy()}, np.arange(4))
    assert np.allclose(model.predict(store), expected.numpy(), rtol=1e-5, atol=1e-6)
    assert np.array_equal(model.sample(store, 2)[0], model.sample(store, 2, seed=5)[1])  # deterministic
    y = torch.randn(2, 21)
    assert torch.equal(model.vae.encode(y).mean, vae.encode(y).mean)
    assert model.config.recipe == "reference"


def test_nothing_is_overwritten_unless_asked_and_sizes_are_asked_for(checkpoints, capsys):
    folder, *_ = checkpoints
    out = ["--out", f"{folder}/run"]
    assert run(folder, *out, "--subject", "mine") == 2
    assert "--n-voxels" in capsys.readouterr().err
    assert not (folder / "run").exists()
    assert run(folder, *out) == 0
    assert SynBrain.from_pretrained(folder / "run").subject().n_voxels == 15724  # NSD's subj01
    assert run(folder, *out, "--n-voxels", "9") == 2
    assert "--overwrite" in capsys.readouterr().err
    assert run(folder, *out, "--n-voxels", "9", "--overwrite") == 0
    assert SynBrain.from_pretrained(folder / "run").subject().n_voxels == 9


def test_responses_in_another_unit_than_the_published_codes_are_refused(checkpoints):
    """The run said that it predicted percent: its squared errors were of others, .15 times as large."""
    folder, *_ = checkpoints
    toy = toy_dataset()
    files = {"vae": folder / "vae.pth", "mapper": folder / "mapper.pt"}
    assert import_reference(**files, dataset=toy).subject().unit == "arbitrary unit"

    def scaled(kind):
        unit = {"unit": UNITS[kind], "scaling": {"kind": kind}}
        return replace(toy, info=toy.info.model_copy(update=unit))

    assert import_reference(**files, dataset=scaled("reference")).subject().scaling == {"kind": "reference"}
    for kind in ("percent", "session-zscore"):
        with pytest.raises(SynBrainError, match="trains on percent signal change x"):
            import_reference(**files, dataset=scaled(kind))


def test_checkpoints_of_two_models_are_refused(checkpoints, capsys):
    folder, *_ = checkpoints
    other = mapper_to_reference(Mapper(MapperConfig(tokens=4, dim=6, depth=1, heads=2)).state_dict())
    torch.save({"ema": other, "args": argparse.Namespace(model_head=2)}, folder / "mapper.pt")
    assert run(folder, "--out", f"{folder}/run") == 2
    assert "one model" in capsys.readouterr().err


@pytest.mark.skipif(not PARITY.is_dir(), reason="the reference's vectors are not at hand")
def test_published_vectors_through_the_run(tmp_path):
    files = ["--vae", str(PARITY / "vae_last.pth"), "--mapper", str(PARITY / "mapper_last.pt")]
    assert main(["import-reference", *files, "--out", str(tmp_path / "run"), "--n-voxels", "151"]) == 0
    model = SynBrain.from_pretrained(tmp_path / "run")
    vectors = load_file(PARITY / "vectors.safetensors")
    z_clip = vectors["z_clip"]
    assert (model.mapper(z_clip) - vectors["mapper_out"]).norm() <= 1e-5 * vectors["mapper_out"].norm()
    synth = model.predict(TokenSet("clip", "any", {"final": z_clip.numpy()}, np.arange(3)))
    expected = vectors["synth"].squeeze(1).numpy()
    assert np.linalg.norm(synth - expected) <= 1e-5 * np.linalg.norm(expected)
