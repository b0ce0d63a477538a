from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import pdist
from scipy.stats import spearmanr

from synbrain.metrics import similarity


def test_rdm_against_scipy() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(8, 20)), rng.normal(size=(8, 20))
    np.testing.assert_allclose(similarity.rdm(a), pdist(a, "correlation"), rtol=1e-9)
    expected = spearmanr(pdist(a, "correlation"), pdist(b, "correlation")).statistic
    assert similarity.rdm_correlation(similarity.rdm(a), similarity.rdm(b)) == pytest.approx(expected)


def test_constant_responses_have_no_structure() -> None:
    rng = np.random.default_rng(1)
    flat = np.repeat(rng.normal(size=(1, 20)), 6, axis=0)
    assert similarity.rdm_correlation(similarity.rdm(flat), similarity.rdm(rng.normal(size=(6, 20)))) == 0


def test_true_means_come_near_the_ceiling_and_voxel_order_does_not_matter() -> None:
    rng = np.random.default_rng(2)
    means = rng.normal(size=(40, 5)) @ rng.normal(size=(5, 100))
    image = np.repeat(np.arange(40), 4)
    trials = means[image] + rng.normal(0, 3, (160, 100))
    targets = trials.reshape(40, 4, 100).mean(axis=1)
    reached = similarity.rdm_correlation(similarity.rdm(means), similarity.rdm(targets))
    top = similarity.rdm_ceiling(trials, image)
    assert top == pytest.approx(reached, abs=0.05)
    order = rng.permutation(100)
    np.testing.assert_allclose(similarity.rdm(means[:, order]), similarity.rdm(means), atol=1e-9)
    assert similarity.rdm_split_half(trials[::4], image[::4]) is None
