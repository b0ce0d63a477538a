"""Two CPU processes (gloo) give the parameters of one process with the same global batch."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

WORKER = Path(__file__).with_name("two_process_worker.py")
# contrast over the global batch; or within DataParallel's halves, here a process each
OF_ONE, OF_TWO = (0, 2), (0, 1)
# what 24 steps make of sums in another order: up to 2e-5 on a Xeon, 4e-5 on an EPYC, of parameters up to 1
ROUNDING = 2e-4


def test_two_processes_train_what_one_does(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("two_process_worker", WORKER)
    assert spec is not None
    assert spec.loader is not None
    worker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(worker)
    one, two = tmp_path / "one", tmp_path / "two"
    two.mkdir()
    for position, replicas in enumerate(OF_ONE):
        (one / str(position)).mkdir(parents=True)
        worker.train_both_stages(one / str(position), replicas)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [*launch, str(WORKER), str(two), *map(str, OF_TWO)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    for position in range(len(OF_ONE)):
        for part in ("vae", "mapper"):
            alone = load_file(one / str(position) / f"{part}.safetensors")
            shared = load_file(two / str(position) / f"{part}.safetensors")
            assert alone.keys() == shared.keys()
            assert apart(alone, shared) < ROUNDING, part
    # another contrast moves the parameters by far more than that
    other = [load_file(one / str(position) / "vae.safetensors") for position in range(2)]
    assert apart(*other) > 10 * ROUNDING


def apart(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """The largest difference of a parameter."""
    return max(float((tensor - other[name]).abs().max()) for name, tensor in one.items())
