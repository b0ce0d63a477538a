from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import pdist
from scipy.stats import spearmanr

from synbrain.metrics import similarity
from synbrain.metrics.ceiling import stepped_up


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
    assert similarity.rdm_split(trials[::4], image[::4]) is None


@pytest.mark.parametrize(("n_repeats", "stepped_up_alone_is_off"), [(3, 0.1), (4, 0.05), (7, 0.02)])
def test_the_ceiling_of_few_noisy_repeats_is_what_true_means_reach(
    n_repeats: int, stepped_up_alone_is_off: float
) -> None:
    rng = np.random.default_rng(0)
    means = rng.normal(size=(150, 40)) @ rng.normal(size=(40, 200)) / np.sqrt(40)
    image = np.repeat(np.arange(150), n_repeats)
    trials = means[image] + rng.normal(0, 3, (len(image), 200))
    targets = trials.reshape(150, n_repeats, 200).mean(axis=1)
    reached = similarity.rdm_correlation(similarity.rdm(means), similarity.rdm(targets))
    assert similarity.rdm_ceiling(trials, image) == pytest.approx(reached, abs=0.05)
    size = n_repeats // 2
    half = similarity.rdm_split(trials, image)
    assert reached - stepped_up(half, n_repeats / size) > stepped_up_alone_is_off  # type: ignore[operator]


@pytest.mark.parametrize("repeats", [[1] * 30 + [3] * 30, [1] * 40 + [5] * 20, [2] * 20 + [8] * 40])
def test_the_ceiling_is_what_true_means_reach_where_repeats_differ(repeats: list[int]) -> None:
    """Means of numbers of trials took the noise of images shown once for less: .04 to .12 too high."""
    apart = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        means = 0.6 * rng.normal(size=(60, 6)) @ rng.normal(size=(6, 60)) / np.sqrt(6)
        image = np.repeat(np.arange(60), repeats)
        trials = means[image] + rng.normal(size=(len(image), 60))
        targets = np.stack([trials[image == i].mean(axis=0) for i in range(60)])
        reached = similarity.rdm_correlation(similarity.rdm(means), similarity.rdm(targets))
        apart.append(similarity.rdm_ceiling(trials, image, seed=seed) - reached)  # type: ignore[operator]
    assert np.mean(apart) == pytest.approx(0, abs=0.03)


def test_images_with_too_few_trials_are_left_out_of_the_ceiling() -> None:
    rng = np.random.default_rng(3)
    image = np.array([0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 5, 5])
    trials = rng.normal(size=(6, 30))[image] + rng.normal(size=(15, 30))
    ceiling = similarity.rdm_ceiling(trials, image)
    assert ceiling is not None
    assert 0 < ceiling < 1
    assert similarity.rdm_ceiling(trials[12:], image[12:]) is None
    assert similarity.rdm_ceiling(rng.normal(size=(2, 30)), np.array([0, 1])) is None
