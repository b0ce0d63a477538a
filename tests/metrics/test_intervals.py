from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from synbrain.metrics import intervals
from synbrain.metrics.voxel import voxel_r


def test_replicates_equal_resampled_scores() -> None:
    rng = np.random.default_rng(0)
    predicted, measured = rng.normal(size=(15, 4)), rng.normal(size=(15, 4))
    predicted[:, 1] = 2.0  # constant prediction counts 0
    measured[:, 2] = 3.0  # constant measurement is left out
    weights = intervals.image_weights(15, 20, seed=1)
    assert np.all(weights.sum(axis=1) == 15)
    for w, got in zip(weights, intervals.voxel_r_replicates(weights, predicted, measured), strict=True):
        rows = np.repeat(np.arange(15), w.astype(int))
        assert got == pytest.approx(np.nanmean(voxel_r(predicted[rows], measured[rows])), abs=1e-9)


def test_replicates_of_groups_are_those_of_their_voxels() -> None:
    rng = np.random.default_rng(0)
    predicted, measured = rng.normal(size=(15, 6)), rng.normal(size=(15, 6))
    weights = intervals.image_weights(15, 20, seed=1)
    groups = np.array([[1, 1, 1, 1, 1, 1], [0, 1, 1, 0, 0, 1], [0, 0, 0, 0, 0, 0]], dtype=bool)
    every, some, none = intervals.voxel_r_replicates_of(groups, weights, predicted, measured)
    np.testing.assert_allclose(every, intervals.voxel_r_replicates(weights, predicted, measured))
    used = groups[1]
    alone = intervals.voxel_r_replicates(weights, predicted[:, used], measured[:, used])
    np.testing.assert_allclose(some, alone)
    assert np.isnan(none).all()


def test_mean_replicates_weigh_images_by_their_items() -> None:
    weights = np.array([[1.0, 1.0, 1.0], [3.0, 0.0, 0.0], [0.0, 0.0, 3.0]])
    totals, counts = np.array([2.0, 9.0, 0.0]), np.array([1.0, 3.0, 0.0])
    np.testing.assert_allclose(intervals.mean_replicates(weights, totals, counts), [11 / 4, 2, np.nan])
    np.testing.assert_allclose(intervals.mean_replicates(weights[:1], totals), [11 / 3])


def test_bootstrap_mean_agrees_with_students_t() -> None:
    values = np.random.default_rng(1).normal(3, 1, 200)
    low, high = intervals.bootstrap_mean(values)
    expected = stats.t.interval(0.95, 199, values.mean(), stats.sem(values))
    np.testing.assert_allclose((low, high), expected, atol=0.02)
    assert intervals.bootstrap_mean(np.full(4, 2.0)) == (2, 2)
    # equal but for rounding: NaN, which no table's JSON can hold
    assert intervals.bootstrap_mean(np.array([1.0, 1.0, 1.0, 1 - 1e-16])) == pytest.approx((1, 1))


def test_intervals_over_subjects_are_wider_than_over_pooled_images() -> None:
    rng = np.random.default_rng(2)
    subjects = [rng.normal(centre, 1, 50) for centre in (0, 1, 2, 3)]
    low, high = intervals.bootstrap_subjects(subjects, n_bootstrap=500)
    pooled = intervals.bootstrap_mean(np.concatenate(subjects), n_bootstrap=500)
    assert high - low > 2 * (pooled[1] - pooled[0])
    assert low < 1.5 < high


def test_seeds_against_scipy() -> None:
    values = np.array([0.5, 0.52, 0.47])
    expected = stats.t.interval(0.95, 2, values.mean(), stats.sem(values))
    np.testing.assert_allclose(intervals.seed_interval(values), expected)
    assert intervals.seed_interval(values[:1]) is None


def test_percentile_interval_leaves_out_undefined() -> None:
    replicates = np.r_[np.arange(101.0), np.nan]
    np.testing.assert_allclose(intervals.percentile_interval(replicates), (2.5, 97.5))
    assert intervals.percentile_interval(np.full(3, np.nan)) is None


def test_paired_p() -> None:
    assert intervals.paired_p(np.full(999, 0.3)) == pytest.approx(2 / 1000)
    assert intervals.paired_p(np.r_[np.full(500, -1.0), np.full(500, 1.0)]) == 1
    # as many equal signs: no other sample of three images is possible
    assert intervals.paired_p(np.full(999, 0.3), n_images=3) == pytest.approx(0.25)
    assert intervals.paired_p(np.full(999, 0.3), n_images=100) == pytest.approx(2 / 1000)


def test_one_image_has_no_interval() -> None:
    """Its mean is the same in every sample: intervals had no width, and every difference was sure."""
    weights = intervals.image_weights(1, 50)
    assert np.isnan(intervals.mean_replicates(weights, np.array([3.0]))).all()


def test_holm_by_hand() -> None:
    # 4 * .01, 3 * .02, then 2 * .03 and 1 * .04 are raised to what came before
    np.testing.assert_allclose(intervals.holm(np.array([0.04, 0.01, 0.03, 0.02])), [0.06, 0.04, 0.06, 0.06])


@settings(max_examples=25)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_lies_between_no_correction_and_bonferroni(p: list[float]) -> None:
    raw = np.asarray(p)
    corrected = intervals.holm(raw)
    assert np.all(corrected >= raw - 1e-12)
    assert np.all(corrected <= np.minimum(raw * len(raw), 1) + 1e-12)
    assert np.all(corrected >= stats.false_discovery_control(raw) - 1e-12)
    assert np.all(np.diff(corrected[np.argsort(raw)]) >= -1e-12)
