"""Which share of synthetic trials a decoder gets, told by images that nothing was fitted on.

The better mean of a few images is often the better by chance. So the decoder without synthetic trials is the
one to beat, as the simplest model is in the one-standard-error rule (Breiman, Friedman, Olshen, Stone 1984,
section 3.4.3): they are taken only where their gain is larger than its own standard error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from synbrain.errors import SynBrainError

Rule = Literal["one_se", "mean"]


def chosen_share(scores: Mapping[float, Sequence[float]], rule: Rule) -> float:
    """The share of synthetic trials whose decoder is to be used.

    Args:
        scores: share -> (n_images,) scores of the same validation images; small is good. Share 0 is the
            decoder without synthetic trials; where it is missing one of the others is taken.
        rule: "mean", the smallest mean; "one_se": that one, but only where its gain over share 0, paired over
            images, is larger than the gain's standard error.

    Raises:
        SynBrainError: where a decoder has no such scores, so that nothing tells which is better.

    >>> chosen_share({0: [3.0, 3.0, 3.0], 0.5: [1.0, 3.0, 3.5]}, "mean")
    0.5
    >>> chosen_share({0: [3.0, 3.0, 3.0], 0.5: [1.0, 3.0, 3.5]}, "one_se")
    0.0
    >>> chosen_share({0: [3.0, 3.0, 3.0], 0.5: [1.0, 2.5, 2.0]}, "one_se")
    0.5
    """
    if not all(scores.values()):
        raise SynBrainError(
            "the method has no scores on validation images to choose the share by", "use mindeye2 or ridge"
        )
    # of equal means the smaller share
    best = min(sorted(scores), key=lambda share: float(np.mean(scores[share])))
    if rule == "mean" or 0 not in scores or best == 0:
        return best
    gains = np.subtract(scores[0], scores[best])
    return best if gains.mean() > standard_error(gains.tolist()) else 0.0


def standard_error(differences: Sequence[float]) -> float:
    """Of the mean of paired differences, one an image; infinite where there is only one.

    >>> standard_error([0.0, 2.0])
    1.0
    """
    n = len(differences)
    return float(np.std(differences, ddof=1) / np.sqrt(n)) if n > 1 else float("inf")
