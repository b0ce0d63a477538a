"""Many images: penalties and weights are those of himalaya, which takes few."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from himalaya.kernel_ridge import solve_kernel_ridge_cv_eigenvalues
from sklearn.model_selection import KFold

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


ALPHAS = np.logspace(-4, 6, 31)


def numbered(split: KFold, n: int) -> np.ndarray:
    """(n,) fold of each image."""
    fold = np.empty(n, dtype=np.int64)
    for number, (_, left_out) in enumerate(split.split(fold)):
        fold[left_out] = number
    return fold


@pytest.mark.parametrize("few", [1000, 80])
def test_penalties_and_weights_are_himalayas(few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the images on which every penalty is tried say little of all."""
    monkeypatch.setattr(large_ridge, "FEW", few)
    gram, y = problem(243)
    alphas, split = ALPHAS, ridge.folds(np.arange(len(y)), 5, 0)
    expected, weights, _ = solve_kernel_ridge_cv_eigenvalues(
        gram, y.astype(np.float64), alphas=alphas, cv=split
    )
    chosen, duals = chosen_ridge(gram.astype(np.float32), y, alphas, numbered(split, len(y)))
    same = np.isclose(chosen, expected)
    assert same.mean() > 0.95
    predicted, theirs = (gram @ duals)[:, same], (gram @ weights)[:, same]
    assert np.abs(predicted - theirs).max() < 2e-3 * theirs.std(axis=0).max()
    # another penalty is its neighbour, where the curve is flat to float32's digits; or few images say another
    assert np.mean(np.abs(np.log10(chosen / expected)) > 0.4) < (0.04 if few < len(y) else 1e-9)


def errors(gram: np.ndarray, y: np.ndarray, split: KFold) -> np.ndarray:
    """(n_alphas, n_voxels) squared error without the images' fold, float64, one solve a fold and penalty."""
    out = np.zeros((len(ALPHAS), y.shape[1]))
    for train, left_out in split.split(gram):
        for a, alpha in enumerate(ALPHAS):
            weights = np.linalg.solve(gram[np.ix_(train, train)] + alpha * np.eye(len(train)), y[train])
            out[a] += np.mean((y[left_out] - gram[np.ix_(left_out, train)] @ weights) ** 2, axis=0)
    return out


