"""Two CPU processes (gloo) give the parameters of one process with the same global batch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

WORKER = """
import importlib.util, sys
from pathlib import Path
from accelerate import Accelerator
from safetensors.torch import save_file
import torch
from synbrain.models.brainvae import BrainVAE
from synbrain.models.losses import VAELossConfig
from synbrain.models.mapper import Mapper
from synbrain.training.config import MapperStageConfig, VAEStageConfig
from synbrain.training.mapper_stage import MapperData, train_mapper
from synbrain.training.metrics_log import MetricsLog
from synbrain.training.vae_stage import train_vae

spec = importlib.util.spec_from_file_location("helpers", sys.argv[1])
helpers = importlib.util.module_from_spec(spec)
spec.loader.exec_module(helpers)
out, replicas = Path(sys.argv[2]), int(sys.argv[3])
accelerator = Accelerator(cpu=True, mixed_precision="no")
assert accelerator.num_processes == int(sys.argv[4])
torch.manual_seed(0)
vae, mapper = BrainVAE(helpers.MICRO.vae), Mapper(helpers.MICRO.mapper)
subjects = [helpers.make_subject("a"), helpers.make_subject("b", n_voxels=9, seed=1)]
kind = "replica" if replicas else "gathered"
common = dict(token_stage="final", weights=[1.0, 1.0], accelerator=accelerator, folder=out,
              log=MetricsLog(out, active=accelerator.is_main_process), seed=3)
loop = dict(lr=3e-3, batch_size=8, stop="never", ema_decay=0.9, clip_grad=1.0, weight_decay=0.01, log_every=5)
loss = VAELossConfig(reconstruction="mean", contrast_on="sample", clip_weight=1.0, contrast_batch=kind,
                     replicas=max(replicas, 1))
train_vae(vae, subjects, VAEStageConfig(epochs=2, loss=loss, **loop), **common)
config = MapperStageConfig(steps=12, round_steps=6, response_weight=1.0, contrastive_weight=0.1,
                           decoder="finetune", **loop)
train_mapper(mapper, vae, subjects, [MapperData(), MapperData()], config, **common)
if accelerator.is_main_process:
    for name, module in (("vae", vae), ("mapper", mapper)):
        save_file(module.state_dict(), out / f"{name}.safetensors")
"""


def train_in(n_processes: int, replicas: int, folder: Path) -> dict[str, torch.Tensor]:
    script = folder / "worker.py"
    script.write_text(WORKER)
    out = folder / f"out-{n_processes}"
    out.mkdir()
    launch = [sys.executable]
    if n_processes > 1:
        launch += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={n_processes}"]
    helpers = Path(__file__).with_name("conftest.py")
    command = [*launch, str(script), str(helpers), str(out), str(replicas), str(n_processes)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return {**load_file(out / "vae.safetensors"), **load_file(out / "mapper.safetensors")}


@pytest.mark.parametrize(
    ("replicas_of_one", "replicas_of_two"),
    [(0, 0), (2, 1)],  # contrast over the global batch; or within DataParallel's halves, a process each
    ids=["gathered", "per-replica"],
)
def test_two_processes_train_what_one_does(
    replicas_of_one: int, replicas_of_two: int, tmp_path: Path
) -> None:
    one = train_in(1, replicas_of_one, tmp_path)
    two = train_in(2, replicas_of_two, tmp_path)
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        assert torch.allclose(tensor, two[name], rtol=1e-3, atol=2e-5), name
