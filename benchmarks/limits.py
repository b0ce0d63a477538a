"""What keeps the mean from the oracle on a simulated subject: tokens, number of images, or trial noise.

::

    python benchmarks/limits.py DATASET TREE [--layers block7 block10 block14 final] [--seed 0]

DATASET was prepared from TREE, which ``synbrain simulate`` wrote. A fifth of the training images is held out;
the linear path is fitted on the others as it is, and with parts of the truth given to it:

- noise-free targets: what the tokens and the number of images allow;
- the true signal patterns (principal components of the true means, in noise units), one ridge regression on
  each: what is lost by finding the patterns from noisy trials.

Test images are not looked at. Only this table may read the truth; nothing that is fitted does.
"""

from __future__ import annotations

import argparse
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from synbrain import load_dataset
from synbrain.arrays import Float64
from synbrain.evaluation.oracle_row import PER_PERCENT
from synbrain.features.store import open_tokens
from synbrain.features.tokens import Pairs, pairs_of
from synbrain.linear.config import LinearPathConfig
from synbrain.linear.fit import fit_linear_path
from synbrain.linear.noise_units import noise_units
from synbrain.metrics.voxel import mean_defined, voxel_r
from synbrain.simulate.truth import Truth

ENCODER = "efficientnet-lite0"


def one_trial_each(pairs: Pairs, responses: Float64) -> Pairs:
    """The images of ``pairs``, each with one row of ``responses`` for its only trial."""
    rows = np.arange(pairs.n_images)
    return replace(pairs, responses=responses.astype(np.float32), trials=rows, image_of_trial=rows)


def main() -> None:
    """Print voxel r of each fit against the held-out images' repeat means and true means."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("tree", type=Path)
    parser.add_argument("--layers", nargs="+")
    parser.add_argument("--patterns", type=int, nargs="+", default=[10, 20, 40])
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    dataset = load_dataset(given.dataset)
    tokens = open_tokens(dataset, ENCODER, given.layers)
    rest, held = pairs_of(dataset, tokens, "train").hold_out(0.2, given.seed)
    number = re.fullmatch(r"subj(\d+)", dataset.info.subject)
    if number is None:
        raise SystemExit("give a dataset that was prepared from a simulated tree")
    truth = Truth.load(given.tree, int(number[1]))
    unit = PER_PERCENT[str(dataset.info.scaling.get("kind"))]
    ids = dataset.images["nsd_id"].to_numpy(dtype=np.int64)
    true, true_held = (unit * truth.mean(ids[p.tokens.image_rows]).astype(np.float64) for p in (rest, held))
    measured = held.repeat_means()

    def tell(name: str, predicted: NDArray[np.floating]) -> None:
        r, of_oracle = (mean_defined(voxel_r(predicted, y))[0] for y in (measured, true_held))
        print(f"{name:58} {r:.3f} {of_oracle:.3f}", flush=True)

    print(f"{dataset.info.name}: {rest.n_images} images to fit on, {held.n_images} held out")
    print(f"{'':58} {'voxel r: measured, true mean'}")
    tell("oracle", true_held)
    tell("linear path", fit_linear_path(rest, LinearPathConfig(), seed=given.seed).path.predict(held.tokens))
    alone = LinearPathConfig(share=False, alphas=(0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0))
    clean = fit_linear_path(one_trial_each(rest, true), alone, seed=given.seed)
    tell("fitted on noise-free targets", clean.path.predict(held.tokens))
    y = rest.repeat_means()
    units = noise_units(rest, y, seed=given.seed)
    scaled, signal = units.into(y), units.into(true.astype(np.float32))
    axes = np.linalg.svd(signal - signal.mean(axis=0), full_matrices=False)[2]
    for k in given.patterns:
        scores = one_trial_each(rest, scaled @ axes[:k].T)
        found = fit_linear_path(scores, LinearPathConfig(share=False), seed=given.seed).path
        predicted = units.back(found.predict(held.tokens) @ axes[:k])
        tell(f"{k} true signal patterns, fitted on the noisy trials", predicted)


if __name__ == "__main__":
    main()
