"""Scores of predicted mean responses: the published protocol and the per-voxel one."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from synbrain.describe import counted
from synbrain.evaluation.measured import BLOCK_VALUES, Measured
from synbrain.evaluation.row import Row
from synbrain.metrics.ceiling import correlation_ceiling, fraction_of_ceiling
from synbrain.metrics.intervals import mean_replicates, voxel_r_replicates_of
from synbrain.metrics.retrieval import response_retrieval
from synbrain.metrics.similarity import rdm, rdm_correlation
from synbrain.metrics.voxel import (
    blocks,
    cosine_within,
    mean_defined,
    pearson_within,
    r2,
    skill,
    squared_error,
    voxel_r,
)

WITHIN = {"mse": squared_error, "pearson": pearson_within, "cosine": cosine_within}
MAX_RDM_IMAGES = 1000
UNKNOWN_CEILING = "too few repeated trials and no ncsnr: the noise ceiling is unknown"


def score_mean(predicted: NDArray[Any], measured: Measured) -> Row:
    """Scores of ``predicted`` (n_test_images, n_voxels), the dataset's unit."""
    row = _within_trials(predicted, measured) | _within_repeat_means(predicted, measured)
    return row | _per_voxel(predicted, measured) | _structure(predicted, measured)


def _within_trials(predicted: NDArray[Any], measured: Measured) -> Row:
    row = Row()
    n = measured.test.n_images
    totals = {name: np.zeros(n) for name in (*WITHIN, "mse of the mean map")}
    counts = {name: np.zeros(n) for name in totals}
    flat = np.asarray(measured.mean, dtype=np.float32)[None]
    for _, images, trials, local in measured.image_blocks(1):
        for name in totals:
            if name in WITHIN:
                values = WITHIN[name](predicted[images][local], trials)
            else:
                values = squared_error(np.repeat(flat, len(trials), axis=0), trials)
            fine = np.isfinite(values)
            np.add.at(totals[name], images[local[fine]], values[fine])
            np.add.at(counts[name], images[local[fine]], 1)
    drawn = {name: mean_replicates(measured.weights, totals[name], counts[name]) for name in totals}
    value = {name: _ratio(totals[name].sum(), counts[name].sum()) for name in totals}
    for name in WITHIN:
        row.values[name], row.replicates[name] = value[name], drawn[name]
    error, base = value["mse"], value["mse of the mean map"]
    row.values["skill"] = None if error is None or base is None else skill(error, base)
    if base:
        row.replicates["skill"] = 1 - drawn["mse"] / drawn["mse of the mean map"]
    return row


def _ratio(total: float, count: float) -> float | None:
    return float(total / count) if count > 0 else None


def _within_repeat_means(predicted: NDArray[Any], measured: Measured) -> Row:
    row = Row()
    for name, function in WITHIN.items():
        values = function(predicted, measured.repeat_means)
        row.values[f"{name}_repeat_mean"] = mean_defined(values)[0]
        fine = np.isfinite(values)
        row.replicates[f"{name}_repeat_mean"] = mean_replicates(
            measured.weights, np.where(fine, values, 0.0), fine.astype(float)
        )
    return row


def _per_voxel(predicted: NDArray[Any], measured: Measured) -> Row:
    row = Row()
    target = measured.repeat_means
    r = voxel_r(predicted, target)
    row.per_voxel["voxel_r"] = r
    row.values["voxel_r"], n_undefined = mean_defined(r)
    if n_undefined:
        row.notes["voxel_r"] = (
            f"{counted(n_undefined, 'voxel is', 'voxels are')} constant over the test images and left out"
        )
    fraction, used = _fraction(r, measured)
    groups = np.stack([np.ones_like(used), used])
    every, of_used = voxel_r_replicates_of(groups, measured.weights, predicted, target, measured.device)
    row.replicates["voxel_r"] = every
    if measured.snr is not None and used.any():
        ceiling = correlation_ceiling(measured.snr[used], measured.repeats)
        fraction.replicates["voxel_r_fraction"] = of_used / float(ceiling.mean())
    row.values["r2"], _ = mean_defined(r2(predicted, target))
    trial_r = [
        voxel_r(predicted[:, part][measured.test.image_of_trial], measured.test_trials(part))
        for part in blocks(measured.test.n_voxels, measured.test.n_trials, BLOCK_VALUES)
    ]
    row.values["voxel_r_trial"], _ = mean_defined(np.concatenate(trial_r))
    return row | fraction


def _fraction(r: NDArray[Any], measured: Measured) -> tuple[Row, NDArray[np.bool_]]:
    """``voxel_r`` over its ceiling, and (n_voxels,) the voxels that it is taken over."""
    name = "voxel_r_fraction"
    none = np.zeros(len(r), dtype=np.bool_)
    if measured.snr is None:
        return Row(values={name: None}, notes={name: UNKNOWN_CEILING}), none
    ceiling = correlation_ceiling(measured.snr, measured.repeats)
    fraction = fraction_of_ceiling(r, ceiling, measured.reliable)
    if fraction is None:
        return Row(values={name: None}, notes={name: "no voxel is reliable"}), none
    used = measured.reliable & np.isfinite(r) & np.isfinite(ceiling)
    rois: dict[str, dict[str, float | None]] = {
        roi: {name: fraction_of_ceiling(r, ceiling, measured.reliable & mask)}
        for roi, mask in measured.space.roi_masks().items()
    }
    return Row({name: fraction}, rois=rois), used


def _structure(predicted: NDArray[Any], measured: Measured) -> Row:
    row = Row()
    target = measured.repeat_means
    if len(target) < 2:
        return row
    forward, backward = response_retrieval(predicted, target, measured.mean, measured.sd, measured.device)
    row.values["response_retrieval"], row.values["response_retrieval_backward"] = forward, backward
    if len(target) < 3:
        return row
    images = np.arange(len(target))
    if len(images) > MAX_RDM_IMAGES:
        images = np.random.default_rng(measured.seed).choice(images, MAX_RDM_IMAGES, replace=False)
    sides = [rdm(measured.standardised(side[images]), measured.device) for side in (predicted, target)]
    row.values["rdm_r"] = rdm_correlation(sides[0], sides[1])
    return row
