"""The voxels whose noise can be fitted, and the unit that each is fitted in.

Variances are kept above fixed small numbers, and a voxel that never varies, or by next to nothing, divides by
them: a single one took all images' errors for its own, so that intervals no longer grew with an image's
distance.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from synbrain.arrays import Float32, Float64, Mask
from synbrain.features.scale import CONSTANT, Scale
from synbrain.features.tokens import Pairs
from synbrain.metrics.voxel import power_of_two
from synbrain.noise.parts import MeanError, TrialNoise
from synbrain.noise.response_noise import ResponseNoise

USUAL = 1e-3, 1e6  # sd of responses that are fitted as they are
STILL = 1e-6  # sd of the trials of a voxel that never varies, in those of the usual voxel, at least


@dataclass(frozen=True)
class Measure:
    """What noise is fitted of, and in which units.

    Attributes:
        varies: (n_voxels,) bool, voxels whose trials vary by more than rounding.
        units: (n of these,) power of two near the sd of each, so that nothing is rounded; 1 where that is a
            usual number.
        still: (n of the others,) sd that their trials are given: next to none, but as much as a prediction of
            their constant is rounded by, or no measurement of it would be probable.
    """

    varies: Mask
    units: Float32
    still: Float64

    @classmethod
    def of(cls, pairs: Pairs) -> Measure:
        """That of the trials of ``pairs``."""
        scale = Scale.of_trials(pairs)
        varies = scale.sd > 0
        those = scale.sd[varies]
        is_usual = (those >= USUAL[0]) & (those <= USUAL[1])
        units = np.where(is_usual, 1.0, power_of_two(those)).astype(np.float32)
        usual = float(np.median(those)) if len(those) else 1.0
        return cls(varies, units, np.maximum(STILL * usual, CONSTANT * np.abs(scale.mean[~varies])))

    @property
    def is_plain(self) -> bool:
        """Whether all voxels are fitted in the unit of the responses, as they are where none varies, too."""
        return not self.varies.any() or bool(self.varies.all() and (self.units == 1).all())

    def fitted(self, pairs: Pairs, mean: Float32) -> tuple[Pairs, Float32]:
        """Trials and means of the voxels that vary, in their units."""

        def those(values: Float32) -> Float32:
            return np.ascontiguousarray(values[:, self.varies] / self.units, dtype=np.float32)

        return replace(pairs, responses=those(pairs.responses)), those(mean)

    def of_all(self, noise: ResponseNoise) -> ResponseNoise:
        """The noise of all voxels, in the unit of the responses; those that never vary have next to none."""
        trial, error, unit = noise.trial, noise.error, self.units.astype(np.float64)
        still = self.still**2

        def spread(values: NDArray[np.floating], other: float | Float64) -> Float32:
            out = np.empty((len(self.varies), *values.shape[1:]), dtype=np.float32)
            out[self.varies], out[~self.varies] = values, other
            return out

        return ResponseNoise(
            trial=TrialNoise(
                loadings=spread(trial.loadings, 0),
                unique=spread(trial.unique, 1),
                base=spread(trial.base * unit**2, still),
                slope=spread(trial.slope * unit, 0),
                floor=spread(trial.floor * unit**2, still),
                skew=spread(trial.skew, 0),
                tail=spread(trial.tail, 1),
            ),
            error=MeanError(
                sd=spread(error.sd * unit, 0),
                loadings=spread(error.loadings, 0),
                unique=spread(error.unique, 1),
                slope=error.slope,
                distance=error.distance,
            ),
            skew=spread(noise.skew, 0),
            tail=spread(noise.tail, 1),
            signal_variance=spread(noise.signal_variance * unit**2, 0),
            noise_variance=spread(noise.noise_variance * unit**2, still),
            record=noise.record,
        )
