"""Paired differences between rows, with p-values corrected for the number of rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from synbrain.evaluation.row import Row
from synbrain.metrics.intervals import holm, paired_p, percentile_interval

COMPARED = ("mse", "pearson", "skill", "voxel_r", "voxel_r_fraction", "crps", "energy_score")


def differences(
    rows: dict[str, Row], against: str = "ridge", *, n_images: int | None = None
) -> dict[str, dict[str, dict[str, Any]]]:
    """Difference of every row from the row ``against``, per metric, over paired bootstrap replicates.

    Rows must come from one :class:`~synbrain.evaluation.measured.Measured`, so that replicate k of every
    row saw the same test images.

    Args:
        rows: name -> row; those without replicates (ceiling) are left out.
        against: the row that the others are compared with.
        n_images: test images that replicates are drawn from; few of them cannot give a small p.

    Returns:
        row -> metric -> {"difference", "interval" (95 %), "p" (two-sided), "p_holm" (Holm over the rows)}.
    """
    table: dict[str, dict[str, dict[str, Any]]] = {}
    if against not in rows:
        return table
    base = rows[against]
    for metric in COMPARED:
        names, p_values = [], []
        for name, row in rows.items():
            ours, theirs = row.values.get(metric), base.values.get(metric)
            both = metric in row.replicates and metric in base.replicates
            if name == against or not both or ours is None or theirs is None:
                continue
            drawn = row.replicates[metric] - base.replicates[metric]
            interval = percentile_interval(drawn)
            if interval is None:
                continue
            entry = {"difference": ours - theirs, "interval": list(interval), "p": paired_p(drawn, n_images)}
            table.setdefault(name, {})[metric] = entry
            names.append(name)
            p_values.append(entry["p"])
        for name, corrected in zip(names, holm(np.asarray(p_values)), strict=True):
            table[name][metric]["p_holm"] = float(corrected)
    return table
