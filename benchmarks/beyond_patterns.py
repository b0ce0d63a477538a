"""How many directions beyond the patterns does a linear path need? Voxel r by the number that may be kept.

    python benchmarks/beyond_patterns.py DATASET [--encoder made] [--rest 0 256 768 1792]
    python benchmarks/beyond_patterns.py DATASET --layers block7 block10 --images 50 --draws 3

Each number is a fit of its own. Scored are images that no fit has seen: out of fold among the training
images, and, where `--images` draws a part of them, up to 400 of the others. Test images are not read.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from synbrain.data.dataset import load_dataset
from synbrain.features.store import open_tokens
from synbrain.features.tokens import pairs_of
from synbrain.linear.config import LinearPathConfig
from synbrain.linear.fit import fit_linear_path
from synbrain.metrics.voxel import mean_defined, voxel_r

N_SCORED = 400


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--encoder", default="efficientnet-lite0", help="whose tokens lie beside the dataset")
    parser.add_argument("--layers", nargs="+")
    parser.add_argument("--rest", type=int, nargs="+", default=[0, 768], help="directions at most")
    parser.add_argument("--images", type=int, help="training images that are drawn; all if left out")
    parser.add_argument("--draws", type=int, default=1)
    typed = parser.parse_args()
    dataset = load_dataset(typed.dataset)
    every = pairs_of(dataset, open_tokens(dataset, typed.encoder, typed.layers), "train")
    print(
        "| draw | directions at most | columns | single voxels, out of fold | out of fold | others | CPU s |"
    )
    print("|---|---|---|---|---|---|---|")
    for draw in range(typed.draws):
        order = np.random.default_rng([draw, 7]).permutation(every.n_images)
        n = typed.images or every.n_images
        drawn, others = every.take(np.sort(order[:n])), np.sort(order[n : n + N_SCORED])
        for rest in typed.rest:
            started = time.process_time()
            path = fit_linear_path(drawn, LinearPathConfig(rest=rest), show_progress=True).path
            figures = [path.about["cross_validated_r_of_single_voxels"], path.about["cross_validated_r"]]
            if len(others):
                scored = every.take(others)
                r = voxel_r(path.predict(scored.tokens), scored.repeat_means())
                figures.append(mean_defined(r)[0])
            cells = [f"{r:.4f}" for r in figures] + [""] * (3 - len(figures))
            took = f"{time.process_time() - started:.0f}"
            print("| " + " | ".join([str(draw), str(rest), str(path.about["rank"]), *cells, took]) + " |")


if __name__ == "__main__":
    main()
