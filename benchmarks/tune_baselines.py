"""Search settings of the MLP systems on training images alone, for docs/research/comparison.md.

    python benchmarks/tune_baselines.py DATASET [METHOD ...]

A fifth of the training images is held out; each configuration is fitted on the rest (which holds out its own
tenth to choose epochs) and scored by voxel_r against the repeat means of the held-out fifth. Test images are
never read.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np

from synbrain.baselines.mindsimulator import MindSimulator
from synbrain.baselines.mlp_autoencoder import MLPAE, MLPVAE
from synbrain.baselines.mlp_parts import MLPConfig
from synbrain.baselines.ridge import Ridge
from synbrain.data.dataset import load_dataset
from synbrain.features.store import open_tokens
from synbrain.features.tokens import pairs_of
from synbrain.metrics.voxel import voxel_r

HELD, SPLIT_SEED = 0.2, 1000
KINDS: dict[str, type[MLPAE]] = {"mlp_ae": MLPAE, "mlp_vae": MLPVAE, "mindsimulator": MindSimulator}
SEVERAL: list[dict[str, Any]] = [  # differences from the defaults
    {},
    {"clip_weight": 1.0},
    {"clip_weight": 0.01},
    {"tokens": 8, "dim": 32},
    {"tokens": 2, "dim": 128},
    {"second_lr": 3e-4},
    {"second_weight_decay": 0.3},
    {"depth": 2},
]
OWN: dict[str, list[dict[str, Any]]] = {
    "mlp_ae": [*SEVERAL, {"epochs": 20}],
    "mlp_vae": [*SEVERAL, {"kl_weight": 1e-2}, {"kl_weight": 1e-4}],
    "mindsimulator": [*SEVERAL, {"drop": 0.0}, {"second_epochs": 20}],
}


def tune(path: Path, methods: list[str], encoder: str, n_seeds: int, only: int | None) -> None:
    """Print one line of a Markdown table for each method and configuration."""
    dataset = load_dataset(path)
    train = pairs_of(dataset, open_tokens(dataset, encoder), "train")
    rest, held = train.hold_out(HELD, SPLIT_SEED)
    truth = held.repeat_means()

    def score(model: Any) -> float:
        return float(np.nanmean(voxel_r(model.predict(held.tokens), truth)))

    print(f"{dataset.info.name}: {rest.n_images} images to fit on, {held.n_images} to score on\n")
    print("| method | differs from the defaults in | voxel r | CPU s |\n|---|---|---:|---:|")
    print(f"| ridge | | {score(Ridge().fit(rest)):.3f} | |", flush=True)
    for method in methods:
        for changes in OWN[method][:only]:
            found, started = [], time.process_time()
            for seed in range(n_seeds):
                config = MLPConfig(**KINDS[method]().config.model_dump() | changes)
                found.append(score(KINDS[method](config).fit(rest, seed=seed)))
            seconds = (time.process_time() - started) / n_seeds
            said = ", ".join(f"{key} {value}" for key, value in changes.items()) or "-"
            print(f"| {method} | {said} | {np.mean(found):.3f} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("methods", nargs="*", default=list(KINDS))
    parser.add_argument("--encoder", default="efficientnet-lite0")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only", type=int, help="the first ONLY configurations; 1: the defaults")
    given = parser.parse_args()
    tune(given.dataset, given.methods, given.encoder, given.seeds, given.only)
