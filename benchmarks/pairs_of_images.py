"""Recordings of a few images (miyawaki_v1): do models on tokens of an encoder tell two of them apart?

    python benchmarks/pairs_of_images.py DATASET efficientnet-lite0 ENCODER

Every pair of training images is held out once; ridge and the linear path are fitted on the others, on the
tokens of each encoder, and the path on both (`train --encoder A+B`). Over voxels, the predicted difference of
the two is correlated with the measured one (repeat means), so that neither the mean map nor its shift from
fold to fold counts. Chance is 0, and a half for the share of pairs whose two predictions are told apart.
Errors are jackknifed over images, those of gains over the first encoder too.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import numpy as np

from synbrain.arrays import Float32, Float64
from synbrain.baselines.ridge import Ridge
from synbrain.data.dataset import load_dataset
from synbrain.features.joint import joint_tokens
from synbrain.features.store import open_tokens
from synbrain.features.tokens import Pairs, pairs_of
from synbrain.linear.config import LinearPathConfig
from synbrain.linear.fit import fit_linear_path
from synbrain.linear.stacking import stacked

RIDGE, PATH = "ridge", "linear path"


def predictions(each: list[Pairs], held_out: list[int]) -> Iterator[tuple[str, str, Float32]]:
    """(method, encoder, predictions of two images) of models that were fitted on the others."""
    rest = np.setdiff1d(np.arange(each[0].n_images), held_out)
    fits, paths = [], []
    for pairs in each:
        train, tokens = pairs.take(rest), pairs.tokens.take(np.array(held_out))
        yield RIDGE, pairs.tokens.encoder, Ridge().fit(train, seed=0).predict(tokens)
        fits.append(fit_linear_path(train, LinearPathConfig(), seed=0))
        paths.append(fits[-1].path.predict(tokens))
        yield PATH, pairs.tokens.encoder, paths[-1]
    measured = each[0].take(rest).repeat_means()
    shares, _ = stacked([fit.out_of_fold for fit in fits], measured, fits[0].folds)  # as with A+B
    both = np.sum([share * path for share, path in zip(shares, paths, strict=True)], axis=0)
    yield PATH, joint_tokens([pairs.tokens for pairs in each]).encoder, both


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
    parser.add_argument("dataset", type=Path, help="with tokens of both encoders")
    parser.add_argument("encoders", nargs=2)
    given = parser.parse_args()
    dataset = load_dataset(given.dataset)
    each = [pairs_of(dataset, open_tokens(dataset, encoder), "train") for encoder in given.encoders]
    measured, n = each[0].repeat_means(), each[0].n_images
    scores: dict[tuple[str, str], Float64] = {}
    for one, two in combinations(range(n), 2):
        for method, encoder, (first, second) in predictions(each, [one, two]):
            r = np.corrcoef(first - second, measured[one] - measured[two])[0, 1]
            score = scores.setdefault((method, encoder), np.full((n, n), np.nan))
            score[one, two] = score[two, one] = r if np.isfinite(r) else 0.0
    for (method, encoder), score in scores.items():
        apart = np.mean(score[np.isfinite(score)] > 0)
        (r, error), (gain, of_gain) = (
            jackknifed(of) for of in (score, score - scores[method, each[0].tokens.encoder])
        )
        print(f"{method} on {encoder}: r {r:.3f} +- {error:.3f}; told apart {apart:.3f}; ", end="")
        print(f"gain {gain:+.3f} +- {of_gain:.3f}")


if __name__ == "__main__":
    main()
