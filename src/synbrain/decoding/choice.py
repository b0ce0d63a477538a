"""Which share of synthetic trials a decoder gets, told by images that nothing was fitted on.

The better mean of a few images is often the better by chance, and then synthetic trials do harm. So the
decoder without them is the one to beat, as the simplest model is in the one-standard-error rule (Breiman,
Friedman, Olshen, Stone 1984, section 3.4.3): synthetic trials are taken only where their gain is larger than
its own standard error. A decoder has two outputs, one for retrieval and one that is painted from, and neither
may get worse: each must gain as much (an intersection-union test, Berger 1982).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from synbrain.errors import SynBrainError

Rule = Literal["one_se", "mean"]
Outputs = Mapping[str, Sequence[float]]  # "embedded", "tokens" -> (n_images,) scores; small is good


def chosen_share(scores: Mapping[float, Outputs], rule: Rule) -> float:
    """The share of synthetic trials whose decoder is to be used.

    Args:
        scores: share -> scores on the same validation images. Share 0 is the decoder without synthetic
            trials; where it is missing one of the others is taken.
        rule: "mean", the smallest mean over images and outputs; "one_se": that one, but only where its gain
            over share 0, paired over images, is larger than the gain's standard error in every output.

    Raises:
        SynBrainError: where a decoder has no such scores, so that nothing tells which is better.

    >>> none, some = {"tokens": [3.0, 3.0, 3.0]}, {"tokens": [1.0, 3.0, 3.5]}
    >>> chosen_share({0: none, 0.5: some}, "mean")
    0.5
    >>> chosen_share({0: none, 0.5: some}, "one_se")
    0
    >>> chosen_share({0: none, 0.5: {"tokens": [1.0, 2.5, 2.0]}}, "one_se")
    0.5
    """
    if not all(scores.values()):
        raise SynBrainError(
            "the method has no scores on validation images to choose the share by", "use mindeye2 or ridge"
        )
    # of equal means the smaller share
    best = min(sorted(scores), key=lambda share: mean_score(scores[share]))
    if rule == "mean" or 0 not in scores or best == 0:
        return best
    gains = [np.subtract(each, scores[best][output]) for output, each in scores[0].items()]
    return best if all(gain.mean() > standard_error(gain.tolist()) for gain in gains) else 0


def mean_score(outputs: Outputs) -> float:
    """Over outputs and images."""
    return float(np.mean(list(outputs.values())))


def standard_error(differences: Sequence[float]) -> float:
    """Of the mean of paired differences, one an image; infinite where there is only one.

    >>> standard_error([0.0, 2.0])
    1.0
    """
    n = len(differences)
    return float(np.std(differences, ddof=1) / np.sqrt(n)) if n > 1 else float("inf")
