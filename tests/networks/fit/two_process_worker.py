"""Trains both stages in as many processes as it was launched with; see test_two_processes.py."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from safetensors.torch import save_file

from synbrain.networks.brainvae import BrainVAE
from synbrain.networks.config import MapperStageConfig, VAELossConfig, VAEStageConfig
from synbrain.networks.fit.batches import StageSetup
from synbrain.networks.fit.mapper import train_mapper
from synbrain.networks.fit.metrics_log import MetricsLog
from synbrain.networks.fit.vae import train_vae
from synbrain.networks.mapper import Mapper

LOOP: dict[str, Any] = {
    "lr": 3e-3, "batch_size": 8, "stop": "never", "ema_decay": 0.9, "clip_grad": 1.0, "log_every": 5,
    # some biases have no gradient but rounding, of which a small eps would make whole steps
    "eps": 1e-3,
}  # fmt: skip


def train_both_stages(out: Path, replicas: int) -> None:
    """Write vae.safetensors and mapper.safetensors; ``replicas`` 0 contrasts over the global batch."""
    spec = importlib.util.spec_from_file_location(
        "helpers", Path(__file__).parents[2] / "fixtures" / "training.py"
    )
    assert spec is not None
    assert spec.loader is not None
    helpers = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(helpers)
    accelerator = Accelerator(cpu=True, mixed_precision="no")
    torch.manual_seed(0)
    vae, mapper = BrainVAE(helpers.MICRO.vae), Mapper(helpers.MICRO.mapper)
    subjects = [helpers.make_subject("a"), helpers.make_subject("b", n_voxels=9, seed=1)]
    setup = StageSetup(
        subjects, token_layer="final", weights=[1.0, 1.0], accelerator=accelerator, folder=out, seed=3,
        log=MetricsLog(out, active=accelerator.is_main_process),
    )  # fmt: skip
    loss = VAELossConfig(
        reconstruction="mean", contrast_on="sample", clip_weight=1.0,
        contrast_batch="replica" if replicas else "gathered", replicas=max(replicas, 1),
    )  # fmt: skip
    # no two clocks are alike: a checkpoint is late by that of one process first
    loop = LOOP | {"checkpoint_minutes": 1e-9 if accelerator.is_main_process else 10.0}
    train_vae(vae, VAEStageConfig(epochs=2, loss=loss, **loop), setup)
    config = MapperStageConfig(
        steps=12, round_steps=6, response_weight=1.0, contrastive_weight=0.1, decoder="finetune", **loop
    )
    train_mapper(mapper, vae, config, setup)
    if accelerator.is_main_process:
        save_file(vae.state_dict(), out / "vae.safetensors")
        save_file(mapper.state_dict(), out / "mapper.safetensors")
    accelerator.wait_for_everyone()


if __name__ == "__main__":
    for position, number in enumerate(sys.argv[2:]):
        folder = Path(sys.argv[1]) / str(position)
        folder.mkdir(exist_ok=True)
        train_both_stages(folder, int(number))
    torch.distributed.destroy_process_group()
