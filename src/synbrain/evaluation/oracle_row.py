"""The oracle: on simulated data, the true mean and the true trial distribution, scored like a model."""

from __future__ import annotations

from synbrain.data.dataset import Dataset
from synbrain.evaluation.measured import Measured
from synbrain.evaluation.row import Row


def oracle_row(dataset: Dataset, measured: Measured, *, n_samples: int, seed: int) -> Row | None:
    """Score the truth of a simulated dataset; None where there is no truth to be had."""
    return None
