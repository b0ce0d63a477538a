"""Two CPU processes (gloo) tune the encoder that one process tunes with the same global batch."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from synbrain import SynBrain
from synbrain.data.dataset import Dataset
from synbrain.features.encoders import get_encoder
from synbrain.tuning.tune import tune_encoder

WORKER = Path(__file__).with_name("two_process_worker.py")


def test_two_processes_tune_what_one_does(pair: list[Dataset], tmp_path: Path) -> None:
    tune_encoder(pair, runpy.run_path(str(WORKER))["OPTIONS"], out=tmp_path / "one")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [*launch, str(WORKER), str(tmp_path / "two"), *(str(dataset.path) for dataset in pair)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    before = get_encoder("efficientnet-lite0").module
    assert before is not None
    start = before.state_dict()
    for file in ("base/model.safetensors", "head.safetensors"):
        alone, together = (load_file(tmp_path / name / file) for name in ("one", "two"))
        assert alone.keys() == together.keys()
        for name, tensor in alone.items():
            # Adam's steps have the size of the rate even where a gradient is next to nothing, and there its
            # rounding decides: a few weights of a layer
            apart = (tensor.double() - together[name].double()).abs()
            assert float((apart > 2e-5).double().mean()) < 0.01, name
            assert float(apart.max()) < 5e-4, name
        if file.startswith("base"):
            assert any(not torch.equal(tensor, start[name]) for name, tensor in alone.items())
    one, two = (SynBrain.from_pretrained(tmp_path / name / "readouts") for name in ("one", "two"))
    for subject in one.subjects:
        paths = [run.subject(subject).linear for run in (one, two)]
        assert paths[0] is not None
        assert paths[1] is not None
        np.testing.assert_allclose(
            paths[0].projections["readout"].astype(np.float32),
            paths[1].projections["readout"].astype(np.float32), rtol=5e-3, atol=5e-4,
        )  # fmt: skip
