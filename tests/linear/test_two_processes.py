"""Two CPU processes (gloo) that share the voxels give the path of one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from fixtures.small_path import CONFIG, made
from synbrain.linear.fit import fit_linear_path
from synbrain.linear.team import Team

HERE = Path(__file__).parent


def test_two_processes_fit_what_one_does(tmp_path: Path) -> None:
    pairs, new = made()
    alone = fit_linear_path(pairs, CONFIG, seed=3)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    path = os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "PYTHONPATH": path}
    done = subprocess.run(
        [*launch, str(HERE / "team_worker.py"), str(tmp_path)],
        env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    for rank in range(2):
        theirs = np.load(tmp_path / f"{rank}.npz")
        np.testing.assert_allclose(
            theirs["out_of_fold"], alone.out_of_fold, atol=1e-4 * alone.out_of_fold.std()
        )
        np.testing.assert_allclose(
            theirs["new"], alone.path.predict(new), atol=1e-4 * alone.out_of_fold.std()
        )


def test_shares_are_disjoint_and_whole() -> None:
    for world in (1, 2, 3, 7):
        shares = [Team(rank, world).share(11) for rank in range(world)]
        assert sorted(i for part in shares for i in range(part.start, part.stop)) == list(range(11))
    assert Team(1, 4).share(3) == slice(0, 3), "fewer than processes: every process does all of it"
