from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from synbrain.comparison.combine import combined, seed_deviates
from synbrain.evaluation.row import Row
from synbrain.metrics.intervals import image_weights, mean_replicates


def row(scores: np.ndarray, weights: np.ndarray) -> Row:
    """A metric that is a mean over images."""
    return Row(values={"mse": float(scores.mean())}, replicates={"mse": mean_replicates(weights, scores)})


def test_one_seed_is_left_as_it_is():
    only = Row(values={"mse": 1.0})
    assert combined([only]) is only


def test_values_are_means_over_the_seeds_that_have_them():
    rows = [
        Row(values={"mse": 1.0, "crps": None, "r2": 2.0}, rois={"a": {"n_voxels": 3, "mse": 1.0}}),
        Row(values={"mse": 3.0, "crps": None, "r2": None}, rois={"a": {"n_voxels": 3, "mse": 5.0}}),
    ]
    out = combined(rows, "x")
    assert out.values == {"mse": 2.0, "crps": None, "r2": 2.0}
    assert out.rois == {"a": {"n_voxels": 3, "mse": 3.0}}


def test_without_differences_between_seeds_the_interval_is_that_of_images():
    weights = image_weights(30, 500)
    one = row(np.random.default_rng(0).normal(size=30), weights)
    assert combined([one, one, one], "x").interval("mse") == pytest.approx(one.interval("mse"))


def test_deviates_are_students_of_the_mean_over_seeds():
    drawn = seed_deviates([1.0, 2.0, 3.0], 20_000, "m")
    low, high = np.quantile(drawn, [0.025, 0.975])
    half = stats.t.ppf(0.975, 2) / np.sqrt(3)
    assert (low, high) == pytest.approx((-half, half), rel=0.02)
    assert not seed_deviates([1.0], 5, "m").any()
    assert abs(np.corrcoef(np.sign(drawn), np.sign(seed_deviates([1, 2, 3], 20_000, "n")))[0, 1]) < 0.05


def test_intervals_cover_the_truth_over_images_and_seeds():
    """The score of image i under seed s is truth + image effect + seed effect."""
    rng = np.random.default_rng(0)
    n_images, n_seeds, weights = 40, 3, image_weights(40, 400)
    hits, alone = [], []
    for k in range(300):
        images = rng.normal(size=n_images)
        effects = rng.normal(0, 0.4, n_seeds)
        rows = [row(1.0 + images + effect, weights) for effect in effects]
        low, high = combined(rows, f"x{k}").interval("mse")
        hits.append(low <= 1.0 <= high)
        low, high = rows[0].interval("mse")
        alone.append(low <= 1.0 <= high)
    assert 0.9 < np.mean(hits) <= 1.0
    assert np.mean(alone) < 0.8  # one seed's interval over images does not know of seeds
