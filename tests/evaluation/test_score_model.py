from __future__ import annotations

import numpy as np
import pytest
import torch

from synbrain.baselines.controls import MeanMap
from synbrain.baselines.gaussian import RidgeGaussian
from synbrain.baselines.registry import make_baseline
from synbrain.baselines.ridge import Ridge
from synbrain.errors import SynBrainError
from synbrain.evaluation import measured as module
from synbrain.evaluation.ceiling_row import ceiling_row
from synbrain.evaluation.measured import measure
from synbrain.evaluation.row import TARGETS
from synbrain.evaluation.score_model import score_arrays, score_model
from synbrain.metrics import device, voxel
from synbrain.metrics.distribution import covariance_r


def test_values_are_the_metrics_of_all_trials(brain) -> None:
    m = brain.measured()
    predicted = Ridge().fit(m.train).predict(m.test.tokens)
    row = score_arrays(predicted, None, m)
    trials = m.test.trial_responses()
    shown = predicted[m.test.image_of_trial]
    assert row["mse"] == pytest.approx(voxel.mse(shown, trials), rel=1e-6)
    assert row["pearson"] == pytest.approx(voxel.pearson_within(shown, trials).mean())
    assert row["cosine"] == pytest.approx(voxel.cosine_within(shown, trials).mean())
    assert row["mse_repeat_mean"] == pytest.approx(voxel.mse(predicted, m.repeat_means), rel=1e-6)
    assert row["voxel_r"] == pytest.approx(voxel.voxel_r(predicted, m.repeat_means).mean())
    assert row["voxel_r_trial"] == pytest.approx(voxel.voxel_r(shown, trials).mean())
    flat = np.repeat(m.mean[None], len(trials), axis=0)
    assert row["skill"] == pytest.approx(1 - row["mse"] / voxel.mse(flat, trials), rel=1e-4)
    assert "crps" not in row.values
    assert set(row.values) <= set(TARGETS)
    for metric in ("mse", "pearson", "voxel_r", "voxel_r_fraction", "skill"):
        low, high = row.interval(metric)
        assert low < row[metric] < high


def test_the_truth_reaches_the_ceiling_in_every_score(make_brain) -> None:
    brain = make_brain(n_test=160, n_train=240)
    m = brain.measured()
    truth, top = score_arrays(brain.truth, brain.draw, m, n_samples=39), ceiling_row(m)
    for metric in ("voxel_r", "voxel_r_trial", "voxel_r_fraction", "mse", "crps", "energy_score"):
        assert truth[metric] == pytest.approx(top[metric], rel=0.06), metric
    for metric in ("pearson", "cosine", "pearson_repeat_mean", "skill", "r2", "noise_covariance_r"):
        assert truth[metric] == pytest.approx(top[metric], abs=0.06), metric
    assert truth["rdm_r"] == pytest.approx(top["rdm_r"], abs=0.1)
    assert truth["variance_ratio"] == pytest.approx(1, abs=0.12)
    assert truth["coverage_90"] == pytest.approx(0.9, abs=0.02)
    assert truth["coverage_50"] == pytest.approx(0.5, abs=0.02)
    assert truth["noise_covariance_r"] > 0.8


def test_the_truth_reaches_the_ceiling_on_average_with_few_images(make_brain) -> None:
    fractions = []
    for seed in range(12):
        brain = make_brain(seed=seed)  # 40 test images
        fractions.append(score_arrays(brain.truth, None, brain.measured())["voxel_r_fraction"])
    assert np.mean(fractions) == pytest.approx(1, abs=0.05)


