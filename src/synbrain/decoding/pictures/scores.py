"""Decoded pictures against the seen ones: pixels, structure, and features of networks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synbrain.arrays import Float32, Float64
from synbrain.decoding.options import OFFLINE
from synbrain.decoding.pictures.feature_networks import (
    COMMON_SIZE,
    FEATURE_NETWORKS,
    as_pictures,
    load_feature_network,
    picture_features,
    resized,
)
from synbrain.errors import SynBrainError
from synbrain.metrics.image import (
    correlation_distance,
    pixel_correlation,
    structural_similarity,
    two_way_wins,
)

PIXEL_SIZE = 425  # what PixCorr and SSIM are computed at, as published
BLOCK = 2  # pictures at once: larger arrays cost the system as much time as the sums (CPU_BATCH)


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
    return SeenPictures(seen, tuple(dict.fromkeys(networks)), device).scores(decoded)


@dataclass(frozen=True)
class SeenPictures:
    """Pictures that were seen. Their features are computed once, however many rows are judged by them.

    Attributes:
        pictures: (n, h, w, 3) uint8 or floats in [0, 1].
        networks: keys of ``FEATURE_NETWORKS``; one that is not at hand is refused at once.
        device: where they run.
    """

    pictures: NDArray[Any]
    networks: tuple[str, ...] = OFFLINE
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name in self.networks:
            load_feature_network(name, self.device)

    @cached_property
    def features(self) -> dict[str, dict[str, Float32]]:
        """Network -> layer -> (n, d) float32."""
        return {name: picture_features(name, self.pictures, device=self.device) for name in self.networks}

    def scores(self, decoded: NDArray[Any]) -> dict[str, PictureScore]:
        """Every column of ``decoded``, (n, h, w, 3), whose row i was decoded from responses to picture i.

        Raises:
            SynBrainError: for pictures that do not pair up.
        """
        n = len(self.pictures)
        if len(decoded) != n or n < 2:
            raise SynBrainError(
                f"{len(decoded)} decoded pictures for {n} seen ones",
                "give one decoded picture an image, and two images at least",
            )
        scores = _pixels(decoded, self.pictures)
        for name in self.networks:
            ours, theirs = picture_features(name, decoded, device=self.device), self.features[name]
            for column, (layer, kind) in FEATURE_NETWORKS[name].columns.items():
                if kind == "two_way":
                    wins = two_way_wins(ours[layer], theirs[layer]) / (n - 1)
                    scores[column] = PictureScore(wins, "larger", 0.5)
                else:
                    distance = correlation_distance(ours[layer], theirs[layer])
                    scores[column] = PictureScore(distance, "smaller", 1.0)
        return scores


def _pixels(decoded: NDArray[Any], seen: NDArray[Any]) -> dict[str, PictureScore]:
    """PixCorr and SSIM at 425 pixels, two pictures at a time (2 MB each in float32)."""
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
