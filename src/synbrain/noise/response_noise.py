"""Trial-to-trial variability: low-rank plus diagonal noise whose scale depends on the mean."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from synbrain.arrays import Float32
from synbrain.files import atomic_path, read_json, write_json
from synbrain.metrics.low_rank import log_density

CONFIG, WEIGHTS = "config.json", "model.safetensors"


Source = Literal["repeats", "residuals", "base subjects"]


@dataclass(frozen=True)
class ResponseNoise:
    """A trial of voxel v of an image with mean m: ``m + sd_v(m) * warp_v(z_v)``, z correlated normals.

    ``z = loadings @ f + sqrt(unique) * e`` with f, e standard normal, so that z has unit variance;
    ``sd_v(m)^2 = inflation_v * max(base_v + slope_v * m, floor_v)`` (counts: variance grows with the
    mean; the common factor then acts as a gain). ``warp_v`` gives the margin its shape: the sinh-arcsinh
    transform ``sinh(tail * asinh(z) + skew)`` (Jones and Pewsey 2009, Biometrika 96, eq. 2) brought to mean
    0 and variance 1; the identity at skew 0 and tail 1. So samples average to m exactly.

    Attributes:
        loadings: (n_voxels, k) float32; row sums of squares plus ``unique`` are 1.
        unique: (n_voxels,) float32, positive.
        base, slope, floor: (n_voxels,) float32, variance within an image (unit^2, unit, unit^2).
        inflation: (n_voxels,) float32, what an imperfect mean adds, as a factor on the variance.
        skew, tail: (n_voxels,) float32, shape of the margin; tail below 1 is flatter than a normal.
        signal_variance: (n_voxels,) float32, variance over images of the true mean (unit^2); with
            ``noise_variance`` it gives the noise ceiling.
        noise_variance: (n_voxels,) float32, trial variance within an image, averaged over images.
        about: how it was fitted, on how many trials; for people to read.
        source: what told trial noise from errors of the mean: "repeats" of images, nothing (then both are
            in the "residuals"), or the ratio of "base subjects".
        variance_needed: variance around a cross-fitted mean over variance within images, median voxel.
    """

    loadings: Float32
    unique: Float32
    base: Float32
    slope: Float32
    floor: Float32
    inflation: Float32
    skew: Float32
    tail: Float32
    signal_variance: Float32
    noise_variance: Float32
    about: Mapping[str, Any]
    source: Source = "residuals"
    variance_needed: float = 1.0

    @property
    def n_voxels(self) -> int:
        return len(self.unique)

    def variance(self, mean: NDArray[Any]) -> Float32:
        """(..., n_voxels) float32, variance of trials around ``mean`` (..., n_voxels)."""
        return np.asarray(
            self.inflation * np.maximum(self.base + self.slope * mean, self.floor), dtype=np.float32
        )

    def correlation(self) -> NDArray[np.float32]:
        """(n_voxels, n_voxels) float32, correlation of z between voxels; for few voxels only."""
        return np.asarray(self.loadings @ self.loadings.T + np.diag(self.unique), dtype=np.float32)

    def sample(self, mean: Float32, n_samples: int, seed: int, first_image: int = 0) -> Float32:
        """Draw trials.

        Image i has a generator of its own, made of ``seed`` and ``first_image + i``: images may be
        drawn in any batches, and the first samples do not depend on how many follow.

        Args:
            mean: (n_images, n_voxels) float32.
            n_samples: trials per image.
            seed: non-negative.
            first_image: position of ``mean[0]`` in the whole list of images.

        Returns:
            (n_samples, n_images, n_voxels) float32.
        """
        n_images, n_voxels = mean.shape
        rank = self.loadings.shape[1]
        sd = np.sqrt(self.variance(mean))
        unique_sd = np.sqrt(self.unique)
        trials = np.empty((n_samples, n_images, n_voxels), dtype=np.float32)
        bend = warper(self.skew, self.tail)
        for image in range(n_images):
            rng = np.random.Generator(np.random.SFC64([seed, first_image + image]))
            draws = rng.standard_normal((n_samples, rank + n_voxels), dtype=np.float32)
            z = draws[:, :rank] @ self.loadings.T
            z += draws[:, rank:] * unique_sd
            trials[:, image] = mean[image] + sd[image] * bend(z)
        return trials

    def log_prob(self, mean: Float32, responses: Float32) -> NDArray[np.float64]:
        """(n,) float64, log density of ``responses`` (n, n_voxels) around ``mean`` (n, n_voxels).

        Solved through the k x k matrix of the low-rank part (Woodbury), so no n_voxels^2 array is made.
        """
        sd = np.sqrt(self.variance(mean).astype(np.float64))
        z, log_slope = unwarp((responses - mean) / sd, self.skew, self.tail)
        density = log_density(z, self.loadings, self.unique)
        return np.asarray(density + np.sum(log_slope - np.log(sd), axis=1))

    def noise_ceiling(self, n_repeats: int = 1) -> Float32:
        """(n_voxels,) float32, share of variance that the true mean explains of ``n_repeats``-trial means."""
        total = self.signal_variance + self.noise_variance / n_repeats
        return np.asarray(self.signal_variance / np.maximum(total, 1e-30), dtype=np.float32)

    def save(self, folder: Path) -> list[str]:
        """Write the noise into ``folder`` and return the file names written."""
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: np.ascontiguousarray(getattr(self, name), dtype=np.float32) for name in _TENSORS}
        with atomic_path(folder / WEIGHTS) as partial:
            save_file(tensors, partial)
        content = {"source": self.source, "variance_needed": self.variance_needed, "about": dict(self.about)}
        write_json(folder / CONFIG, content)
        return [CONFIG, WEIGHTS]

    @classmethod
    def load(cls, folder: Path) -> ResponseNoise:
        """Read a noise that :meth:`save` wrote."""
        tensors = load_file(folder / WEIGHTS)
        content = read_json(folder / CONFIG)
        values: dict[str, Any] = {name: tensors[name] for name in _TENSORS} | content
        return cls(**values)


_TENSORS = (
    "loadings",
    "unique",
    "base",
    "slope",
    "floor",
    "inflation",
    "skew",
    "tail",
    "signal_variance",
    "noise_variance",
)
_NODES, _NODE_WEIGHTS = np.polynomial.hermite_e.hermegauss(60)


def _bend(z: NDArray[Any], skew: NDArray[Any], tail: NDArray[Any]) -> NDArray[Any]:
    # sinh and asinh by log and exp, which numpy vectorises: ten times faster than the functions themselves
    grown = np.exp(tail * np.log(z + np.sqrt(z * z + 1)) + skew)
    return np.asarray((grown - 1 / grown) / 2)


def warp_moments(skew: NDArray[Any], tail: NDArray[Any]) -> tuple[NDArray[np.float64], ...]:
    """Mean, sd and skewness (n_voxels,) float64 of ``sinh(tail * asinh(z) + skew)``, z standard normal."""
    bent = _bend(_NODES[:, None], np.asarray(skew, np.float64)[None], np.asarray(tail, np.float64)[None])
    share = _NODE_WEIGHTS / _NODE_WEIGHTS.sum()
    mean = share @ bent
    sd = np.sqrt(share @ (bent - mean) ** 2)
    return mean, sd, share @ ((bent - mean) / sd) ** 3


def warp(z: NDArray[Any], skew: NDArray[Any], tail: NDArray[Any]) -> NDArray[Any]:
    """Standard normals (..., n_voxels) to residuals of mean 0 and variance 1, in the dtype of ``z``."""
    return warper(skew, tail, z.dtype)(z)


def warper(
    skew: NDArray[Any], tail: NDArray[Any], dtype: Any = np.float32
) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """:func:`warp` for many calls: its moments are computed once."""
    if not np.any(skew) and np.all(tail == 1):
        return lambda z: z
    mean, sd, _ = (moment.astype(dtype) for moment in warp_moments(skew, tail))
    skew, tail = skew.astype(dtype), tail.astype(dtype)
    return lambda z: np.asarray((_bend(z, skew, tail) - mean) / sd)


def unwarp(
    residuals: NDArray[Any], skew: NDArray[Any], tail: NDArray[Any]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Inverse of :func:`warp` and the log of its slope dz/dresidual, both (..., n_voxels) float64."""
    mean, sd, _ = warp_moments(skew, tail)
    bent = residuals * sd + mean
    inner = (np.arcsinh(bent) - skew) / tail
    log_slope = np.log(np.cosh(inner) * sd / tail) - 0.5 * np.log1p(bent**2)
    return np.sinh(inner), log_slope
