"""Decoded pictures against the seen ones: pixels, structure, and features of networks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synbrain.arrays import Float64
from synbrain.decoding.feature_networks import (
    COMMON_SIZE,
    FEATURE_NETWORKS,
    as_pictures,
    load_feature_network,
    picture_features,
    resized,
)
from synbrain.decoding.options import OFFLINE
from synbrain.errors import SynBrainError
from synbrain.metrics.image import (
    correlation_distance,
    pixel_correlation,
    structural_similarity,
    two_way_wins,
)

PIXEL_SIZE = 425  # what PixCorr and SSIM are computed at, as published
BLOCK = 32


@dataclass(frozen=True)
class PictureScore:
    """One column of the table.

    Attributes:
        each: (n_images,) float64; its mean is the score, and paired tests are over it.
        better: whether larger or smaller is better.
        chance: what a decoder that ignores the responses gets, where that is known.
    """

    each: Float64
    better: str
    chance: float | None = None

    @property
    def value(self) -> float:
        return float(self.each.mean())


def picture_scores(
    decoded: NDArray[Any], seen: NDArray[Any], *, networks: Iterable[str] = OFFLINE, device: str = "cpu"
) -> dict[str, PictureScore]:
    """Every column that the networks give, besides ``pixcorr`` and ``ssim``.

    Args:
        decoded: (n, h, w, 3) uint8 or floats in [0, 1], row i decoded from responses to image i.
        seen: (n, h', w', 3), likewise; the images themselves.
        networks: keys of ``FEATURE_NETWORKS``; ``PUBLISHED`` for the columns of the paper's table.
        device: where they run.

    Raises:
        SynBrainError: for pictures that do not pair up, or a network that is not at hand (before any work).

    Example:
        >>> import numpy as np
        >>> seen = np.random.default_rng(0).random((3, 64, 64, 3))
        >>> scores = picture_scores(seen, seen)
        >>> round(scores["lite2"].value, 3), round(scores["ssim"].value, 3)
        (1.0, 1.0)
    """
    if len(decoded) != len(seen) or len(seen) < 2:
        raise SynBrainError(
            f"{len(decoded)} decoded pictures for {len(seen)} seen ones",
            "give one decoded picture an image, and two images at least",
        )
    chosen = list(dict.fromkeys(networks))
    for name in chosen:
        load_feature_network(name, device)
    scores = _pixels(decoded, seen)
    for name in chosen:
        ours, theirs = (picture_features(name, pictures, device=device) for pictures in (decoded, seen))
        for column, (layer, kind) in FEATURE_NETWORKS[name].columns.items():
            if kind == "two_way":
                wins = two_way_wins(ours[layer], theirs[layer]) / (len(seen) - 1)
                scores[column] = PictureScore(wins, "larger", 0.5)
            else:
                scores[column] = PictureScore(
                    correlation_distance(ours[layer], theirs[layer]), "smaller", 1.0
                )
    return scores


def _pixels(decoded: NDArray[Any], seen: NDArray[Any]) -> dict[str, PictureScore]:
    """PixCorr and SSIM at 425 pixels, a block of pictures at a time (2 MB each in float32)."""
    correlation, structure = [], []
    for start in range(0, len(seen), BLOCK):
        pair = [
            resized(resized(as_pictures(p[start : start + BLOCK]), COMMON_SIZE), PIXEL_SIZE)
            .permute(0, 2, 3, 1)
            .numpy()
            for p in (decoded, seen)
        ]
        correlation.append(pixel_correlation(*pair))
        structure.append(structural_similarity(*pair))
    return {
        "pixcorr": PictureScore(np.nan_to_num(np.concatenate(correlation)), "larger", 0.0),
        "ssim": PictureScore(np.concatenate(structure), "larger"),
    }
