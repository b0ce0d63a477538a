"""Time and memory of ``synbrain prepare nsd`` on sessions of NSD's full size.

    python benchmarks/prepare_nsd.py --sessions 40 --workers 1 2

Writes one session of 81 x 104 x 83 voxels x 750 trials (int16 .nii.gz; noise in 43 % of the voxels, 0 in the
others; how far NSD's own betas compress was not at hand) and links it under the names of all sessions of a
tree in NSD's layout, with NSD's design size and 15,724 voxels in the mask; each setting has a fresh process.
Prints one row per setting: seconds and processor seconds per session, peak memory; and the share of the
time of reading one session that goes into decompression. Other load on the machine shows in "seconds" alone.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
from scipy.io import savemat

GRID, N_TRIALS, N_VOXELS = (81, 104, 83), 750, 15_724
CHILD = """
import json, re, resource, sys, time
from synbrain.prepare.nsd.prepare import prepare_nsd

def peak_mib():  # VmHWM starts anew with the process; ru_maxrss is inherited from the one that started it
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024

before = peak_mib()
src, out, workers, scaling = sys.argv[1:]
begin = time.perf_counter()
prepare_nsd(src, out, subject=1, workers=int(workers), scaling=scaling, repeats="available")
seconds, used = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps({"seconds": seconds, "cpu": used.ru_utime + used.ru_stime, "peak_mib": peak_mib(),
    "before_mib": before}))
"""


def write_tree(tree: Path, n_sessions: int, kind: str) -> Path:
    """Make the tree and return the one real session file."""
    rng = np.random.default_rng(0)
    own = np.arange(72_000).reshape(8, 9000) + 1001
    design = tree / "nsddata/experiments/nsd/nsd_expdesign.mat"
    design.parent.mkdir(parents=True)
    savemat(
        design,
        {
            "masterordering": rng.permutation(np.repeat(np.arange(10_000), 3))[None] + 1.0,
            "subjectim": np.hstack([np.tile(np.arange(1, 1001), (8, 1)), own]).astype(float),
            "sharedix": np.arange(1, 1001.0)[None],
        },
    )
    radius = sum(axis**2 for axis in np.meshgrid(*[np.linspace(-1, 1, n) for n in GRID], indexing="ij"))
    brain = np.asarray(radius) < 0.9
    roi = tree / "nsddata/ppdata/subj01/func1pt8mm/roi"
    betas = tree / "nsddata_betas/ppdata/subj01/func1pt8mm/betas_fithrf_GLMdenoise_RR"
    roi.mkdir(parents=True)
    betas.mkdir(parents=True)
    mask = np.zeros(GRID, dtype=np.int16)
    mask.flat[rng.choice(np.flatnonzero(brain), N_VOXELS, replace=False)] = 1
    nib.save(nib.Nifti1Image(mask, np.eye(4)), roi / "nsdgeneral.nii.gz")
    nib.save(nib.Nifti1Image(mask * np.float32(0.4), np.eye(4)), betas / "ncsnr.nii.gz")
    first = betas / f"betas_session01.{'hdf5' if kind == 'hdf5' else 'nii.gz'}"
    write_session(first, brain, rng, kind)
    for session in range(2, n_sessions + 1):
        os.link(first, first.with_name(first.name.replace("session01", f"session{session:02d}")))
    return first


def write_session(path: Path, brain: np.ndarray, rng: np.random.Generator, kind: str) -> None:
    base = rng.normal(0, 200, int(brain.sum()))

    def trial() -> np.ndarray:
        volume = np.zeros(GRID, dtype=np.int16)
        volume[brain] = (base + rng.normal(0, 400, base.size)).astype(np.int16)
        return volume

    if kind == "hdf5":
        values = np.stack([trial().T for _ in range(N_TRIALS)])  # (trials, z, y, x), as h5py shows NSD's
        with h5py.File(path, "w") as file:
            file.create_dataset("betas", data=values, chunks=(N_TRIALS, 1, 1, 1))
        return
    header = nib.Nifti1Header()
    header.set_data_shape((*GRID, N_TRIALS))
    header.set_data_dtype(np.int16)
    header["vox_offset"], header["magic"] = 352, b"n+1"
    with gzip.open(path, "wb", compresslevel=1) as out:
        out.write(header.binaryblock + b"\0" * 4)
        for _ in range(N_TRIALS):
            out.write(trial().tobytes(order="F"))


def share_inflating(path: Path) -> tuple[float, float]:
    """Seconds to read one session alone in this process, and the share of them spent in decompression."""
    from synbrain.prepare.betas import describe, read_masked

    about = describe(path)
    index = np.sort(np.random.default_rng(1).choice(int(np.prod(GRID)), N_VOXELS, replace=False))
    begin = time.perf_counter()
    _, inflating = read_masked(about, index)
    seconds = time.perf_counter() - begin
    return seconds, inflating / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sessions", type=int, default=4)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--scaling", nargs="+", default=["percent"])
    parser.add_argument("--format", choices=["nifti", "hdf5"], default="nifti")
    parser.add_argument("--folder", type=Path, help="where to write (a temporary folder)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        folder = Path(name)
        first = write_tree(folder / "tree", given.sessions, given.format)
        alone, share = share_inflating(first)
        print(f"one session: {first.stat().st_size / 1e6:.0f} MB on disk, read in {alone:.2f} s, "
              f"{100 * share:.0f} % of it in decompression")  # fmt: skip
        for scaling in given.scaling:
            for workers in given.workers:
                out = folder / f"out-{workers}-{scaling}"
                command = [sys.executable, "-c", CHILD, str(folder / "tree"), str(out), str(workers), scaling]
                row = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
                n = given.sessions
                print(
                    f"{given.format} {scaling} workers {workers}: {row['seconds']:.1f} s for {n} sessions, "
                    f"{row['seconds'] / n:.2f} s and {row['cpu'] / n:.2f} processor seconds per session, "
                    f"peak {row['peak_mib']:.0f} MiB ({row['before_mib']:.0f} MiB after imports), "
                    f"load {os.getloadavg()[0]:.1f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
