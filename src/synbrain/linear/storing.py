"""How weights are stored, and whether what is stored still predicts what was fitted.

Cross-validation judges fits, not what is kept of them: a map that lost voxels on its way to its stored form
looks as good as before, so its predictions are held against those of the fit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from synbrain.arrays import Float32, Rows
from synbrain.errors import SynBrainError
from synbrain.features.scale import CONSTANT
from synbrain.metrics.voxel import blocks

# Of the norm of a layer's weights: rounding to float16 loses 2e-4 of it where they are near to 1, and more
# the nearer they come to 6e-8, the smallest number it has. Beyond this they stay float32.
COARSE = 1e-3
LOOKED_AT = 4096  # rows of a layer, by which float16 is judged
CHECKED = 32  # images whose predictions are compared
# A voxel is lost where its predictions are off by more than this share of their sd; rounding and patterns
# that are cut change them by some per cent at most (tests/linear/test_stored.py).
LOST = 0.3
LOST_VOXELS = 0.01  # of those that anything is predicted for


def some_images(n_images: int, most: int = CHECKED) -> Rows:
    """At most ``most`` of the images, evenly spaced."""
    return np.unique(np.linspace(0, n_images - 1, min(n_images, most)).round().astype(np.int64))


def voxel_sd(y: NDArray[np.floating]) -> Float32:
    """(n_voxels,) sd of responses (n_images, n_voxels) over some 500 of the images; 1 where constant."""
    some = y[some_images(len(y), 500)]
    sd = some.std(axis=0)
    return np.where(sd > CONSTANT * np.abs(some[0]), sd, 1).astype(np.float32)


def column_sizes(weights: Mapping[str, Tensor]) -> Tensor:
    """(r,) the largest absolute value of each column over all layers; 1 for a column of zeros.

    float16 holds 6e-8 to 65504: columns over their size are at most 1, and what they are multiplied by
    afterwards takes the rest.
    """
    each = [torch.maximum(w.amax(dim=0), -w.amin(dim=0)) for w in weights.values()]
    size = torch.stack(each).amax(dim=0)
    return torch.where(size > 0, size, 1)


def as_stored(
    weights: Tensor,
    size: Tensor,
    dtype: str,
    empty: Callable[[tuple[int, ...], str], NDArray[Any]] = np.empty,
) -> NDArray[Any]:
    """``weights / size`` (k, r) in ``dtype``; in float32 where float16 would be too coarse for this layer.

    That happens where another layer's tokens are many times smaller, so that its weights are larger.
    ``empty`` says where the result lies.
    """
    if dtype == "float16" and _is_too_coarse(weights, size):
        dtype = "float32"
    out = empty(tuple(weights.shape), dtype)
    for rows in blocks(*weights.shape):
        scaled = weights[rows] / size
        out[rows] = (scaled.half() if dtype == "float16" else scaled).cpu().numpy()
    return out


def _is_too_coarse(weights: Tensor, size: Tensor) -> bool:
    """Whether float16 loses more than ``COARSE`` of ``weights / size``, on rows evenly spaced over the layer.

    Layers are large: a second pass over all rows would be half of the work of storing them.
    """
    some = torch.from_numpy(some_images(len(weights), LOOKED_AT)).to(weights.device)
    scaled = weights[some] / size
    lost = (scaled - scaled.half()).square().sum(dtype=torch.float64)
    return bool(lost > COARSE**2 * scaled.square().sum(dtype=torch.float64))


def require_kept(stored: NDArray[np.floating], fitted: NDArray[np.floating], unit: Float32) -> None:
    """See that a stored map predicts what was fitted.

    Args:
        stored, fitted: (n_images, n_voxels) predictions of the same images, which may differ by a constant.
        unit: (n_voxels,) sd of the responses; a voxel whose predictions vary less than a per cent of it is
            not looked at.

    Raises:
        SynBrainError: where more than a per cent of the voxels that are predicted came out otherwise.
    """
    spread = fitted.std(axis=0, dtype=np.float64)
    off = (stored - fitted).std(axis=0, dtype=np.float64)
    known = spread > 0.01 * unit
    finite = np.isfinite(spread).all() and np.isfinite(stored).all()
    lost = int(np.sum(~(off <= LOST * spread) & known)) if finite else len(spread)
    if lost > LOST_VOXELS * max(1, int(known.sum())):
        raise SynBrainError(
            f"the stored linear path does not predict what was fitted for {lost} of {len(spread)} voxels",
            "this is a fault of SynBrain: please report it, with the sizes of the data",
        )
