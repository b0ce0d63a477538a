"""How much of the networks' part of the mean to keep: a closed-form factor from validation images."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

ShrinkKind = Literal["none", "subject", "voxel"]


def shrink_factor(
    residual: NDArray[np.float32], networks: NDArray[np.float32], kind: ShrinkKind
) -> NDArray[np.float32]:
    """The factor in [0, 1] that makes ``|residual - factor * networks|^2`` smallest.

    Least squares without intercept: <networks, residual> / <networks, networks>, clipped. At a factor of 0
    the mean is the linear path alone, so on validation images the networks can only help.

    Args:
        residual: (n_images, n_voxels), validation responses minus the linear predictions.
        networks: (n_images, n_voxels), decoder(mapper(tokens)), in the same unit.
        kind: "subject": one factor for all voxels; "voxel": one per voxel, each drawn halfway to the common
            one, as few images fix it; "none": ones.

    Returns:
        (n_voxels,) float32.
    """
    n_voxels = residual.shape[1]
    if kind == "none":
        return np.ones(n_voxels, dtype=np.float32)
    product = np.sum(networks.astype(np.float64) * residual, axis=0)
    power = np.sum(networks.astype(np.float64) ** 2, axis=0)
    common = float(np.clip(product.sum() / max(power.sum(), 1e-30), 0.0, 1.0))
    if kind == "subject":
        return np.full(n_voxels, common, dtype=np.float32)
    own = np.clip(product / np.maximum(power, 1e-30), 0.0, 1.0)
    return np.asarray(0.5 * (own + common), dtype=np.float32)
