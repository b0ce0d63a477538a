"""Are trials as variable as measured ones, and do intervals cover what they say, near and far from training?

::

    python benchmarks/calibration.py distance DATASET... [--layers final] [--test]
    python benchmarks/calibration.py run RUN DATASET
    python benchmarks/calibration.py repeats DATASET [--draws 10]
    python benchmarks/calibration.py simulated WORK [--size small] [--noise low high] [--seeds 3]
    python benchmarks/calibration.py cost RUN DATASET

``distance`` fits the linear path and the noise and prints one row a dataset: variance ratio, coverage of 50
and 90 % intervals, of 90 % intervals by quintile of an image's distance from the training images, CRPS
(exact, by quantiles) and energy score. It judges on training images (noise fitted on half of the out-of-fold
errors, judged on the other half, both ways) or, with ``--test``, on test images, with 95 % intervals of
coverage over images (bootstrap). ``run`` does so for a finished run, such as an adapted one. ``repeats`` is
for recordings of few images with many repeats (miyawaki_v1): half of each image's repeats to fit on, half to
judge by, around means of the other images. ``simulated`` runs commands whose output does not stand in WORK
yet. ``cost`` times ``predict`` and 20 trials and predictive draws in turn.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steps import step
from synbrain import SynBrain, load_dataset
from synbrain.data.dataset import Dataset
from synbrain.features.store import open_tokens, open_untuned
from synbrain.features.tokens import Pairs, TokenSet, pairs_of
from synbrain.linear.config import LinearPathConfig
from synbrain.linear.fit import fit_linear_path
from synbrain.metrics.distribution import (
    covariance_r,
    energy_score,
    noise_products,
    variance_ratio,
    within_image_squares,
)
from synbrain.noise.config import NoiseConfig
from synbrain.noise.fit import fit_response_noise
from synbrain.noise.image_distance import ImageDistance, pooled
from synbrain.noise.predictive import Predictive
from synbrain.noise.response_noise import ResponseNoise

ENCODER = "efficientnet-lite0"
N_SAMPLES, N_QUANTILES, N_DRAWS = 200, 200, 20
Judged = tuple[Pairs, NDArray[Any], ResponseNoise, NDArray[Any]]


def cases(dataset: Dataset, tokens: TokenSet, on_test: bool) -> Iterator[Judged]:
    """Trials to judge on, their predicted means, the noise, and the distance of each of their images."""
    train = pairs_of(dataset, tokens, "train")
    fit = fit_linear_path(train, LinearPathConfig(), seed=0)
    if on_test:
        test = pairs_of(dataset, tokens, "test")
        noise = fit_response_noise(train, fit.out_of_fold, NoiseConfig(), seed=0)
        yield test, fit.path.predict(test.tokens), noise, distance(train.tokens, test.tokens)
        return
    order = np.random.default_rng(5).permutation(train.n_images)
    halves = np.sort(order[: len(order) // 2]), np.sort(order[len(order) // 2 :])
    for a, b in (halves, halves[::-1]):
        noise = fit_response_noise(train.take(a), fit.out_of_fold[a], NoiseConfig(), seed=0)
        judged = train.take(b)
        yield judged, fit.out_of_fold[b], noise, distance(train.take(a).tokens, judged.tokens)


def distance(fitted_on: TokenSet, tokens: TokenSet) -> NDArray[Any]:
    """(n_images,) kernel ridge's predictive variance; one penalty for all, whatever the noise part chose."""
    layers = tuple(fitted_on.layers)
    dims = [fitted_on.shapes[layer][1] for layer in layers]
    return ImageDistance.fit(pooled(fitted_on, layers), layers, dims, penalty=0.1).of(tokens)


def hits(predictive: Predictive, pairs: Pairs, level: float) -> NDArray[Any]:
    """(n_trials,) share of voxels inside their central intervals."""
    low, high = predictive.interval(level)
    image, y = pairs.image_of_trial, pairs.trial_responses()
    return np.asarray(((y >= low[image]) & (y <= high[image])).mean(axis=1))


