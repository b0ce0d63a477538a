"""Averages of predictions by voxel, and what all voxels say together."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import minimize

from synbrain.linear.stacking import common_weights, stacked, stacking_weights
from synbrain.metrics.voxel import voxel_r


def made(
    n: int, n_voxels: int, noise: tuple[float, ...]
) -> tuple[NDArray[np.float32], list[NDArray[np.float32]]]:
    """Responses and predictions of them that are wrong by independent errors of these sds."""
    rng = np.random.default_rng(0)
    y = rng.standard_normal((n, n_voxels)).astype(np.float32)
    return y, [y + np.float32(sd) * rng.standard_normal(y.shape).astype(np.float32) for sd in noise]


def test_the_better_prediction_gets_more_weight_at_every_voxel() -> None:
    y, predictions = made(80, 4, (0.3, 2.0, 0.3))
    shares = stacking_weights(np.stack([((p - y) ** 2).sum(axis=0) for p in predictions]), len(y))
    np.testing.assert_allclose(shares.sum(axis=0), 1)
    assert (shares[1] < 0.05).all()


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.integers(2, 4))
def test_common_weights_are_those_of_the_least_error(seed: int, k: int) -> None:
    errors = np.random.default_rng(seed).standard_normal((k, 12)) + np.arange(k)[:, None] / 2
    products = errors @ errors.T
    weights = common_weights(products)
    assert weights.min() >= 0
    assert weights.sum() == pytest.approx(1)
    found = minimize(
        lambda w: w @ products @ w,
        np.full(k, 1 / k),
        bounds=[(0, 1)] * k,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
    )
    assert weights @ products @ weights <= found.fun * (1 + 1e-5)
    np.testing.assert_allclose(common_weights(1e-12 * products), weights, atol=1e-6)


def test_few_images_tell_by_all_voxels_which_prediction_is_better() -> None:
    y, predictions = made(40, 300, (1.0, 0.8))
    rng = np.random.default_rng(1)
    folds = np.arange(40) % 5
    by_voxel, _ = stacked(predictions, y, folds)
    together, average = stacked(predictions, y, folds, common=1.0)
    np.testing.assert_allclose(together, together[:, :1].repeat(300, axis=1))
    assert together[0, 0] == pytest.approx(0.64 / 1.64, abs=0.02)  # weights go with one over the variance
    new = rng.standard_normal((500, 300))
    seen = [new + sd * rng.standard_normal(new.shape) for sd in (1.0, 0.8)]
    reached = [
        voxel_r(np.sum([share * p for share, p in zip(shares, seen, strict=True)], axis=0), new).mean()
        for shares in (by_voxel, together)
    ]
    assert reached[1] > reached[0]
    assert average.shape == y.shape


def test_a_voxel_that_one_prediction_knows_alone_keeps_it() -> None:
    y, predictions = made(400, 50, (1.0, 0.7))
    rng = np.random.default_rng(2)
    predictions[0][:, 0] = y[:, 0] + 0.2 * rng.standard_normal(400)
    shares, _ = stacked(predictions, y, np.arange(400) % 5, common=0.5)
    assert shares[0, 0] > 0.6
    assert shares[0, 1:].mean() < 0.4
    np.testing.assert_allclose(shares.sum(axis=0), 1)


def test_predictions_that_are_alike_or_exact_do_not_break_the_weights() -> None:
    y, predictions = made(20, 3, (0.5,))
    for both in ([predictions[0]] * 2, [y, y], [y, predictions[0]]):
        shares, average = stacked(both, y, np.arange(20) % 4, common=0.5)
        assert np.isfinite(shares).all()
        np.testing.assert_allclose(shares.sum(axis=0), 1)
        assert np.isfinite(average).all()