def test_few_penalties_are_tried_and_the_best_are_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Voxels of pure noise among them; products take a third of what all penalties take."""
    n, n_voxels = 400, 300
    gram, y = problem(n, n_voxels)
    y[:, :5] = np.random.default_rng(1).standard_normal((n, 5))
    y -= y.mean(axis=0)
    split, tried = ridge.folds(np.arange(n), 5, 0), []
    fold = numbered(split, n)
    one = large_ridge._Search._try

    def counted(
        search: large_ridge._Search, a: int, voxels: torch.Tensor, matrix: torch.Tensor, inverses: list
    ) -> None:
        tried.append(len(search.kernel) ** 2 * len(voxels))
        one(search, a, voxels, matrix, inverses)

    monkeypatch.setattr(large_ridge._Search, "_try", counted)
    monkeypatch.setattr(large_ridge, "FEW", 100)
    chosen, _ = chosen_ridge(gram.astype(np.float32), y, ALPHAS, fold)
    assert sum(tried) < 0.33 * n**2 * n_voxels * len(ALPHAS)
    curves = errors(gram, y.astype(np.float64), split)
    taken = curves[np.searchsorted(ALPHAS, chosen), np.arange(n_voxels)] / curves.min(axis=0) - 1
    assert np.mean(taken > 1e-6) < 0.01  # a curve may have a second minimum
    assert taken.max() < 3e-3


def test_nothing_is_factorised_for_a_few_odd_voxels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two voxels of signal among ones of noise: fewer penalties on all images, as good for the rest."""
    n, n_voxels = 300, 200
    gram, y = problem(n, n_voxels)
    odd = y[:, :2].copy()
    y = np.concatenate([odd, y[:, n_voxels // 2 :]], axis=1)
    fold, at = numbered(ridge.folds(np.arange(n), 5, 0), n), np.arange(y.shape[1])
    one, on_all = large_ridge._Search._factorised, []

    def counted(search: large_ridge._Search, alpha: float, scratch: object) -> tuple:
        if len(search.kernel) == n:
            on_all.append(alpha)
        return one(search, alpha, scratch)

    monkeypatch.setattr(large_ridge._Search, "_factorised", counted)
    monkeypatch.setattr(large_ridge, "FEW", 100)
    curves = errors(gram, y.astype(np.float64), ridge.folds(np.arange(n), 5, 0))
    counts, losses = [], []
    for rare in (0.0, 0.03):
        on_all.clear()
        monkeypatch.setattr(large_ridge, "RARE", rare)
        monkeypatch.setattr(large_ridge, "COMMON", rare)
        chosen, _ = chosen_ridge(gram.astype(np.float32), y, ALPHAS, fold)
        counts.append(len(on_all))
        losses.append(curves[np.searchsorted(ALPHAS, chosen), at] / curves.min(axis=0) - 1)
    assert counts[1] < counts[0]
    assert losses[0].max() < 5e-3
    assert losses[1][2:].max() < 5e-3


def test_penalties_below_the_noise_of_the_tokens_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Independent noise in many features: himalaya's predictions without its smallest penalties."""
    rng = np.random.default_rng(2)
    n, n_voxels = 120, 40
    x = rng.standard_normal((n, 8)) @ rng.standard_normal((8, 4000)) + 3 * rng.standard_normal((n, 4000))
    x -= x.mean(axis=0)
    gram = x @ x.T
    gram *= n / np.trace(gram)
    y = x @ rng.standard_normal((4000, n_voxels))
    y = (y / y.std(axis=0) + rng.standard_normal((n, n_voxels)) * np.logspace(-2, 0, n_voxels)).astype(
        np.float32
    )
    y -= y.mean(axis=0)
    split = ridge.folds(np.arange(n), 5, 0)
    expected, weights, _ = solve_kernel_ridge_cv_eigenvalues(
        gram, y.astype(np.float64), alphas=ALPHAS, cv=split
    )
    assert (expected < 1e-3).any()
    one, penalties = large_ridge._Search._factorised, []

    def counted(search: large_ridge._Search, alpha: float, scratch: object) -> tuple:
        penalties.append(alpha)
        return one(search, alpha, scratch)

    monkeypatch.setattr(large_ridge._Search, "_factorised", counted)
    _, duals = chosen_ridge(gram.astype(np.float32), y, ALPHAS, numbered(split, n))
    assert min(penalties) > 1e-3
    predicted, theirs = gram @ duals, gram @ weights
    assert np.abs(predicted - theirs).max() < 2 * large_ridge.SAME * theirs.std()


def test_the_baseline_predicts_the_same_either_way(monkeypatch: pytest.MonkeyPatch) -> None:
    train, test = split_pairs(toy_dataset(), open_tokens(toy_dataset(), "pixels"))
    few = ridge.Ridge().fit(train).predict(test.tokens)
    for module in (ridge, kernels):
        monkeypatch.setattr(module, "MANY_IMAGES", 1)
    many = ridge.Ridge().fit(train)
    assert many.gram.dtype == np.float32
    assert np.allclose(many.predict(test.tokens), few, atol=1e-2)


def test_nothing_is_left_on_another_device() -> None:
    """What is made without saying where would be on "meta" here, and could not meet the rest."""
    gram, y = problem(81)
    fold = numbered(ridge.folds(np.arange(len(y)), 5, 0), len(y))
    expected = chosen_ridge(gram.astype(np.float32), y, ALPHAS, fold)
    with torch.device("meta"):
        got = chosen_ridge(gram.astype(np.float32), y, ALPHAS, fold, device=torch.device("cpu"))
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_array_equal(one, other)
