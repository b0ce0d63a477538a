"""Rows of several seeds to one row, with intervals that hold images and seeds."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from synbrain.evaluation.row import Row
from synbrain.metrics.intervals import Float64


def combined(rows: Sequence[Row], name: str = "") -> Row:
    """Mean over seeds, whose replicates carry the variance between images and the one between seeds.

    A value is the mean over the seeds that have it. Its replicates are the mean over seeds of the bootstrap
    replicates (all rows of a comparison draw the same images), plus a deviate ``t * sd / sqrt(n_seeds)``,
    with sd the standard deviation of the value over seeds and t from Student's distribution with
    n_seeds - 1 degrees of freedom; so a quantile interval is over images and seeds together, and the
    difference of two rows has the seeds' variance of both. With one seed it is over images alone.

    Args:
        rows: of one method, one per seed.
        name: of the method; deviates of different methods are independent.
    """
    if len(rows) == 1:
        return rows[0]
    out = Row()
    for metric in dict.fromkeys(m for row in rows for m in row.values):
        out.values[metric] = _mean([row.values.get(metric) for row in rows])
    for metric in rows[0].replicates:
        if all(metric in row.replicates for row in rows):
            drawn = np.mean([row.replicates[metric] for row in rows], axis=0)
            values = [v for row in rows if (v := row.values.get(metric)) is not None]
            out.replicates[metric] = drawn + seed_deviates(values, len(drawn), f"{name}/{metric}")
    for metric in rows[0].per_voxel:
        if all(metric in row.per_voxel for row in rows):
            out.per_voxel[metric] = np.mean([row.per_voxel[metric] for row in rows], axis=0)
    for roi in rows[0].rois:
        out.rois[roi] = {m: _mean([row.rois.get(roi, {}).get(m) for row in rows]) for m in rows[0].rois[roi]}
    for row in rows:
        out.notes.update(row.notes)
    return out


def seed_deviates(values: Sequence[float], n: int, name: str) -> Float64:
    """(n,) deviations of a mean over seeds, for values of each seed; zeros for fewer than two.

    They are Student quantiles at evenly spaced levels in an order drawn from ``name``: less Monte Carlo
    error than free draws, and another order for every row and metric.
    """
    if len(values) < 2:
        return np.zeros(n)
    spread = float(np.std(values, ddof=1)) / np.sqrt(len(values))
    levels = (np.arange(n) + 0.5) / n
    quantiles = stats.t.ppf(levels, len(values) - 1)
    order = np.random.default_rng(zlib.crc32(name.encode())).permutation(n)
    return np.asarray(spread * quantiles[order], dtype=np.float64)


def _mean(values: Sequence[Any]) -> float | None:
    known: NDArray[np.float64] = np.array([v for v in values if v is not None], dtype=np.float64)
    if len(known) == 0:
        return None
    if all(isinstance(v, int) for v in values):
        return int(values[0])  # a count, such as the voxels of an ROI
    return float(known.mean())
