"""Tunes an encoder in as many processes as it was launched with; see test_two_processes.py.

Arguments: folder of the result, then the datasets.
"""

from __future__ import annotations

import sys
from pathlib import Path

from synbrain.data.dataset import load_dataset
from synbrain.tuning.options import TuneOptions
from synbrain.tuning.tune import tune_encoder

OPTIONS = TuneOptions(
    size=32, side=2, channels=6, epochs=2, batch_size=8, validation_fraction=0.3,
    layers=["block2", "block4"], device="cpu", precision="fp32",
)  # fmt: skip

if __name__ == "__main__":
    out, *folders = map(Path, sys.argv[1:])
    tune_encoder([load_dataset(folder) for folder in folders], OPTIONS, out=out)
