"""Memory of importing and running a MindEye2 checkpoint of the published size, with random weights.

    python benchmarks/mindeye2_memory.py FOLDER

Writes a checkpoint of 8.9 GB and a decoder of 4.2 GB into FOLDER, and prints the largest memory of the
process, mapped pages included, above what Python and torch take before.
"""

from __future__ import annotations

import argparse
import mmap
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import torch

from synbrain.decoding.mindeye2.backbone import BackboneConfig
from synbrain.decoding.mindeye2.model import MindEye2Network
from synbrain.decoding.mindeye2.prior_network import PriorConfig
from synbrain.decoding.published import import_mindeye2
from synbrain.decoding.streamed import release

BACKBONE = BackboneConfig(hidden=4096, n_blocks=4, tokens=256, dim=1664, blocks="published")
PRIOR = PriorConfig(tokens=256, dim=1664, depth=6, heads=32, dim_head=52, steps=100)
N_VOXELS = 15724  # of subj01
AT_ONCE = 2**22  # values


def write_checkpoint(path: Path) -> None:
    """Random weights in float32, never in memory as a whole: the file is made first and filled afterwards."""
    with torch.device("meta"):
        network = MindEye2Network([N_VOXELS], BACKBONE, PRIOR)
    state = {_published(name): torch.empty_like(t, device="cpu") for name, t in network.state_dict().items()}
    with torch.serialization.skip_data():
        torch.save({"model_state_dict": state}, path)
    del state
    generator = np.random.default_rng(0)
    torch.serialization.set_default_mmap_options(mmap.MAP_SHARED)
    block = torch.from_numpy(generator.standard_normal(AT_ONCE, dtype=np.float32)) * 0.02
    for tensor in torch.load(path, mmap=True)["model_state_dict"].values():
        if tensor.is_floating_point():
            for part in tensor.view(-1).split(AT_ONCE):
                part.copy_(block[: len(part)])
                release(part)


def _published(name: str) -> str:
    return "diffusion_prior." + name.removeprefix("prior.") if name.startswith("prior.") else name


def measure(checkpoint: Path, out: Path) -> None:
    """Import, decode one response, and print the peaks."""
    seen: list[int] = []
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            seen.append(_resident())
            time.sleep(0.01)

    before = _resident()
    watcher = threading.Thread(target=watch)
    watcher.start()
    decoder = import_mindeye2(checkpoint, out=out)
    imported = max(seen) - before
    decoder.embed(np.zeros((1, decoder.n_voxels), np.float32))
    done.set()
    watcher.join()
    weights = (out / "model.safetensors").stat().st_size
    print(f"weights in half precision {weights / 1e9:.2f} GB, of the process before {before / 1e9:.2f} GB")
    for what, peak in (("import", imported), ("import and one response", max(seen) - before)):
        print(f"{what}: at most {peak / 1e9:.2f} GB more, {peak / weights:.3f} times the weights")


def _resident() -> int:
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines["VmRSS"].split()[0]) * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--measure", action="store_true", help="measure on the checkpoint that lies there")
    args = parser.parse_args()
    checkpoint, out = args.folder / "last.pth", args.folder / "decoder"
    if args.measure:
        measure(checkpoint, out)
        return
    args.folder.mkdir(parents=True, exist_ok=True)
    if not checkpoint.exists():
        write_checkpoint(checkpoint)
    subprocess.run([sys.executable, __file__, str(args.folder), "--measure"], check=True)


if __name__ == "__main__":
    main()
