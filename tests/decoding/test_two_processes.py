"""Two CPU processes (gloo) train one decoder: several subjects, one of which a batch is of."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from synbrain import Decoder
from synbrain.simulate.example import toy_dataset

HERE = Path(__file__).parent


def test_two_processes_train_and_adapt_a_decoder_of_several_subjects(tmp_path: Path) -> None:
    for seed, name in enumerate("abc"):
        toy_dataset(tmp_path / name, seed)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(
        [*launch, str(HERE / "decoder_worker.py"), str(tmp_path)],
        env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert list(Decoder.from_pretrained(tmp_path / "base").subjects) == ["toy0", "toy1"]
    assert list(Decoder.from_pretrained(tmp_path / "adapted").subjects) == ["toy2"]
    assert not list(tmp_path.glob(".*.training"))
