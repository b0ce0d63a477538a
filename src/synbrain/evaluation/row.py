"""One row of a score table: every score of one system, with what its intervals are made from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from synbrain.arrays import Float64, Rows
from synbrain.data.space import VoxelSpace
from synbrain.metrics.intervals import Interval, percentile_interval
from synbrain.metrics.voxel import mean_defined

Target = Literal["trial", "repeat_mean", "trial_variance"]

# metric -> what it is scored against; the order is the order of tables and files
TARGETS: dict[str, Target] = {
    "mse": "trial",
    "pearson": "trial",
    "cosine": "trial",
    "mse_repeat_mean": "repeat_mean",
    "pearson_repeat_mean": "repeat_mean",
    "cosine_repeat_mean": "repeat_mean",
    "skill": "trial",
    "voxel_r": "repeat_mean",
    "voxel_r_trial": "trial",
    "voxel_r_fraction": "repeat_mean",
    "r2": "repeat_mean",
    "response_retrieval": "repeat_mean",
    "response_retrieval_backward": "repeat_mean",
    "rdm_r": "repeat_mean",
    "crps": "trial",
    "energy_score": "trial",
    "variance_ratio": "trial_variance",
    "variance_ratio_q25": "trial_variance",
    "variance_ratio_q75": "trial_variance",
    "coverage_50": "trial",
    "coverage_90": "trial",
    "noise_covariance_r": "trial_variance",
    "noise_covariance_split_half": "trial_variance",
    "raw_retrieval": "repeat_mean",
    "raw_retrieval_backward": "repeat_mean",
    "syn_retrieval": "repeat_mean",
    "syn_retrieval_backward": "repeat_mean",
}


@dataclass(frozen=True)
class TrialSummary:
    """Synthetic beside measured variability, summed while trials were scored; what pictures are drawn from.

    Attributes:
        levels: (n_levels,) nominal coverage of central intervals.
        covered: (n_levels, n_voxels) share of the measured trials inside; NaN where a voxel is constant.
        voxels: those whose noise covariances were summed.
        measured, synthetic: (n, n) noise covariances of these voxels, in training sd.
    """

    levels: Float64
    covered: Float64
    voxels: Rows
    measured: Float64
    synthetic: Float64


@dataclass(frozen=True)
class Row:
    """Scores of one system on one :class:`~synbrain.evaluation.measured.Measured`.

    Attributes:
        values: metric -> value; None where it does not apply (``notes`` say why).
        replicates: metric -> (n_bootstrap,) over test images, with the same image draws for every row.
        per_voxel: "voxel_r", "crps", "variance_ratio", "coverage_50", "coverage_90" -> (n_voxels,),
            NaN where undefined.
        rois: ROI -> metric -> value.
        notes: metric -> why it is missing, or how to read it.
        trials: variability summed over the test images, where it was asked for.
    """

    values: dict[str, float | None] = field(default_factory=dict)
    replicates: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    per_voxel: dict[str, NDArray[Any]] = field(default_factory=dict)
    rois: dict[str, dict[str, float | None]] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    trials: TrialSummary | None = None

    def __or__(self, other: Row) -> Row:
        """Both rows' scores of one system; where both have a metric, those of ``other``."""
        rois = {roi: self.rois.get(roi, {}) | other.rois.get(roi, {}) for roi in self.rois | other.rois}
        return Row(
            self.values | other.values,
            self.replicates | other.replicates,
            self.per_voxel | other.per_voxel,
            rois,
            self.notes | other.notes,
            other.trials or self.trials,
        )

    def with_rois(self, space: VoxelSpace) -> Row:
        """This row with means over each ROI's voxels (the median for the variance ratio)."""
        rois: dict[str, dict[str, float | None]] = {}
        for roi, mask in space.roi_masks().items():
            rois[roi] = {"n_voxels": int(mask.sum())}
            for name, values in self.per_voxel.items():
                inside = values[mask]
                if name == "variance_ratio":
                    defined = inside[np.isfinite(inside)]
                    rois[roi][name] = float(np.median(defined)) if len(defined) else None
                else:
                    rois[roi][name] = mean_defined(inside)[0]
        return self | Row(rois=rois)

    def interval(self, metric: str) -> Interval | None:
        """95 % bootstrap interval over test images; None where the metric has none."""
        drawn = self.replicates.get(metric)
        return None if drawn is None else percentile_interval(drawn)

    def __getitem__(self, metric: str) -> float | None:
        return self.values[metric]