def exact_crps(predictive: Predictive, pairs: Pairs, sd: NDArray[Any]) -> float:
    """Mean over trials and voxels, in sd: 2 * mean over tau of the pinball loss of the tau-quantile."""
    image, y = pairs.image_of_trial, pairs.trial_responses()
    total = 0.0
    for tau in (np.arange(N_QUANTILES // 2) + 0.5) / N_QUANTILES:
        for quantile, t in zip(predictive.interval(1 - 2 * tau), (tau, 1 - tau), strict=True):
            off = (y - quantile[image])[:, sd > 0] / sd[sd > 0]
            total += float(np.mean(np.where(off > 0, t, t - 1) * off))
    return 2 * total / N_QUANTILES


def over_images(of_trial: NDArray[Any], pairs: Pairs) -> str:
    """95 % bootstrap interval of the mean over trials; images are drawn with all their trials."""
    sums = np.bincount(pairs.image_of_trial, of_trial, pairs.n_images)
    drawn = np.random.default_rng(0).integers(0, pairs.n_images, (2000, pairs.n_images))
    low, high = np.quantile(sums[drawn].sum(axis=1) / pairs.repeats()[drawn].sum(axis=1), [0.025, 0.975])
    return f"[{low:.3f}, {high:.3f}]"


def coverage_intervals(case: Judged) -> str:
    """How well a test set's images tell the coverage at 50 and 90 %."""
    pairs, mean, noise, _ = case
    predictive = noise.predictive(mean, pairs.tokens)
    of = {level: over_images(hits(predictive, pairs, level), pairs) for level in (0.5, 0.9)}
    return f"95 % over images: 50 % {of[0.5]}, 90 % {of[0.9]}"


def judge(case: Judged, sd: NDArray[Any]) -> dict[str, float]:
    """Scores of one case, by name of a column."""
    pairs, mean, noise, far = case
    predictive = noise.predictive(mean, pairs.tokens)
    of = {level: hits(predictive, pairs, level) for level in (0.5, 0.9)}
    fifth = (np.argsort(np.argsort(far)) * 5 // len(far))[pairs.image_of_trial]
    scores = {"50 %": of[0.5].mean(), "90 %": of[0.9].mean()}
    scores |= {f"90 %, fifth {k + 1}": of[0.9][fifth == k].mean() for k in range(5)}
    scores["CRPS"] = exact_crps(predictive, pairs, sd)
    size = np.where(sd > 0, sd, 1) * np.sqrt(len(sd))
    draws, trials = predictive.sample(N_SAMPLES, 0) / size, pairs.trial_responses() / size
    scores["energy"] = energy_score(draws, trials, pairs.image_of_trial).mean()
    if pairs.repeats().max() > 1:
        scores["variance ratio"] = ratio_of(noise, mean, pairs)
    return {name: float(value) for name, value in scores.items()}


def ratio_of(noise: ResponseNoise, mean: NDArray[Any], pairs: Pairs) -> float:
    """Median over voxels of the trials' variance over that of measured trials within images."""
    squares, freedom = within_image_squares(pairs.trial_responses(), pairs.image_of_trial)
    weights = np.maximum(pairs.repeats() - 1, 0)
    ours = np.average(noise.trial.variance(mean), axis=0, weights=weights)
    return float(np.nanmedian(variance_ratio(ours.astype(np.float64), squares / freedom)))


COLUMNS = ["variance ratio", "50 %", "90 %", *(f"90 %, fifth {k}" for k in range(1, 6)), "CRPS", "energy"]


def heading() -> None:
    print("| data | images | trials | " + " | ".join(COLUMNS) + " |")
    print("|---" * (3 + len(COLUMNS)) + "|")


def row(name: str, judged: list[Judged], sd: NDArray[Any]) -> None:
    """Scores of one or two cases, averaged."""
    scores = [judge(case, sd) for case in judged]
    cells = [
        "-" if column not in scores[0] else f"{np.mean([one[column] for one in scores]):.4f}"
        for column in COLUMNS
    ]
    counts = [sum(case[0].n_images for case in judged), sum(case[0].n_trials for case in judged)]
    print("| " + " | ".join([name, *map(str, counts), *cells]) + " |", flush=True)


def by_distance(paths: list[Path], encoder: str, layers: list[str], on_test: bool) -> None:
    """One row a dataset."""
    heading()
    for path in paths:
        dataset = load_dataset(path)
        tokens = open_tokens(dataset, encoder)
        tokens = tokens.only(*layers) if layers else tokens
        sd = pairs_of(dataset, tokens, "train").trial_responses().std(axis=0)
        judged = list(cases(dataset, tokens, on_test))
        row(f"{dataset.info.name} ({', '.join(tokens.layers)})", judged, sd)
        if on_test:
            print(coverage_intervals(judged[0]))


def finished_run(folder: Path, dataset: Dataset) -> None:
    """The row of a run's test images."""
    model = SynBrain.from_pretrained(folder)
    dataset, tokens = open_untuned(dataset, model.config.encoder, model.config.layers)
    train, test = pairs_of(dataset, tokens, "train"), pairs_of(dataset, tokens, "test")
    noise = model.subject().noise
    assert noise is not None
    case = test, model.predict(test.tokens), noise, distance(train.tokens, test.tokens)
    heading()
    row(f"{folder.name} on {dataset.info.name}", [case], train.trial_responses().std(axis=0))
    print(coverage_intervals(case))


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


def halves_of_repeats(pairs: Pairs, rng: np.random.Generator) -> tuple[Pairs, Pairs]:
    """The same images with one random half of each one's repeats, and with the other."""
    first = np.zeros(pairs.n_trials, dtype=bool)
    for image in range(pairs.n_images):
        shuffled = rng.permutation(np.flatnonzero(pairs.image_of_trial == image))
        first[shuffled[: len(shuffled) // 2]] = True
    one, two = (
        Pairs(pairs.tokens, pairs.responses, pairs.trials[kept], pairs.image_of_trial[kept])
        for kept in (first, ~first)
    )
    return one, two


def repeats(dataset: Dataset, draws: int, encoder: str) -> None:
    """Fit on half of the repeats, judge by the others, around means of other images; print a table."""
    pairs = pairs_of(dataset, open_tokens(dataset, encoder), "train")
    rows: dict[str, list[float]] = {"variance ratio": [], "50 %": [], "90 %": [], "covariance r": []}
    reached: list[float] = []
    for draw in range(draws):
        one, two = halves_of_repeats(pairs, np.random.default_rng(draw))
        both = []
        for fitted_on, judged_by in ((one, two), (two, one)):
            mean = fit_linear_path(fitted_on, LinearPathConfig(), seed=draw).out_of_fold
            noise = fit_response_noise(fitted_on, mean, NoiseConfig(), seed=draw)
            predictive = noise.predictive(mean, judged_by.tokens)
            rows["variance ratio"].append(ratio_of(noise, mean, judged_by))
            for level in (0.5, 0.9):
                rows[f"{100 * level:.0f} %"].append(float(hits(predictive, judged_by, level).mean()))
            products, freedom = noise_products(judged_by.trial_responses(), judged_by.image_of_trial)
            sd = np.sqrt(noise.noise_variance)
            r = covariance_r(noise.trial.correlation() * np.outer(sd, sd), products / freedom)
            rows["covariance r"].append(np.nan if r is None else r)
            both.append(products / freedom)
        reached.append(covariance_r(*both) or np.nan)
    print(f"\n{dataset.info.name}: {pairs.n_images} images, {pairs.n_trials} trials, {draws} x 2 fits")
    print("| trials around a mean of other images | variance ratio | 50 % | 90 % | covariance r |")
    print("|---|---|---|---|---|")
    ratios = np.array(rows["variance ratio"])
    # a half with little variance judges one with much, and in turn: the geometric mean is free of that
    middle = f"{np.exp(np.log(ratios).mean()):.3f} ({ratios.min():.2f} to {ratios.max():.2f})"
    rest = " | ".join(f"{np.nanmean(rows[k]):.3f}" for k in ("50 %", "90 %", "covariance r"))
    print(f"| linear path | {middle} | {rest} |")
    print(f"| the other half of the repeats | 1 | .500 | .900 | {np.nanmean(reached):.3f} |")


def cost(run: Path, dataset: Dataset, rounds: int = 7) -> None:
    """Median seconds of ``predict`` and of 20 trials by ``sample`` of all test images, in turn."""
    model = SynBrain.from_pretrained(run)
    tokens = pairs_of(dataset, open_tokens(dataset, model.config.encoder), "test").tokens
    spent: dict[str, list[float]] = {"predict": [], "trials": [], "predictive draws": []}
    for _ in range(rounds):
        started = [time.perf_counter()]
        model.predict(tokens)
        started.append(time.perf_counter())
        model.sample(tokens, N_DRAWS, seed=0)
        started.append(time.perf_counter())
        model.sample(tokens, N_DRAWS, seed=0, predictive=True)
        started.append(time.perf_counter())
        for name, seconds in zip(spent, np.diff(started), strict=True):
            spent[name].append(float(seconds))
    print(f"{len(tokens)} images, {model.subject().n_voxels} voxels, median of {rounds} in turn")
    print(", ".join(f"{name} {np.median(seconds):.3f} s" for name, seconds in spent.items()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    modes = parser.add_subparsers(dest="mode", required=True)
    at_distance = modes.add_parser("distance")
    at_distance.add_argument("datasets", type=Path, nargs="+")
    at_distance.add_argument("--layers", nargs="+", default=[])
    at_distance.add_argument("--encoder", default=ENCODER)
    at_distance.add_argument("--test", action="store_true")
    on_simulated = modes.add_parser("simulated")
    on_simulated.add_argument("work", type=Path)
    on_simulated.add_argument("--size", default="small")
    on_simulated.add_argument("--noise", nargs="+", default=["low", "high"])
    on_simulated.add_argument("--layers", nargs="+", default=["block7", "block10", "block14", "final"])
    on_simulated.add_argument("--seeds", type=int, default=3)
    of_run = modes.add_parser("run")
    of_run.add_argument("run", type=Path)
    of_run.add_argument("dataset", type=Path)
    on_repeats = modes.add_parser("repeats")
    on_repeats.add_argument("dataset", type=Path)
    on_repeats.add_argument("--draws", type=int, default=10)
    on_repeats.add_argument("--encoder", default=ENCODER)
    on_cost = modes.add_parser("cost")
    on_cost.add_argument("run", type=Path)
    on_cost.add_argument("dataset", type=Path)
    given = parser.parse_args()
    if given.mode == "distance":
        by_distance(given.datasets, given.encoder, given.layers, given.test)
    elif given.mode == "simulated":
        simulated(given.work, given.size, given.noise, given.layers, given.seeds)
    elif given.mode == "run":
        finished_run(given.run, load_dataset(given.dataset))
    elif given.mode == "repeats":
        repeats(load_dataset(given.dataset), given.draws, given.encoder)
    else:
        cost(given.run, load_dataset(given.dataset))
