"""The two uncertainties of a response: what a trial adds to the true mean, what is not known of the mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from synbrain.arrays import Float32, Float64
from synbrain.features.tokens import TokenSet
from synbrain.noise.image_distance import ImageDistance

Source = Literal["repeats", "residuals", "base subjects"]
LEAST_GROWTH = 0.1  # of the variance of an image's mean, over that of images on average


class NoiseRecord(BaseModel):
    """How both uncertainties were fitted, and how well intervals cover out of fold on training images."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    source: Source = Field(
        description="what parts the two: repeats of images; the proportion that base subjects have; or the "
        "residuals alone, of which the part that grows with an image's distance is taken as error of the mean"
    )
    n_images: int
    n_trials: int
    trial_factors: int = Field(0, description="patterns that trials share")
    error_factors: int = Field(0, description="patterns that errors of the mean share")
    held_out_log_density_by_factors: dict[str, float] = Field(default_factory=dict)
    error_over_trial_variance: float = Field(0.0, ge=0, description="of the median voxel")
    error_kept: bool = Field(False, description="the error of the mean is that of an older fit")
    growth_with_distance: float = Field(0.0, description="of the mean's variance; 1: in proportion")
    coverage_50: float | None = Field(None, description="of 50 % intervals of single trials")
    coverage_90: float | None = Field(None, description="of 90 % intervals of single trials")


@dataclass(frozen=True)
class TrialNoise:
    """A trial of voxel v of an image with true mean m: ``m + sd_v(m) * warp_v(z_v)``, z correlated normals.

    ``z = loadings @ f + sqrt(unique) * e`` with f, e standard normal, so that z has unit variance;
    ``sd_v(m)^2 = max(base_v + slope_v * m, floor_v)`` (counts: variance grows with the mean; the common
    factor then acts as a gain). ``warp_v`` is that of :mod:`synbrain.noise.margins`.

    Attributes:
        loadings: (n_voxels, k) float32; row sums of squares plus ``unique`` are 1.
        unique: (n_voxels,) float32, positive.
        base, slope, floor: (n_voxels,) float32, variance within an image (unit^2, unit, unit^2).
        skew, tail: (n_voxels,) float32, shape of the margin; tail below 1 is flatter than a normal.
    """

    loadings: Float32
    unique: Float32
    base: Float32
    slope: Float32
    floor: Float32
    skew: Float32
    tail: Float32

    def variance(self, mean: NDArray[Any]) -> Float32:
        """(..., n_voxels) float32, variance of trials around the true ``mean`` (..., n_voxels)."""
        return np.asarray(np.maximum(self.base + self.slope * mean, self.floor), dtype=np.float32)

    def correlation(self) -> Float32:
        """(n_voxels, n_voxels) float32, correlation of z between voxels; for few voxels only."""
        return np.asarray(self.loadings @ self.loadings.T + np.diag(self.unique), dtype=np.float32)


@dataclass(frozen=True)
class MeanError:
    """What is not known of the mean: ``true mean - predicted mean``, normal, low rank over voxels.

    Its covariance at image x is ``growth(x) * sd (L L' + diag(unique)) sd``, and
    ``growth(x) = max(1 + slope * (v(x) - 1), LEAST_GROWTH)``: kernel ridge's predictive variance v is 1 for
    an image as far from the training images as those are from each other.

    Attributes:
        sd: (n_voxels,) float32, in the unit of the responses; of an image of v = 1.
        loadings: (n_voxels, k) float32; row sums of squares plus ``unique`` are 1.
        unique: (n_voxels,) float32.
        slope: growth of the variance with v.
        distance: gives v; None: errors are taken to be as large everywhere.
    """

    sd: Float32
    loadings: Float32
    unique: Float32
    slope: float = 0.0
    distance: ImageDistance | None = None

    @classmethod
    def none(cls, n_voxels: int) -> Self:
        """Of a mean that is taken to be known."""
        zeros = np.zeros(n_voxels, dtype=np.float32)
        return cls(zeros, np.zeros((n_voxels, 0), dtype=np.float32), zeros + 1)

    def growth(self, tokens: TokenSet) -> Float64:
        """(n_images,) factor on the variance of the mean's error for each image."""
        if self.distance is None or self.slope == 0:
            return np.ones(len(tokens))
        return self.growth_at(self.distance.of(tokens))

    def sd_of_means(self, weights: Float32) -> Float64:
        """(n_means,) sd of the error of weighted means over voxels, of an image of v = 1.

        ``w' C w`` with the covariance C above: errors of voxels go together, so that an ROI's mean is known
        less well than its size alone would say.

        Args:
            weights: (n_voxels, n_means), such as those of :func:`synbrain.model.request.roi_means`.
        """
        scaled = self.sd[:, None].astype(np.float64) * weights
        shared = np.sum((self.loadings.T @ scaled) ** 2, axis=0)
        return np.asarray(np.sqrt(shared + self.unique @ scaled**2))

    def growth_at(self, distance: Float64) -> Float64:
        """:meth:`growth` of images at these values of v."""
        return growth(distance, self.slope)


def growth(distance: Float64, slope: float) -> Float64:
    """(n_images,) ``max(1 + slope * (v - 1), LEAST_GROWTH)``."""
    return np.maximum(1 + slope * (distance - 1), LEAST_GROWTH)


def correlated_normals(loadings: Float32, unique: Float32, n: int, seed: list[int]) -> Float32:
    """(n, n_voxels) float32, normals of covariance ``L L' + diag(u)``."""
    rank = loadings.shape[1]
    rng = np.random.Generator(np.random.SFC64(seed))
    draws = rng.standard_normal((n, rank + len(unique)), dtype=np.float32)
    z = draws[:, :rank] @ loadings.T
    z += draws[:, rank:] * np.sqrt(unique)
    return np.asarray(z)