def test_order_of_models_is_the_order_of_what_they_know(brain) -> None:
    m = brain.measured()
    mean_map, ridge, gaussian = (
        score_model(b.fit(m.train), m) for b in (MeanMap(), Ridge(), RidgeGaussian())
    )
    truth = score_arrays(brain.truth, brain.draw, m)
    assert mean_map["voxel_r"] == mean_map["voxel_r_fraction"] == 0
    assert mean_map["skill"] == pytest.approx(0, abs=1e-6)
    assert mean_map["response_retrieval"] == pytest.approx(1 / m.test.n_images)
    assert mean_map["pearson"] > 0.8  # the static map alone
    assert 0 < ridge["voxel_r"] <= truth["voxel_r"] + 0.01
    for score in ("crps", "energy_score"):
        assert truth[score] < gaussian[score] < ridge[score] < mean_map[score]
    assert ridge["variance_ratio"] == ridge["coverage_90"] == 0
    assert gaussian["coverage_90"] == pytest.approx(0.9, abs=0.05)


def test_shuffled_pairs_fall_to_chance(brain) -> None:
    m = brain.measured()
    rows = [
        score_arrays(brain.truth[np.random.default_rng(s).permutation(m.test.n_images)], None, m)
        for s in range(8)
    ]
    assert np.mean([r["voxel_r"] for r in rows]) == pytest.approx(0, abs=0.06)
    assert np.mean([r["response_retrieval"] for r in rows]) == pytest.approx(1 / m.test.n_images, abs=0.03)


