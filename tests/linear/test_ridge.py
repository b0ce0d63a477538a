"""Ridge in closed form: predictions without folds are those of refitting, in either precision."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge as Refitted

from synbrain.linear import ridge as ridge_module
from synbrain.linear.meter import Meter
from synbrain.linear.ridge import (
    FoldInverses,
    FoldLayout,
    Ridge,
    largest_eigenvalue,
    residuals,
    without_fold,
)

CPU = torch.device("cpu")


def made(n: int = 32, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Features, responses, weights and folds of unequal sizes."""
    rng = np.random.default_rng(seed)
    folds = rng.permutation(np.arange(n) % 5)
    return rng.normal(1, 1, (n, 50)), rng.normal(size=(n, 4)), rng.uniform(0.5, 2, n), folds


def laid_out(x: np.ndarray, y: np.ndarray, weights: np.ndarray, folds: np.ndarray, alpha: float):
    layout = FoldLayout.of(folds, weights, 5, CPU)
    kernel = layout.lay_kernel(torch.from_numpy((x @ x.T).astype(np.float32)))
    fit = Ridge.fit(kernel, largest_eigenvalue(kernel), alpha, layout, Meter())
    return layout, fit, layout.lay_columns(torch.from_numpy(y.T.astype(np.float32)))


@pytest.mark.parametrize("condition", [0.0, 1e9])  # always float64, always float32
@pytest.mark.parametrize("alpha", [0.3, 30.0])
def test_closed_form_predictions_are_those_of_refitting(
    alpha: float, condition: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ridge_module, "SINGLE_PRECISION_CONDITION", condition)
    x, y, weights, folds = made()
    layout, fit, laid = laid_out(x, y, weights, folds, alpha)
    assert fit.factor.dtype == (torch.float32 if condition else torch.float64)
    solved = fit.solve(laid.T, Meter())
    matrix = fit.into_matrix(Meter())
    inverse = FoldInverses.of(matrix, layout, 2, Meter())
    dual = laid @ matrix.float()
    left = residuals(dual, inverse.one, Meter())
    close = {"rtol": 2e-3, "atol": 2e-3}
    for fold in range(5):
        seen = folds != fold
        again = Refitted(alpha).fit(x[seen], y[seen], sample_weight=weights[seen])
        predicted = (laid - left)[:, layout.place].T.numpy()
        np.testing.assert_allclose(predicted[~seen], again.predict(x[~seen]), **close)
    for first in range(2):
        places = slice(first * layout.size, (first + 1) * layout.size)
        rest = without_fold(dual, left, matrix.float(), places, Meter())
        both = (laid - residuals(rest, inverse.two[first], Meter()))[:, layout.place].T.numpy()
        for second in set(range(5)) - {first}:
            seen = (folds != first) & (folds != second)
            again = Refitted(alpha).fit(x[seen], y[seen], sample_weight=weights[seen])
            np.testing.assert_allclose(both[folds == second], again.predict(x[folds == second]), **close)
    np.testing.assert_allclose(solved, dual.T, rtol=1e-3, atol=1e-3 / alpha)
    whole = Refitted(alpha).fit(x, y, sample_weight=weights)
    on_images = dual[:, layout.place].numpy()
    slope = np.linalg.lstsq(whole.predict(x) - whole.intercept_, x @ (x.T @ on_images.T), rcond=None)[0]
    np.testing.assert_allclose(slope, np.eye(4), atol=2e-3)


def test_empty_places_stay_empty() -> None:
    x, y, weights, folds = made(32)
    layout, fit, laid = laid_out(x, y, weights, folds, 1.0)
    empty = ~layout.filled
    assert empty.sum() == 3
    matrix = fit.into_matrix(Meter())
    assert (matrix[empty][:, layout.filled] == 0).all()
    assert (laid @ matrix.float())[:, empty].abs().max() == 0


def test_float32_suffices_where_the_penalty_is_large_beside_the_kernel() -> None:
    """The error of float32 grows with eigenvalue over penalty, and is small up to the switch to float64."""
    rng = np.random.default_rng(1)
    n = 400
    x = rng.normal(size=(n, 600)) * np.arange(1, 601) ** -1.0  # falling spectrum, as kernels of tokens have
    x *= np.sqrt(n / np.sum(x**2))
    y, folds = x @ rng.normal(size=(600, 3)) + rng.normal(size=(n, 3)), np.arange(n) % 5
    errors = []
    layout = FoldLayout.of(folds, np.ones(n), 5, CPU)
    kernel = layout.lay_kernel(torch.from_numpy((x @ x.T).astype(np.float32)))
    largest = largest_eigenvalue(kernel)
    assert largest == pytest.approx(float(torch.linalg.eigvalsh(kernel)[-1]), rel=0.05)
    laid = layout.lay_columns(torch.from_numpy(y.T.astype(np.float32)))
    for condition in (1e2, ridge_module.SINGLE_PRECISION_CONDITION * 0.99, 1e6):
        predicted = []
        for scale in (0.0, 1e9):  # of the eigenvalue that decides: float32, float64
            fit = Ridge.fit(kernel, scale, largest / condition, layout, Meter())
            matrix = fit.into_matrix(Meter())
            inverse = FoldInverses.of(matrix, layout, 0, Meter())
            predicted.append(laid - residuals(laid @ matrix.float(), inverse.one, Meter()))
        errors.append(float((predicted[0] - predicted[1]).std() / predicted[1].std()))
    assert errors[0] < 1e-4
    assert errors[1] < 1e-3
    assert errors[2] > errors[1]
