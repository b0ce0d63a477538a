from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import top_k_accuracy_score
from sklearn.metrics.pairwise import cosine_similarity
from torchmetrics.functional import pairwise_cosine_similarity

from synbrain.metrics import retrieval


def test_similarity_against_sklearn_and_numpy() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(3, 1, (5, 4, 3)), rng.normal(3, 1, (7, 4, 3))
    flat_a, flat_b = a.reshape(5, -1), b.reshape(7, -1)
    np.testing.assert_allclose(retrieval.cosine_matrix(a, b), cosine_similarity(flat_a, flat_b), rtol=1e-9)
    expected = pairwise_cosine_similarity(torch.tensor(flat_a), torch.tensor(flat_b)).numpy()
    np.testing.assert_allclose(retrieval.cosine_matrix(a, b), expected, rtol=1e-6)
    np.testing.assert_allclose(
        retrieval.cosine_matrix(a, b, centre=True), np.corrcoef(flat_a, flat_b)[:5, 5:], rtol=1e-9
    )


def test_top1_against_sklearn() -> None:
    similarity = np.random.default_rng(1).normal(size=(20, 20)) + 2 * np.eye(20)
    expected = top_k_accuracy_score(np.arange(20), similarity, k=1, labels=np.arange(20))
    assert retrieval.top1(similarity) == pytest.approx(expected)


def test_directions_differ_and_are_told_apart() -> None:
    similarity = np.array([[1.0, 0.0, 0.0], [0.9, 0.5, 0.1], [0.9, 0.2, 0.5]])
    forward, backward = retrieval.both_directions(similarity)  # rows are queries: only row 0 finds its own
    assert forward == pytest.approx(1 / 3)
    assert backward == pytest.approx(1.0)  # every column's own row is its best


def test_subsets_of_n_way() -> None:
    rng = np.random.default_rng(2)
    similarity = rng.normal(size=(200, 200))
    share = retrieval.top1(similarity, n_way=10, n_subsets=200, seed=0)
    assert share == pytest.approx(0.1, abs=0.015)  # chance
    assert retrieval.top1(np.eye(200), n_way=10) == 1
    assert share == retrieval.top1(similarity, n_way=10, n_subsets=200, seed=0)


@settings(max_examples=15)
@given(st.integers(0, 1000), st.integers(2, 30))
def test_constant_predictions_score_exactly_chance(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    measured, mean, sd = rng.normal(size=(n, 12)), rng.normal(size=12), np.ones(12)
    for constant in (mean, mean + 1):
        predicted = np.repeat(constant[None], n, axis=0)
        assert retrieval.response_retrieval(predicted, measured, mean, sd) == pytest.approx((1 / n, 1 / n))


def test_perfect_and_shuffled_responses() -> None:
    rng = np.random.default_rng(3)
    n = 60
    measured = rng.normal(size=(n, 30))
    mean, sd = measured.mean(axis=0), measured.std(axis=0)
    assert retrieval.response_retrieval(measured, measured, mean, sd) == (1, 1)
    shares = [
        retrieval.response_retrieval(measured[rng.permutation(n)], measured, mean, sd)[0] for _ in range(30)
    ]
    assert np.mean(shares) == pytest.approx(1 / n, abs=0.01)


def test_dead_voxels_do_not_matter() -> None:
    rng = np.random.default_rng(4)
    measured, predicted = rng.normal(size=(9, 6)), rng.normal(size=(9, 6))
    sd = np.ones(6)
    sd[2] = 0
    whole = retrieval.response_similarity(predicted, measured, np.zeros(6), sd)
    kept = np.flatnonzero(sd)
    np.testing.assert_allclose(whole, np.corrcoef(predicted[:, kept], measured[:, kept])[:9, 9:], atol=1e-6)


def test_one_candidate_per_query() -> None:
    with pytest.raises(ValueError, match="per query"):
        retrieval.top1(np.zeros((2, 3)))
    with pytest.raises(ValueError, match="size"):
        retrieval.cosine_matrix(np.zeros((2, 3)), np.zeros((2, 4)))
