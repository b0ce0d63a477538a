"""Recordings of a few images (miyawaki_v1): do models on tokens of an encoder tell two of them apart?

    python benchmarks/pairs_of_images.py DATASET efficientnet-lite0 ENCODER efficientnet-lite0+ENCODER

Every pair of training images is held out once; ridge (one encoder) or the linear path is fitted on the
others. Over voxels, the predicted difference of the two is correlated with the measured one (repeat means),
so that neither the mean map nor its shift from fold to fold counts. Chance is 0, and a half for the share of
pairs whose two predictions are told apart. Errors are jackknifed over images, those of differences too.
"""

from __future__ import annotations

import argparse
from itertools import combinations
from pathlib import Path

import numpy as np

from synbrain.arrays import Float64
from synbrain.baselines.ridge import Ridge
from synbrain.data.dataset import load_dataset
from synbrain.features.joint import each_encoder
from synbrain.features.store import open_tokens
from synbrain.features.tokens import Pairs, pairs_of
from synbrain.linear.by_encoder import fit_each_encoder
from synbrain.linear.config import LinearPathConfig
from synbrain.linear.fit import LinearFit, fit_linear_path


def fitted(pairs: Pairs, settings: LinearPathConfig, _: int) -> LinearFit:
    """The linear path of one encoder."""
    return fit_linear_path(pairs, settings)


def scores(pairs: Pairs, method: str) -> Float64:
    """(n_images, n_images), correlation of predicted and measured difference of each two images held out."""
    measured = pairs.repeat_means()
    score = np.full((pairs.n_images, pairs.n_images), np.nan)
    for one, two in combinations(range(pairs.n_images), 2):
        held_out = np.array([one, two])
        train = pairs.take(np.setdiff1d(np.arange(pairs.n_images), held_out))
        tokens = pairs.tokens.take(held_out)
        if method == "ridge":
            first, second = Ridge().fit(train, seed=0).predict(tokens)
        else:
            first, second = fit_each_encoder(train, LinearPathConfig(), fitted).path.predict(tokens)
        r = np.corrcoef(first - second, measured[one] - measured[two])[0, 1]
        score[one, two] = score[two, one] = r if np.isfinite(r) else 0.0
    return score


def jackknifed(score: Float64) -> tuple[float, float]:
    """Mean over pairs of images, and its standard error over images."""
    n = len(score)
    rest = [np.arange(n) != image for image in range(n)]
    without = np.array([np.nanmean(score[of][:, of]) for of in rest])
    return float(np.nanmean(score)), float(np.sqrt((n - 1) / n * np.sum((without - without.mean()) ** 2)))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", type=Path)
    parser.add_argument(
        "encoders", nargs="+", help="whose tokens the dataset has; the first is compared with"
    )
    given = parser.parse_args()
    dataset = load_dataset(given.dataset)
    done: dict[str, Float64] = {}
    for encoder in given.encoders:
        pairs = pairs_of(dataset, open_tokens(dataset, encoder), "train")
        for method in ("ridge", "linear path") if len(each_encoder(pairs.tokens)) == 1 else ("linear path",):
            score = scores(pairs, method)
            against = done.setdefault(method, score)
            (r, error), (gain, of_gain) = jackknifed(score), jackknifed(score - against)
            apart = np.nanmean(np.where(np.isnan(score), np.nan, score > 0))
            print(
                f"{method} on {pairs.tokens.encoder}: r {r:.3f} +- {error:.3f}, told apart {apart:.3f}",
                end="",
            )
            print("" if score is against else f"; gain {gain:+.3f} +- {of_gain:.3f}", flush=True)


if __name__ == "__main__":
    main()
