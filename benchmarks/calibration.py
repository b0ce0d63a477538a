"""Calibration beyond one recording: simulated noise levels, held-out repeats, and what sampling costs.

::

    python benchmarks/calibration.py simulated WORK [--size small] [--noise low high] [--seeds 3]
    python benchmarks/calibration.py repeats DATASET [--draws 10]
    python benchmarks/calibration.py cost RUN DATASET

``simulated`` runs commands whose output does not stand in WORK yet. ``repeats`` is for recordings of few
images with many repeats (miyawaki_v1): half of each image's repeats to fit on, half to judge by, and then
the other way round. ``cost`` times ``predict`` and 20 trials of ``sample`` in turn.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from steps import step
from synbrain import SynBrain, load_dataset
from synbrain.data.dataset import Dataset
from synbrain.features.store import open_tokens
from synbrain.features.tokens import Pairs, pairs_of
from synbrain.linear.config import LinearPathConfig
from synbrain.linear.fit import fit_linear_path
from synbrain.metrics.distribution import (
    covariance_r,
    covered,
    noise_products,
    variance_ratio,
    within_image_squares,
)
from synbrain.noise.config import NoiseConfig
from synbrain.noise.fit import fit_response_noise
from synbrain.noise.response_noise import ResponseNoise

ENCODER = "efficientnet-lite0"
N_SAMPLES = 200


def simulated(work: Path, size: str, noises: list[str], layers: list[str], seeds: int) -> None:
    """Simulate, prepare, compute tokens and compare, for each level of noise."""
    for noise in noises:
        tree, data, out = (work / f"{noise}-{what}" for what in ("tree", "data", "table"))
        step(tree, "simulate", str(tree), "--size", size, "--noise", noise)
        step(data, "prepare", "nsd", str(tree), str(data), "--subject", "1", "--repeats", "available")
        step(data / "tokens" / ENCODER / "tokens.json", "features", str(data), "--layers", *layers)
        step(out, "compare", str(data), "--methods",
             "ridge_gaussian,ridge_isotropic,synbrain_no_networks,reference,oracle",
             "--seeds", str(seeds), "--out", str(out))  # fmt: skip


def halves(pairs: Pairs, rng: np.random.Generator) -> tuple[Pairs, Pairs]:
    """The same images with one random half of each one's repeats, and with the other."""
    first = np.zeros(pairs.n_trials, dtype=bool)
    for image in range(pairs.n_images):
        own = rng.permutation(np.flatnonzero(pairs.image_of_trial == image))
        first[own[: len(own) // 2]] = True
    one, two = (
        Pairs(pairs.tokens, pairs.responses, pairs.trials[kept], pairs.image_of_trial[kept])
        for kept in (first, ~first)
    )
    return one, two


def judged(noise: ResponseNoise, mean: NDArray[np.float32], held: Pairs) -> dict[str, float]:
    """Scores of trials around ``mean`` (n_images, n_voxels) against the repeats held out."""
    trials, image = held.trial_responses(), held.image_of_trial
    samples = noise.sample(mean, N_SAMPLES, seed=0)
    squares, freedom = within_image_squares(trials, image)
    products, products_freedom = noise_products(trials, image)
    flat = samples.reshape(-1, samples.shape[-1])
    drawn, drawn_freedom = noise_products(flat, np.tile(np.arange(len(mean)), N_SAMPLES))
    ratio = variance_ratio(samples.var(axis=0, ddof=1).mean(axis=0), squares / freedom)
    found = covariance_r(drawn / drawn_freedom, products / products_freedom)
    return {
        "variance ratio": float(np.nanmedian(ratio)),
        "50 %": float(covered(samples, trials, image, 0.5).mean()),
        "90 %": float(covered(samples, trials, image, 0.9).mean()),
        "covariance r": np.nan if found is None else found,
    }


def around_own_mean(pairs: Pairs, seed: int) -> tuple[ResponseNoise, NDArray[np.float32]]:
    """Noise for further trials of the images at hand, and their means, drawn to the voxel's mean.

    A repeat mean is known to ``1 / n`` of the noise variance, a share of which shrinking takes away; the
    rest, ``signal / (signal + noise / n) / n``, widens the trials as far as NoiseConfig.max_ratio lets it.
    """
    means = pairs.repeat_means()
    config = NoiseConfig(inflation="none", shaped=False)
    noise = fit_response_noise(pairs, means, config, seed=seed)
    n = float(np.mean(pairs.repeats()))
    known = noise.noise_ceiling(int(n))  # share of the means' variance that is signal
    centre = means.mean(axis=0)
    needed = 1 + known / n
    power = min(1.0, np.log(config.max_ratio) / np.log(np.median(needed)))
    return replace(noise, inflation=needed**power), centre + known * (means - centre)


def repeats(dataset: Dataset, draws: int, encoder: str) -> None:
    """Fit noise on half of the repeats, judge it by the others, around two means; print a table."""
    pairs = pairs_of(dataset, open_tokens(dataset, encoder), "train")
    rows: dict[str, list[dict[str, float]]] = {"images not seen": [], "own image's mean": []}
    reached: list[float] = []
    for draw in range(draws):
        one, two = halves(pairs, np.random.default_rng(draw))
        both = []
        for fitted_on, held in ((one, two), (two, one)):
            path = fit_linear_path(fitted_on, LinearPathConfig(), seed=draw)
            unseen = fit_response_noise(fitted_on, path.out_of_fold, NoiseConfig(), seed=draw)
            rows["images not seen"].append(judged(unseen, path.out_of_fold, held))
            rows["own image's mean"].append(judged(*around_own_mean(fitted_on, draw), held))
            products, freedom = noise_products(held.trial_responses(), held.image_of_trial)
            both.append(products / freedom)
        reached.append(covariance_r(*both) or np.nan)
    print(f"\n{dataset.info.name}: {pairs.n_images} images, {pairs.n_trials} trials, {draws} x 2 fits")
    print("| trials around | variance ratio | 50 % | 90 % | covariance r |\n|---|---|---|---|---|")
    for name, found in rows.items():
        ratios = np.array([f["variance ratio"] for f in found])
        # a half with little variance judges one with much, and in turn: the geometric mean is free of that
        middle = f"{np.exp(np.log(ratios).mean()):.3f} ({ratios.min():.2f} to {ratios.max():.2f})"
        rest = " | ".join(f"{np.mean([f[k] for f in found]):.3f}" for k in ("50 %", "90 %", "covariance r"))
        print(f"| {name} | {middle} | {rest} |")
    print(f"| the other half of the repeats | 1 | .500 | .900 | {np.nanmean(reached):.3f} |")


def cost(run: Path, dataset: Dataset, rounds: int = 7) -> None:
    """Median seconds of ``predict`` and of 20 trials by ``sample`` of all test images, in turn."""
    model = SynBrain.from_pretrained(run)
    tokens = pairs_of(dataset, open_tokens(dataset, model.config.encoder), "test").tokens
    spent: dict[str, list[float]] = {"predict": [], "sample": []}
    for _ in range(rounds):
        started = time.perf_counter()
        model.predict(tokens)
        spent["predict"].append(time.perf_counter() - started)
        started = time.perf_counter()
        model.sample(tokens, 20, seed=0)
        spent["sample"].append(time.perf_counter() - started)
    predict, sample = (float(np.median(spent[name])) for name in ("predict", "sample"))
    print(f"{len(tokens)} images, {model.subject().n_voxels} voxels, median of {rounds} in turn")
    print(f"predict once {predict:.3f} s, 20 trials {sample:.3f} s, ratio {sample / predict:.2f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    modes = parser.add_subparsers(dest="mode", required=True)
    on_simulated = modes.add_parser("simulated")
    on_simulated.add_argument("work", type=Path)
    on_simulated.add_argument("--size", default="small")
    on_simulated.add_argument("--noise", nargs="+", default=["low", "high"])
    on_simulated.add_argument("--layers", nargs="+", default=["block7", "block10", "block14", "final"])
    on_simulated.add_argument("--seeds", type=int, default=3)
    on_repeats = modes.add_parser("repeats")
    on_repeats.add_argument("dataset", type=Path)
    on_repeats.add_argument("--draws", type=int, default=10)
    on_repeats.add_argument("--encoder", default=ENCODER)
    on_cost = modes.add_parser("cost")
    on_cost.add_argument("run", type=Path)
    on_cost.add_argument("dataset", type=Path)
    given = parser.parse_args()
    if given.mode == "simulated":
        simulated(given.work, given.size, given.noise, given.layers, given.seeds)
    elif given.mode == "repeats":
        repeats(load_dataset(given.dataset), given.draws, given.encoder)
    else:
        cost(given.run, load_dataset(given.dataset))
