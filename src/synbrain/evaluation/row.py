"""One row of a score table: every score of one system, with what its intervals are made from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from synbrain.metrics.intervals import Interval, percentile_interval

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


@dataclass
class Row:
    """Scores of one system on one :class:`~synbrain.evaluation.measured.Measured`.

    Attributes:
        values: metric -> value; None where it does not apply (``notes`` say why).
        replicates: metric -> (n_bootstrap,) over test images, with the same image draws for every row.
        per_voxel: "voxel_r", "crps", "variance_ratio", "coverage_50", "coverage_90" -> (n_voxels,),
            NaN where undefined.
        rois: ROI -> metric -> value.
        notes: metric -> why it is missing, or how to read it.
    """

    values: dict[str, float | None] = field(default_factory=dict)
    replicates: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    per_voxel: dict[str, NDArray[Any]] = field(default_factory=dict)
    rois: dict[str, dict[str, float | None]] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)

    def interval(self, metric: str) -> Interval | None:
        """95 % bootstrap interval over test images; None where the metric has none."""
        drawn = self.replicates.get(metric)
        return None if drawn is None else percentile_interval(drawn)

    def __getitem__(self, metric: str) -> float | None:
        return self.values[metric]