def test_block_size_changes_no_score_of_the_mean(brain, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = score_arrays(brain.truth, brain.draw, brain.measured())
    monkeypatch.setattr(module, "BLOCK_VALUES", 24 * 20 * 5)
    parts = score_arrays(brain.truth, brain.draw, brain.measured())
    for metric in ("mse", "pearson", "voxel_r", "voxel_r_trial", "voxel_r_fraction"):
        assert parts[metric] == pytest.approx(whole[metric], rel=1e-6)
    for metric in ("crps", "energy_score", "variance_ratio"):  # other random draws, same distribution
        assert parts[metric] == pytest.approx(whole[metric], rel=0.05)


def test_by_roi(brain) -> None:
    m = brain.measured()
    row = score_arrays(brain.truth, brain.draw, m)
    assert set(row.rois) == {"toy/one", "toy/two"}
    mask = m.space.roi_masks()["toy/one"]
    r = voxel.voxel_r(brain.truth, m.repeat_means)
    assert row.rois["toy/one"]["voxel_r"] == pytest.approx(r[mask].mean())
    assert row.rois["toy/one"]["n_voxels"] == 8
    assert row.rois["toy/one"]["coverage_90"] == pytest.approx(0.9, abs=0.08)


def test_zero_variance_voxels_never_reach_a_mean(brain) -> None:
    brain.dataset.responses[:, [0, 5]] = 3.0
    m = brain.measured()
    truth = brain.truth.copy()
    truth[:, [0, 5]] = 3.0
    for row in (score_arrays(truth, brain.draw, m), ceiling_row(m)):
        for metric, value in row.values.items():
            assert value is None or np.isfinite(value), metric
    row = score_arrays(truth, brain.draw, m)
    assert row.notes["voxel_r"].startswith("2 voxels")
    assert np.isnan(row.per_voxel["voxel_r"][[0, 5]]).all()
    assert np.isnan(row.per_voxel["crps"][[0, 5]]).all()


def test_single_responses_have_no_ceiling_and_no_distribution(make_brain) -> None:
    brain = make_brain(repeats=(1, 1))
    m = brain.measured()
    row = score_arrays(brain.truth, brain.draw, m)
    assert row["voxel_r"] > 0.4
    assert row["voxel_r_fraction"] is None
    for metric in ("crps", "energy_score", "variance_ratio", "coverage_90", "noise_covariance_r"):
        assert row[metric] is None
        assert "too few test images" in row.notes[metric]
    assert ceiling_row(m)["voxel_r"] is None


def test_ragged_repeats(make_brain) -> None:
    brain = make_brain(repeats=(1, 4), n_test=120)
    m = brain.measured()
    row, top = score_arrays(brain.truth, brain.draw, m), ceiling_row(m)
    assert row["voxel_r"] == pytest.approx(top["voxel_r"], rel=0.1)
    assert row["variance_ratio"] == pytest.approx(1, abs=0.1)
    assert row["crps"] == pytest.approx(top["crps"], rel=0.08)


def test_few_samples_leave_out_the_wide_interval(brain) -> None:
    row = score_arrays(brain.truth, brain.draw, brain.measured(), n_samples=8)
    assert row["coverage_90"] is None
    assert "19 samples" in row.notes["coverage_90"]
    assert row["coverage_50"] == pytest.approx(0.5, abs=0.05)


def test_wrong_predictions_are_told(brain) -> None:
    m = brain.measured()
    with pytest.raises(SynBrainError, match="every test image"):
        score_arrays(brain.truth[:3], None, m)
    bad = brain.truth.copy()
    bad[0, 0] = np.nan
    with pytest.raises(SynBrainError, match="NaN"):
        score_arrays(bad, None, m)


def test_the_summary_of_trials_agrees_with_the_scores(brain) -> None:
    """What pictures are drawn from is the same distribution, summed once."""
    m = brain.measured()
    row = score_model(RidgeGaussian().fit(m.train), m, summary=True)
    assert row.trials is not None
    np.testing.assert_array_equal(row.trials.levels, [0.1, 0.25, 0.5, 0.75, 0.9])
    np.testing.assert_allclose(row.trials.covered[2], row.per_voxel["coverage_50"])
    assert (np.diff(np.nanmean(row.trials.covered, axis=1)) > 0).all()
    assert covariance_r(row.trials.synthetic, row.trials.measured) == pytest.approx(row["noise_covariance_r"])
    ratio = np.diag(row.trials.synthetic) / np.diag(row.trials.measured)
    np.testing.assert_allclose(ratio, row.per_voxel["variance_ratio"][row.trials.voxels], rtol=1e-5)


def test_trials_are_judged_as_trials_and_predictive_draws_as_intervals(brain) -> None:
    m = brain.measured()

    def wide(images, n, seed):
        return brain.truth[images] + 3 * (brain.draw(images, n, seed) - brain.truth[images])

    plain = score_arrays(brain.truth, brain.draw, m)
    both = score_arrays(brain.truth, brain.draw, m, predictive=wide)
    for metric in ("variance_ratio", "variance_ratio_q25", "noise_covariance_r"):
        assert both[metric] == plain[metric]
    assert both["coverage_90"] > 0.99
    for score in ("crps", "energy_score"):
        assert both[score] > 1.1 * plain[score]


def test_scores_do_not_depend_on_the_number_of_threads(brain, monkeypatch: pytest.MonkeyPatch) -> None:
    m = brain.measured()
    monkeypatch.setattr(module, "BLOCK_VALUES", 20 * m.test.n_voxels * 7)  # blocks of seven images
    rows = []
    for threads in (1, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        rows.append(score_arrays(brain.truth, brain.draw, m, summary=True))
    assert rows[0].values == rows[1].values
    assert np.array_equal(rows[0].replicates["crps"], rows[1].replicates["crps"])
    assert np.array_equal(rows[0].trials.covered, rows[1].trials.covered)


def test_scores_of_tensors_are_those_of_arrays(brain, monkeypatch: pytest.MonkeyPatch) -> None:
    m = brain.measured()
    predicted = Ridge().fit(m.train).predict(m.test.tokens)
    expected = score_arrays(predicted, brain.draw, m, n_samples=39)
    monkeypatch.setattr(device, "TENSORS", ("cpu",))
    row = score_arrays(predicted, brain.draw, m, n_samples=39)
    assert row.values == pytest.approx(expected.values, rel=1e-9)
    for name, replicates in expected.replicates.items():
        np.testing.assert_allclose(row.replicates[name], replicates, rtol=1e-9, err_msg=name)


def test_what_is_scored_knows_its_device(brain) -> None:
    m = measure(brain.measured().test, brain.measured().train, brain.space, n_bootstrap=20, device="meta")
    assert m.device == "meta"
    assert make_baseline("ridge", "cuda").device == torch.device("cuda")
    assert make_baseline("shuffled", "mps").device == torch.device("cpu")  # no float64 there
