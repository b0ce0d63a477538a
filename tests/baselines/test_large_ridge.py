"""Many images: penalties and weights are those of himalaya, which takes few."""

from __future__ import annotations

import numpy as np
import pytest
from himalaya.kernel_ridge import solve_kernel_ridge_cv_eigenvalues

from synbrain.baselines import kernels, large_ridge, ridge
from synbrain.baselines.large_ridge import chosen_ridge
from synbrain.features.store import open_tokens
from synbrain.features.tokens import split_pairs
from synbrain.simulate.example import toy_dataset


def problem(n: int = 83, n_voxels: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """A kernel and targets from nearly all signal to none."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, 200)) * np.arange(1, 201) ** -0.7
    x -= x.mean(axis=0)
    gram = x @ x.T
    signal = x @ rng.standard_normal((200, n_voxels))
    noise = rng.standard_normal((n, n_voxels)) * np.logspace(-1.5, 1.5, n_voxels)
    y = signal / signal.std(axis=0) + noise
    return gram / np.trace(gram) * n, (y - y.mean(axis=0)).astype(np.float32)


@pytest.mark.parametrize("probed", [60, 3])
def test_penalties_and_weights_are_himalayas(probed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the voxels that are tried first say little of the others."""
    monkeypatch.setattr(large_ridge, "PROBED", probed)
    gram, y = problem()
    alphas, split = np.logspace(-4, 6, 31), ridge.folds(len(y), 5, 0)
    expected, weights, _ = solve_kernel_ridge_cv_eigenvalues(
        gram, y.astype(np.float64), alphas=alphas, cv=split
    )
    fold = np.empty(len(y), dtype=np.int64)
    for number, (_, left_out) in enumerate(split.split(fold)):
        fold[left_out] = number
    chosen, duals = chosen_ridge(gram.astype(np.float32), y, alphas, fold)
    same = np.isclose(chosen, expected)
    assert same.mean() > 0.95
    predicted, theirs = (gram @ duals)[:, same], (gram @ weights)[:, same]
    assert np.abs(predicted - theirs).max() < 2e-3 * theirs.std(axis=0).max()
    # another penalty is its neighbour, where the curve is flat to float32's digits
    assert np.abs(np.log10(chosen / expected)).max() < 0.4


def test_the_baseline_predicts_the_same_either_way(monkeypatch: pytest.MonkeyPatch) -> None:
    train, test = split_pairs(toy_dataset(), open_tokens(toy_dataset(), "pixels"))
    few = ridge.Ridge().fit(train).predict(test.tokens)
    for module in (ridge, kernels):
        monkeypatch.setattr(module, "MANY_IMAGES", 1)
    many = ridge.Ridge().fit(train)
    assert many.gram.dtype == np.float32
    assert np.allclose(many.predict(test.tokens), few, atol=1e-2)
