"""An encoder tuned on, and adapted to, subjects of as many voxels as a visual cortex has: time and memory.

    python benchmarks/many_units.py FIRST SECOND NEW --work WORK [--voxels 15724 14300 12000] [--epochs 1]

FIRST, SECOND and NEW are folders as `synbrain prepare table` reads them (such as recordings of some dozen
units). Voxels are made of them: each is a mixture of a tenth of the units with noise of 1.2 times its sd.
Then the commands of docs/guide/tuning.md run, each in a process of its own: an encoder is tuned on the first
two and adapted to the third. Only what they cost is of interest here.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

LAYERS = ["block7", "block10", "block14", "readout"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("recordings", nargs=3, type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--voxels", nargs=3, type=int, default=[15724, 14300, 12000])
    parser.add_argument("--epochs", type=int, default=1)
    typed = parser.parse_args()
    typed.work.mkdir(parents=True)
    names = ["first", "second", "new"]
    for seed, (name, of, n_voxels) in enumerate(zip(names, typed.recordings, typed.voxels, strict=True)):
        mixed(of, typed.work / "source" / name, n_voxels, seed)
        timed("prepare", "table", f"source/{name}", f"data/{name}", "--unit", "z", work=typed.work)
    tuned = ["data/first", "data/second", "--out", "encoder", "--epochs", str(typed.epochs)]
    timed("tune-encoder", *tuned, work=typed.work)
    timed("features", "data/new", "--encoder", "encoder", "--layers", *LAYERS, work=typed.work)
    timed(
        "adapt", "encoder/readouts", "data/new", "--budget", "all", "--networks", "false",
        "--out", "run", work=typed.work,
    )  # fmt: skip


def mixed(recordings: Path, out: Path, n_voxels: int, seed: int) -> None:
    """The pictures and trials of ``recordings`` with ``n_voxels`` mixtures of their units."""
    units = np.load(recordings / "responses.npy").astype(np.float64)
    units = (units - units.mean(axis=0)) / units.std(axis=0)
    rng = np.random.default_rng(seed)
    shape = units.shape[1], n_voxels
    signal = units @ (rng.standard_normal(shape) * (rng.random(shape) < 0.1))
    signal /= signal.std(axis=0) + 1e-9
    out.mkdir(parents=True)
    np.save(out / "responses.npy", (signal + 1.2 * rng.standard_normal(signal.shape)).astype(np.float32))
    shutil.copy(recordings / "trials.csv", out)
    shutil.copytree(recordings / "images", out / "images")


def timed(command: str, *words: str, work: Path) -> None:
    """Run a command in ``work`` and say what it took."""
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "synbrain", command, *words], cwd=work)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{command} failed")
    cpu, clock = usage.ru_utime + usage.ru_stime, time.perf_counter() - started
    print(f"{command}: {cpu:.0f} CPU s, {clock:.0f} s, {usage.ru_maxrss / 2**20:.1f} GiB", flush=True)


if __name__ == "__main__":
    main()
