"""The row of the noise ceiling: what the true mean and the true trial distribution would score."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from synbrain.evaluation.measured import BLOCK_VALUES, Measured
from synbrain.evaluation.row import Row
from synbrain.evaluation.score_mean import MAX_RDM_IMAGES, UNKNOWN_CEILING
from synbrain.evaluation.score_trials import LEVELS
from synbrain.metrics.ceiling import (
    correlation_ceiling,
    noise_ceiling,
    repeat_similarity,
    stepped_up,
    within_ceiling,
)
from synbrain.metrics.distribution import covariance_split_half, expected_scores
from synbrain.metrics.similarity import rdm_ceiling
from synbrain.metrics.voxel import blocks, mean_defined


def ceiling_row(measured: Measured) -> Row:
    """Estimate, from the test trials alone, what no model can beat in expectation.

    Mean: ``voxel_r`` from ncsnr; Pearson and cosine within a trial from the similarity of repeats; MSE is
    the trial variance. Distribution: CRPS and energy score from pairs of repeats. A metric that has no
    ceiling (retrieval) is left out; the variance ratio and coverages are what calibration means.
    """
    if measured.snr is None:
        return Row(values={"voxel_r": None}, notes={"voxel_r": UNKNOWN_CEILING})
    row = _correlations(measured.snr, measured)
    if measured.signal_noise is not None:
        row = row | _within(measured.signal_noise[1], measured) | _distribution(measured)
    return row.with_rois(measured.space)


def _correlations(snr: NDArray[Any], measured: Measured) -> Row:
    row = Row()
    alive = np.ptp(measured.repeat_means, axis=0) > 0  # the same voxels that a model is scored on
    for name, repeats in (("voxel_r", measured.repeats), ("voxel_r_trial", 1)):
        row.per_voxel[name] = np.where(alive, correlation_ceiling(snr, repeats), np.nan)
        row.values[name], _ = mean_defined(row.per_voxel[name])
    known = row.values["voxel_r"] is not None and measured.reliable.any()
    row.values["voxel_r_fraction"] = 1.0 if known else None
    explained = np.where(alive, noise_ceiling(snr, measured.repeats), np.nan)
    row.values["r2"], _ = mean_defined(explained)
    return row


def _within(noise: NDArray[Any], measured: Measured) -> Row:
    row = Row()
    trials, image = measured.test.trial_responses(), measured.test.image_of_trial
    error = float(noise.mean())
    row.values["mse"] = error
    row.values["mse_repeat_mean"] = error * float(np.mean(1 / measured.repeats))
    flat = 0.0
    for part in blocks(measured.test.n_trials, measured.test.n_voxels, BLOCK_VALUES):
        difference = trials[part].astype(np.float64) - measured.mean
        flat += float(np.sum(np.mean(difference**2, axis=1)))
    flat /= measured.test.n_trials
    row.values["skill"] = 1 - error / flat if flat > 0 else None
    for name, centre in (("pearson", True), ("cosine", False)):
        similarity = repeat_similarity(trials, image, centre=centre)
        row.values[name] = within_ceiling(similarity)
        row.values[f"{name}_repeat_mean"] = within_ceiling(similarity, measured.repeats)
    return row


def _distribution(measured: Measured) -> Row:
    row = Row()
    image = measured.test.image_of_trial
    alive = measured.sd > 0
    total, energy, weight, n = np.zeros(int(alive.sum())), 0.0, 0.0, 0.0
    for _, _, raw, local in measured.image_blocks(4):
        counts = np.bincount(local)
        counts = counts[counts >= 2]  # ordered as the images that `expected_scores` returns
        crps, energies = expected_scores(measured.standardised(raw), local)
        total += counts @ crps
        energy += float(counts @ energies)
        weight += float(counts.sum())
        n += len(counts)
    per_voxel = np.full(len(alive), np.nan)
    per_voxel[alive] = total / weight
    row.per_voxel["crps"] = per_voxel
    row.values["crps"], _ = mean_defined(per_voxel)
    row.values["energy_score"] = energy / weight / float(np.sqrt(alive.sum()))
    row.values["variance_ratio"] = 1.0
    row.values.update(LEVELS)
    chosen = measured.standardised(measured.test.trial_responses())
    row.values["rdm_r"] = (
        rdm_ceiling(chosen, image, seed=measured.seed) if measured.test.n_images <= MAX_RDM_IMAGES else None
    )
    position = (np.cumsum(alive) - 1)[measured.covariance_voxels]
    half = covariance_split_half(chosen[:, position], image, seed=measured.seed)
    row.values["noise_covariance_r"] = stepped_up(half)
    row.values["noise_covariance_split_half"] = half
    return row
