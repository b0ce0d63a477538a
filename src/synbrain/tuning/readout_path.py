"""A subject's readout as a linear path: exact for some thousand units, in patterns for a whole brain.

A factorised readout is linear in the feature map, with a weight for every place, channel and unit: 37,632 x
15,724 of them for one subject of the Natural Scenes Dataset, 2.4 GB. What it predicts for images lies near to
far fewer dimensions, and a path in those is what a linear path of such a subject is as well.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.linalg import eigh

from synbrain.arrays import Float32
from synbrain.linear.path import LinearPath
from synbrain.linear.storing import as_stored, column_sizes
from synbrain.tuning.network import Readout

EXACT_UNITS = 2000  # up to here a unit has a column of its own
PATTERNS = 512  # of a subject with more units
PATTERN_IMAGES = 1024  # on which they are found


@dataclass(frozen=True)
class ReadoutPatterns:
    """The principal axes of what a readout predicts over images.

    Attributes:
        mean: (n_units,) float32, of the predictions.
        axes: (n_units, r) float32, orthonormal.
        kept: share of the predictions' variance that lies in them.
    """

    mean: Float32
    axes: Float32
    kept: float

    @classmethod
    def of(cls, predicted: Float32, rank: int = PATTERNS) -> ReadoutPatterns:
        """At most ``rank`` axes of predictions (n_images, n_units).

        >>> found = ReadoutPatterns.of(np.outer([1.0, 2.0, 6.0], [3.0, 4.0]).astype(np.float32))
        >>> np.round(np.abs(found.axes[:, 0]), 2), round(found.kept, 3)
        (array([0.6, 0.8], dtype=float32), 1.0)
        """
        mean = predicted.mean(axis=0)
        centred = predicted - mean
        values, vectors = eigh((centred @ centred.T).astype(np.float64))
        values, vectors = values[::-1][:rank], vectors[:, ::-1][:, :rank]
        there = values > max(values[0], 1e-30) * 1e-6  # below this float32 has rounded it
        axes, _ = np.linalg.qr(centred.T @ vectors[:, there])
        total = float(np.square(centred).sum(dtype=np.float64))
        kept = float(np.square(centred @ axes).sum(dtype=np.float64)) / total if total > 0 else 1.0
        return cls(mean, axes.astype(np.float32), kept)


@torch.no_grad()
def readout_path(
    readout: Readout, layer: str, shape: tuple[int, int], offset: Float32, scale: Float32,
    patterns: ReadoutPatterns | None = None,
) -> LinearPath:  # fmt: skip
    """The path of ``offset + scale * readout``; with patterns, of its predictions in those alone.

    Args:
        readout: of the subject.
        layer: the map that it reads, a layer of the tuned encoder.
        shape: (n_places, n_channels) of the map.
        offset, scale: (n_units,) from what the readout was trained on to responses.
        patterns: of its predictions; none keeps every unit exactly.
    """
    bias = readout.bias.detach().cpu().numpy()
    if patterns is None:
        weights, expand, about = readout.as_matrix(), np.eye(len(bias), dtype=np.float32), {}
    else:
        weights, expand = (
            readout.through(torch.from_numpy(patterns.axes).to(readout.bias.device)),
            patterns.axes.T,
        )
        bias = patterns.mean - ((patterns.mean - bias) @ patterns.axes) @ expand
        about = {"patterns": len(expand), "variance_in_patterns": round(patterns.kept, 4)}
    of_layer = weights.detach().cpu()
    size = column_sizes({layer: of_layer})
    return LinearPath(
        projections={layer: as_stored(of_layer, size, "float16")},
        mixing=(size.numpy()[:, None] * expand * scale).astype(np.float32),
        intercept=(offset + scale * bias).astype(np.float32),
        shapes={layer: shape},
        about=about,
    )
