"""The linear path against ridge on small tables: few training images of a dataset, scored on others of them.

    python benchmarks/small_tables.py DATA/v4                        # all voxels; 40, 72 and 100 images
    python benchmarks/small_tables.py DATA/v4 --voxels 20 --sizes 72

Test images are not read. Each seed draws the images anew; both methods get the same ones, with one trial or
three each. Variants of the path say which of its parts a difference comes from.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from synbrain.arrays import Float32, Rows
from synbrain.baselines.ridge import Ridge
from synbrain.data.dataset import load_dataset
from synbrain.features.store import open_tokens
from synbrain.features.tokens import Pairs, pairs_of
from synbrain.linear.config import LinearPathConfig
from synbrain.linear.fit import fit_linear_path
from synbrain.metrics.voxel import mean_defined, voxel_r

N_SCORED = 200
PLAIN: dict[str, Any] = {"windows": 0, "blur": 0.0}
VARIANTS: dict[str, dict[str, Any]] = {
    "linear path": {},
    "without components": {"components": 0},
    "without sharing": {"share": False},
    "plain kernel, shared": PLAIN,
    "plain kernel, without sharing": PLAIN | {"share": False},
}


def some_trials(pairs: Pairs, images: Rows, most: int, rng: np.random.Generator) -> Pairs:
    """These images with ``most`` trials each at most."""
    part = pairs.take(images)
    trials = [rng.permutation(np.flatnonzero(part.image_of_trial == i))[:most] for i in range(part.n_images)]
    kept = np.sort(np.concatenate(trials))
    return replace(part, trials=part.trials[kept], image_of_trial=part.image_of_trial[kept])


def mean_r(predicted: Float32, measured: Float32) -> float:
    """Mean over voxels of the correlation over images."""
    r = mean_defined(voxel_r(predicted, measured))[0]
    assert r is not None
    return r


def differences(pairs: Pairs, sizes: list[int], seeds: int) -> None:
    """Print voxel r of ridge, and by how much each variant differs from it: mean over seeds and its error."""
    found: dict[tuple[int, int], list[dict[str, float]]] = {}
    for seed in range(seeds):
        rng = np.random.default_rng([seed, 77])
        order = rng.permutation(pairs.n_images)
        scored = pairs.take(np.sort(order[-N_SCORED:]))
        measured = scored.repeat_means()
        for n in sizes:
            for repeats in (1, 3):
                train = some_trials(pairs, np.sort(order[:n]), repeats, rng)
                row = {"ridge": mean_r(Ridge().fit(train, seed=seed).predict(scored.tokens), measured)}
                for name, change in VARIANTS.items():
                    path = fit_linear_path(train, LinearPathConfig(**change), seed=seed).path
                    row[name] = mean_r(path.predict(scored.tokens), measured)
                found.setdefault((n, repeats), []).append(row)
    for (n, repeats), rows in found.items():
        print(f"{n} images x {repeats}: ridge {np.mean([row['ridge'] for row in rows]):.3f}")
        for name in VARIANTS:
            d = np.array([row[name] - row["ridge"] for row in rows])
            error = d.std(ddof=1) / np.sqrt(len(d))
            print(f"  {name:<30} {d.mean():+.4f} +- {error:.4f}, below ridge in {(d < 0).sum()} of {len(d)}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", type=Path, help="with tokens of efficientnet-lite0, 320 training images")
    parser.add_argument("--sizes", type=int, nargs="+", default=[40, 72, 100], help="training images")
    parser.add_argument("--voxels", type=int, default=0, help="so many of them, drawn; 0: all")
    parser.add_argument("--seeds", type=int, default=5)
    given = parser.parse_args()
    dataset = load_dataset(given.dataset)
    tokens = open_tokens(dataset, "efficientnet-lite0")
    pairs = pairs_of(dataset, tokens.only(list(tokens.layers)[-1]), "train")
    if given.voxels:
        chosen = np.random.default_rng(given.voxels).permutation(pairs.n_voxels)[: given.voxels]
        pairs = replace(pairs, responses=np.ascontiguousarray(np.asarray(pairs.responses)[:, chosen]))
    differences(pairs, given.sizes, given.seeds)


if __name__ == "__main__":
    main()
