"""How many further real hours some synthetic hours are worth: read off the scores of decoders with either."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from synbrain.arrays import Float64
from synbrain.metrics.intervals import LEVEL, image_weights, mean_replicates

Scores = Mapping[float, Float64]  # hours -> (n_test_images,), the score of each image, mean over seeds


def worth_in_real_hours(
    without: Float64, real: Scores, synthetic: Scores, *, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """Synthetic hours -> "hours", the further real hours with the same score, and their 95 % "interval".

    The curve of real hours is made monotone (running maximum) and interpolated linearly; of several amounts
    with one score the smallest counts. None: beyond the last real hour. 0: synthetic trials gave nothing. The
    interval is over test images, which are drawn together for both curves.

    Args:
        without: (n_test_images,), of the decoder with neither.
        real: by further real hours; nothing can be read off where it is empty.
        synthetic: by synthetic hours.
        seed: of the bootstrap.

    Example:
        >>> import numpy as np
        >>> def constant(value): return np.full(5, value)
        >>> worth = worth_in_real_hours(constant(0.2), {2.0: constant(0.6)}, {1.0: constant(0.3)})
        >>> round(worth["1"]["hours"], 3)
        0.5
    """
    if not real:
        return {}
    n = len(without)
    weights = np.vstack([np.ones(n), image_weights(n, seed=seed)])  # the first replicate is the sample itself
    hours = np.array([0.0, *sorted(real)])
    scores = [without, *(real[h] for h in sorted(real))]
    rising = np.maximum.accumulate([mean_replicates(weights, values) for values in scores], axis=0).T
    ends = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    worth: dict[str, dict[str, Any]] = {}
    for amount in sorted(synthetic):
        reached = mean_replicates(weights, synthetic[amount])
        read = np.array([_read_off(*pair, hours) for pair in zip(reached, rising, strict=True)])
        # "nearest": between a number and infinity nothing can be interpolated
        interval = np.quantile(read[1:], ends, method="nearest")
        worth[f"{amount:g}"] = {"hours": _finite(read[0]), "interval": [_finite(end) for end in interval]}
    return worth


def _read_off(reached: float, rising: Float64, hours: Float64) -> float:
    """Hours at which a rising curve reaches a score; infinity beyond its end."""
    if reached > rising[-1]:
        return np.inf
    after = int(np.searchsorted(rising, reached))  # the first that reaches it
    if after == 0 or rising[after] == reached:
        return float(hours[after])
    share = (reached - rising[after - 1]) / (rising[after] - rising[after - 1])
    return float(hours[after - 1] + share * (hours[after] - hours[after - 1]))


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
