"""Mean and sd of each voxel, by which responses are standardised."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from synbrain.arrays import Float32, Float64
from synbrain.metrics.voxel import blocks

if TYPE_CHECKING:
    from synbrain.features.tokens import Pairs

# Of a voxel's mean: an sd below it is what rounding leaves of a constant. float32 holds 7 digits, so a sum or
# a change of unit moves a constant by some 1e-7 of itself; no recorded voxel varies by less than a millionth.
CONSTANT = 1e-6


@dataclass(frozen=True)
class Scale:
    """Mean and sd of each voxel, and what standardises responses by them: z = (y - mean) / sd.

    A constant voxel is 0 in z, and its constant comes back.

    Attributes:
        mean: (n_voxels,) float64, in the dataset's unit.
        sd: (n_voxels,) float64; 0 for a voxel that is constant up to rounding (:data:`CONSTANT`).
    """

    mean: Float64
    sd: Float64

    @classmethod
    def of_trials(cls, pairs: Pairs) -> Scale:
        """Of the single trials of ``pairs``, a block of them in memory at a time."""
        parts = blocks(pairs.n_trials, pairs.n_voxels, 2**23)
        return cls._of(pairs.trial_responses(np.arange(part.start, part.stop)) for part in parts)

    @classmethod
    def of(cls, responses: NDArray[np.floating]) -> Scale:
        """Of ``responses`` (n, n_voxels)."""
        return cls._of([responses])

    @classmethod
    def raw(cls, n_voxels: int) -> Scale:
        """The scale that leaves responses as they are."""
        return cls(np.zeros(n_voxels), np.ones(n_voxels))

    @classmethod
    def _of(cls, parts: Iterable[NDArray[np.floating]]) -> Scale:
        # var = E[(y - c)^2] - (E[y] - c)^2 with c the first response, so that the squares are small and
        # little is lost in the difference
        n, shift, total, squares = 0, np.zeros(1), np.zeros(1), np.zeros(1)
        for part in parts:
            if n == 0:
                shift = part[0].astype(np.float64)
            centred = part - shift
            n += len(part)
            total = total + centred.sum(axis=0)
            squares = squares + (centred**2).sum(axis=0)
        mean = total / n
        sd = np.sqrt(np.maximum(squares / n - mean**2, 0.0))
        return cls(mean + shift, np.where(sd > CONSTANT * np.abs(mean + shift), sd, 0.0))

    @property
    def unit(self) -> Float64:
        """(n_voxels,) float64, the sd, and 1 for constant voxels: what can be divided by."""
        return np.where(self.sd > 0, self.sd, 1.0)

    def scaled(self, responses: NDArray[np.floating]) -> Float32:
        """(..., n_voxels) float32, standardised; constant voxels are 0."""
        z = (responses - self.mean.astype(np.float32)) / self.unit.astype(np.float32)
        return np.where(self.sd > 0, z, 0.0).astype(np.float32)

    def restored(self, z: NDArray[np.floating]) -> Float32:
        """(..., n_voxels) float32, from standardised responses to the dataset's unit."""
        return np.asarray(z * self.sd.astype(np.float32) + self.mean.astype(np.float32), dtype=np.float32)
