"""The loss per voxel does not depend on how many voxels there are, nor on how many subjects."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from synbrain.networks.brainvae import BrainVAE
from synbrain.networks.fit import vae as vae_stage
from synbrain.networks.fit.batches import StageSetup, SubjectData
from synbrain.networks.fit.vae import train_vae
from synbrain.networks.losses import reconstruction
from synbrain.networks.mapper import Mapper
from synbrain.training.recipes import recipe


@settings(max_examples=25)
@given(n_voxels=st.integers(1, 50), copies=st.integers(1, 9), seed=st.integers(0, 1000))
def test_the_calibrated_reconstruction_is_per_voxel(n_voxels: int, copies: int, seed: int) -> None:
    assert recipe("calibrated").vae.loss.reconstruction == "mean"
    generator = torch.Generator().manual_seed(seed)
    recon, measured = (torch.randn(3, n_voxels, generator=generator) for _ in range(2))
    once = reconstruction(recon, measured, "mean")
    again = reconstruction(recon.repeat(1, copies), measured.repeat(1, copies), "mean")
    torch.testing.assert_close(once, again)
    summed = reconstruction(recon.repeat(1, copies), measured.repeat(1, copies), "sum")
    torch.testing.assert_close(summed, copies * reconstruction(recon, measured, "sum"))


@pytest.mark.parametrize("others", [0, 1, 3])
def test_a_subjects_loss_does_not_depend_on_how_many_others_there_are(
    others: int,
    subject: Callable[..., SubjectData],
    networks: Callable[..., tuple[BrainVAE, Mapper]],
    common: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """The first batch that holds subject 0 gives the same loss, whoever else is trained on."""
    seen: dict[int, float] = {}
    forward = vae_stage.VAEStep.forward

    def watched(self: Any, responses: Any, tokens: Any, noise: Any) -> Any:
        with torch.no_grad():
            loss = forward(self, responses, tokens, torch.zeros_like(noise))["loss"]
        seen.setdefault(responses.shape[1], float(loss))
        return forward(self, responses, tokens, noise)

    monkeypatch.setattr(vae_stage.VAEStep, "forward", watched)
    people = [subject("s0", n_voxels=6), *(subject(f"s{i + 1}", n_voxels=7 + i) for i in range(others))]
    config = recipe("calibrated").vae.model_copy(update={"epochs": 1, "batch_size": 8, "lr": 1e-9})
    config = config.model_copy(update={"weight_decay": 0.0})
    vae, _ = networks()
    train_vae(vae, config, StageSetup(people, **{**common, "weights": [1.0] * len(people)}))
    vae, _ = networks()
    alone: dict[int, float] = {}
    seen, together = alone, seen
    train_vae(vae, config, StageSetup(people[:1], **{**common, "folder": tmp_path / "alone"}))
    assert together[6] == pytest.approx(alone[6], rel=1e-4)
