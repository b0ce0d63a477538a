from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import mean_squared_error, r2_score
from torchmetrics.functional import cosine_similarity

from synbrain.metrics import voxel


@pytest.fixture
def pair() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    measured = rng.normal(2, 1, (12, 30)).astype(np.float32)
    return (measured + rng.normal(0, 1, measured.shape)).astype(np.float32), measured


def test_against_scipy_sklearn_and_torchmetrics(pair: tuple[np.ndarray, np.ndarray]) -> None:
    a, b = pair
    assert voxel.mse(a, b) == pytest.approx(mean_squared_error(b, a), rel=1e-5)
    np.testing.assert_allclose(
        voxel.pearson_within(a, b), [stats.pearsonr(x, y)[0] for x, y in zip(a, b, strict=True)], rtol=1e-5
    )
    np.testing.assert_allclose(
        voxel.voxel_r(a, b), [stats.pearsonr(x, y)[0] for x, y in zip(a.T, b.T, strict=True)], rtol=1e-5
    )
    expected = cosine_similarity(torch.tensor(a), torch.tensor(b), reduction="none").numpy()
    np.testing.assert_allclose(voxel.cosine_within(a, b), expected, rtol=1e-5)
    np.testing.assert_allclose(voxel.r2(a, b), r2_score(b, a, multioutput="raw_values"), rtol=1e-5)


def test_blocks_cover_everything_once(monkeypatch: pytest.MonkeyPatch, pair: tuple[np.ndarray, ...]) -> None:
    a, b = pair
    whole = [f(a, b) for f in (voxel.voxel_r, voxel.r2, voxel.pearson_within, voxel.squared_error)]
    monkeypatch.setattr(voxel.blocks, "__defaults__", (37,))
    parts = [f(a, b) for f in (voxel.voxel_r, voxel.r2, voxel.pearson_within, voxel.squared_error)]
    assert len(list(voxel.blocks(30, 12))) == 10
    for x, y in zip(whole, parts, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-12)


@settings(max_examples=20)
@given(st.integers(0, 10_000), st.floats(0.01, 100), st.floats(-50, 50))
def test_invariants(seed: int, scale: float, shift: float) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(8, 9)), rng.normal(size=(8, 9))
    order = rng.permutation(9)
    np.testing.assert_allclose(voxel.voxel_r(a[:, order], b[:, order]), voxel.voxel_r(a, b)[order], rtol=1e-9)
    np.testing.assert_allclose(voxel.voxel_r(a * scale + shift, b), voxel.voxel_r(a, b), atol=1e-6)
    np.testing.assert_allclose(
        voxel.pearson_within(a[:, order], b[:, order]), voxel.pearson_within(a, b), atol=1e-9
    )
    np.testing.assert_allclose(voxel.cosine_within(a * scale, b), voxel.cosine_within(a, b), atol=1e-9)
    np.testing.assert_allclose(voxel.voxel_r(b, b), 1)
    assert voxel.mse(b, b) == 0


def test_constant_voxels_are_counted_and_never_nan_in_a_mean(pair: tuple[np.ndarray, np.ndarray]) -> None:
    a, b = (side.copy() for side in pair)
    b[:, 3] = 0.1  # measured constant: nothing to predict
    a[:, 5] = 7.3  # prediction constant: no information
    r = voxel.voxel_r(a, b)
    assert np.isnan(r[3])
    assert r[5] == 0
    mean, n_undefined = voxel.mean_defined(r)
    assert n_undefined == 1
    assert mean == pytest.approx(np.nanmean(r))
    assert np.isnan(voxel.r2(a, b)[3])
    assert voxel.mean_defined(np.full(3, np.nan)) == (None, 3)


def test_mean_map_scores_zero_per_voxel_but_well_within_a_trial() -> None:
    rng = np.random.default_rng(1)
    static = rng.normal(0, 3, 40)
    trials = static + rng.normal(0, 1, (20, 40))
    predicted = np.repeat(static[None].astype(np.float32), 20, axis=0)
    assert voxel.pearson_within(predicted, trials).mean() > 0.9
    assert np.all(voxel.voxel_r(predicted, trials) == 0)


def test_skill() -> None:
    assert voxel.skill(1.0, 2.0) == 0.5
    assert voxel.skill(2.0, 2.0) == 0
    assert voxel.skill(1.0, 0.0) is None


def test_shapes_must_match() -> None:
    with pytest.raises(ValueError, match="two"):
        voxel.mse(np.zeros((2, 3)), np.zeros((3, 2)))
