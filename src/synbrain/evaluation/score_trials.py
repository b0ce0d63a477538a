"""Scores of synthetic trials and of predictive draws, against the held-out repeats.

CRPS, energy score and coverage judge what is said of a trial before it is measured: they take predictive
draws, which hold trial noise and the error of the mean. Variance ratio and noise covariance ask whether
trials of one image vary as in a scanner: they take trials.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synbrain.arrays import Rows
from synbrain.evaluation.measured import Measured
from synbrain.evaluation.row import Row, TrialSummary
from synbrain.metrics.distribution import (
    covariance_r,
    covered,
    crps,
    energy_score,
    min_samples,
    noise_products,
    variance_ratio,
)
from synbrain.metrics.intervals import mean_replicates
from synbrain.progress import bar

# (rows of the test images, number of samples, seed) -> (n_samples, n, n_voxels)
Draw = Callable[[Rows, int, int], NDArray[Any]]
LEVELS = {"coverage_50": 0.5, "coverage_90": 0.9}
CURVE = (0.1, 0.25, 0.75)  # further levels of the reliability curve in pictures
METRICS = ("crps", "energy_score", "variance_ratio", *LEVELS, "noise_covariance_r")
NO_REPEATS = "each test image has one response, so its variability is unknown"


def score_trials(
    draw: Draw,
    measured: Measured,
    n_samples: int,
    seed: int,
    *,
    predictive: Draw | None = None,
    summary: bool = False,
    show_progress: bool = False,
) -> Row:
    """Scores of synthetic trials and predictive draws; samples of a few images at a time are in memory.

    Every block of images has a seed of its own made from ``seed``, so that blocks are independent.

    Args:
        draw: gives synthetic trials of some test images.
        measured: what they are scored against.
        n_samples: trials, and predictive draws, per image.
        seed: of both.
        predictive: gives predictive draws of some test images; None: trials are taken for them, as of a model
            that does not part the two.
        summary: also sum what pictures of the distribution need.
        show_progress: a bar over test images.
    """
    if not measured.has_repeats:
        return Row(values=dict.fromkeys(METRICS), notes=dict.fromkeys(METRICS, NO_REPEATS))
    n, n_voxels = measured.test.n_images, measured.test.n_voxels
    levels = {name: level for name, level in LEVELS.items() if n_samples >= min_samples(level)}
    curve = {level: np.zeros(n_voxels) for level in CURVE if summary and n_samples >= min_samples(level)}
    per_image = {name: np.zeros(n) for name in ("crps", "energy_score", *levels)}
    per_voxel = {name: np.zeros(n_voxels) for name in ("crps", "synthetic", "measured", *levels)}
    chosen = measured.covariance_voxels
    products = {side: np.zeros((len(chosen), len(chosen))) for side in ("synthetic", "measured")}
    alive = measured.sd > 0
    freedom = 0
    progress = bar("score trials", total=n, unit="image", show=show_progress)
    for number, images, raw, local in measured.image_blocks(n_samples):
        own_seed = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
        drawn = measured.standardised(draw(images, n_samples, own_seed))
        samples = drawn
        if predictive is not None:
            samples = measured.standardised(predictive(images, n_samples, own_seed))
        trials = measured.standardised(raw)
        scores = crps(samples, trials, local)
        per_voxel["crps"][alive] += scores.sum(axis=0)
        np.add.at(per_image["crps"], images[local], scores.mean(axis=1))
        energy = energy_score(samples, trials, local) / np.sqrt(trials.shape[1])
        np.add.at(per_image["energy_score"], images[local], energy)
        for name, level in levels.items():
            inside = covered(samples, trials, local, level)
            per_voxel[name][alive] += inside.sum(axis=0)
            np.add.at(per_image[name], images[local], inside.mean(axis=1))
        for level, inside_of in curve.items():
            inside_of[alive] += covered(samples, trials, local, level).sum(axis=0)
        freedom += _spread(per_voxel, products, drawn, trials, local, alive, chosen)
        progress.update(len(images))
    progress.close()
    row = _summarised(measured, per_image, per_voxel, products, freedom, n_samples)
    if not summary:
        return row
    inside_of_level = curve | {level: per_voxel[name] for name, level in levels.items()}
    shown = sorted(inside_of_level)
    n_trials = measured.test.n_trials
    inside_all = np.stack([np.where(alive, inside_of_level[level] / n_trials, np.nan) for level in shown])
    both = (products[side] / freedom for side in ("measured", "synthetic"))
    return row | Row(trials=TrialSummary(np.array(shown), inside_all, chosen, *both))


def _spread(
    per_voxel: dict[str, NDArray[Any]],
    products: dict[str, NDArray[Any]],
    samples: NDArray[Any],
    trials: NDArray[Any],
    local: Rows,
    alive: NDArray[np.bool_],
    chosen: Rows,
) -> int:
    """Add a block's within-image squares and products; images weigh by their degrees of freedom."""
    position = (np.cumsum(alive) - 1)[chosen]
    total = 0
    for image in np.unique(local):
        repeats = np.asarray(trials[local == image], dtype=np.float64)
        weight = len(repeats) - 1
        if weight < 1:
            continue
        total += weight
        drawn = np.asarray(samples[:, image], dtype=np.float64)
        per_voxel["measured"][alive] += repeats.var(axis=0, ddof=1) * weight
        products["measured"] += noise_products(repeats[:, position], np.zeros(len(repeats), dtype=np.int64))[
            0
        ]
        if len(drawn) > 1:
            per_voxel["synthetic"][alive] += drawn.var(axis=0, ddof=1) * weight
            synthetic, n = noise_products(drawn[:, position], np.zeros(len(drawn), dtype=np.int64))
            products["synthetic"] += synthetic / n * weight
    return total


def _summarised(
    measured: Measured,
    per_image: dict[str, NDArray[Any]],
    per_voxel: dict[str, NDArray[Any]],
    products: dict[str, NDArray[Any]],
    freedom: int,
    n_samples: int,
) -> Row:
    row = Row()
    alive, counts = measured.sd > 0, measured.repeats.astype(float)
    for name, totals in per_image.items():
        row.values[name] = float(totals.sum() / counts.sum())
        row.replicates[name] = mean_replicates(measured.weights, totals, counts)
    for name, level in LEVELS.items():
        if name in per_image:
            row.per_voxel[name] = np.where(alive, per_voxel[name] / counts.sum(), np.nan)
        else:
            row.values[name] = None
            row.notes[name] = f"needs {min_samples(level)} samples, has {n_samples}"
    row.per_voxel["crps"] = np.where(alive, per_voxel["crps"] / counts.sum(), np.nan)
    ratio = variance_ratio(per_voxel["synthetic"] / freedom, per_voxel["measured"] / freedom)
    row.per_voxel["variance_ratio"] = np.where(alive, ratio, np.nan)
    fine = row.per_voxel["variance_ratio"]
    fine = fine[np.isfinite(fine)]
    quartiles = np.quantile(fine, [0.25, 0.5, 0.75]) if len(fine) else [None] * 3
    for name, value in zip(("_q25", "", "_q75"), quartiles, strict=True):
        row.values[f"variance_ratio{name}"] = None if value is None else float(value)
    row.values["noise_covariance_r"] = covariance_r(products["synthetic"], products["measured"])
    return row
