"""How much of the networks' part of the mean to keep: a closed-form factor from validation images."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

ShrinkKind = Literal["none", "subject", "voxel"]


def shrink_factor(
    residual: NDArray[np.float32], networks: NDArray[np.float32], kind: ShrinkKind
) -> NDArray[np.float32]:
    """A cautious factor in [0, 1] for which ``|residual - factor * networks|^2`` is expected to be smallest.

    Least squares without intercept, b = <networks, residual> / <networks, networks>, is what these images
    say. On others the expected error is smallest at the expectation of the true factor: b is drawn to 0, the
    linear path alone, by ``1 - se^2 / b^2`` (positive-part James and Stein), se its standard error over
    images. Few images, or networks that help on some and hurt on others, so leave little or nothing.

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
    products, powers = networks.astype(np.float64) * residual, networks.astype(np.float64) ** 2
    product, power = products.sum(axis=0), powers.sum(axis=0)
    common = _cautious(products.sum(axis=1), powers.sum(axis=1))
    if kind == "subject":
        return np.full(n_voxels, common, dtype=np.float32)
    per_voxel = np.clip(product / np.maximum(power, 1e-30), 0.0, 1.0)
    return np.asarray(0.5 * (per_voxel + common), dtype=np.float32)


def _cautious(products: NDArray[np.float64], powers: NDArray[np.float64]) -> float:
    """The common factor from (n_images,) products and powers, drawn to 0 by its standard error."""
    n, power = len(products), float(powers.sum())
    if n < 2 or power <= 0:
        return 0.0
    slope = float(products.sum()) / power
    squared_error = n / (n - 1) * float(np.sum((products - slope * powers) ** 2)) / power**2
    if slope <= 0 or squared_error >= slope**2:
        return 0.0
    return min(slope * (1 - squared_error / slope**2), 1.0)
