"""Trial-to-trial variability of a simulated subject: gain, shared noise, drift, independent noise."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from synbrain.errors import SynBrainError
from synbrain.files import atomic_path
from synbrain.simulate.cortex import Cortex, smooth_field

NoiseLevel = Literal["low", "medium", "high"]
MEDIAN_NCSNR: dict[NoiseLevel, float] = {"low": 0.9, "medium": 0.45, "high": 0.25}
SIGNAL_SD = 0.5  # percent signal change: median over voxels of the sd over images
LOW_RANK, DRIFT_FIELDS = 8, 2
SHARE_LOW_RANK, SHARE_DRIFT = 0.3, 0.06  # of a voxel's noise variance, on average
OFFSET_SD, SLOPE_SD = 0.8, (3 * (1 - 0.8**2)) ** 0.5  # variance of offset + slope * U(-1, 1) is 1
MEAN_MAP_PEARSON = (0.65, 0.70)  # between the mean map and single trials, across voxels, at medium noise


def noise_level(name: str) -> NoiseLevel:
    """Check the name of a noise level."""
    if name not in get_args(NoiseLevel):
        raise SynBrainError(f"there is no noise level {name!r}", "choose low, medium or high")
    return name  # type: ignore[return-value]


@dataclass(frozen=True)
class TrialNoise:
    """y = gain * mean + shared @ low_rank + drifts @ drift + independent * e, in percent signal change.

    The gain of a trial is log-normal with mean 1 and multiplies the whole evoked response; shared and e
    are standard normal in every trial. A session draws an offset and a slope for each drift field;
    ``sample`` draws them anew for every trial, with a random moment in the session, which gives the
    distribution of a trial where the session is not known.

    Attributes:
        gain_log_sd: (1,) float32, sd of the log gain.
        low_rank: (LOW_RANK, n_voxels) float32, smooth over cortex.
        drift: (DRIFT_FIELDS, n_voxels) float32, smooth over cortex.
        independent: (n_voxels,) float32, sd.
    """

    gain_log_sd: NDArray[np.float32]
    low_rank: NDArray[np.float32]
    drift: NDArray[np.float32]
    independent: NDArray[np.float32]

    def gain_variance(self) -> float:
        return float(np.expm1(np.square(self.gain_log_sd[0], dtype=np.float64)))

    def variance(self, mean: NDArray[Any]) -> NDArray[np.float64]:
        """Variance of a trial around its mean (..., n_voxels), in (percent signal change) squared."""
        parts = [np.square(p, dtype=np.float64).sum(axis=0) for p in (self.low_rank, self.drift)]
        fixed = parts[0] + parts[1] + np.square(self.independent, dtype=np.float64)
        return np.asarray(fixed + self.gain_variance() * np.square(mean, dtype=np.float64))

    def add_to(
        self, mean: NDArray[Any], drifts: NDArray[np.float32], rng: np.random.Generator
    ) -> NDArray[np.float32]:
        """Noisy trials (n, n_voxels) float32 around ``mean``; ``drifts`` (n, DRIFT_FIELDS) at each trial."""
        n, sd = len(mean), self.gain_log_sd[0]
        gain = np.exp(sd * rng.standard_normal((n, 1), dtype=np.float32) - sd**2 / 2)
        trials = np.multiply(mean, gain, dtype=np.float32)
        trials += rng.standard_normal((n, len(self.low_rank)), dtype=np.float32) @ self.low_rank
        trials += drifts @ self.drift
        trials += rng.standard_normal(trials.shape, dtype=np.float32) * self.independent
        return np.asarray(trials)

    def session_drift(self, n_trials: int, rng: np.random.Generator) -> NDArray[np.float32]:
        """(n_trials, DRIFT_FIELDS) float32: a line over one session for each drift field."""
        offset = OFFSET_SD * rng.standard_normal((1, len(self.drift)))
        slope = SLOPE_SD * rng.standard_normal((1, len(self.drift)))
        return np.asarray(offset + slope * np.linspace(-1, 1, n_trials)[:, None], dtype=np.float32)

    def sample(self, mean: NDArray[Any], rng: np.random.Generator) -> NDArray[np.float32]:
        """Trials (n, n_voxels) float32 from sessions that are not known."""
        shape = (len(mean), len(self.drift))
        moment = rng.uniform(-1, 1, (len(mean), 1))
        drifts = OFFSET_SD * rng.standard_normal(shape) + SLOPE_SD * rng.standard_normal(shape) * moment
        return self.add_to(mean, drifts.astype(np.float32), rng)

    def save(self, path: Path) -> None:
        with atomic_path(path) as partial, partial.open("wb") as handle:
            np.savez(handle, **{f.name: getattr(self, f.name) for f in fields(self)})

    @classmethod
    def load(cls, path: Path) -> TrialNoise:
        with np.load(path, allow_pickle=False) as stored:
            return cls(**{f.name: stored[f.name] for f in fields(cls)})


@dataclass(frozen=True)
class Strengths:
    """Scales of one subject's responses, each (n_voxels,) float32, percent signal change.

    Attributes:
        baseline: mean over images (the static mean map); signal: sd over images.
        ncsnr: signal over the noise sd averaged over images.
    """

    baseline: NDArray[np.float32]
    signal: NDArray[np.float32]
    ncsnr: NDArray[np.float32]


def make_noise(rng: np.random.Generator, cortex: Cortex, level: NoiseLevel) -> tuple[Strengths, TrialNoise]:
    """Draw a subject's signal strengths, mean map and noise; the level scales the noise alone."""
    n, mm = cortex.n_voxels, cortex.mm
    quality = np.exp(rng.normal(0, 0.08))  # some subjects are less noisy than others
    area = np.where(cortex.prf > 0, 1.3, np.where(sum(cortex.floc.values()) > 0, 1.2, 0.75))
    spread = np.log(area) + 0.3 * smooth_field(rng, mm, 10.0, 1)[0] + 0.35 * rng.normal(size=n)
    medium = MEDIAN_NCSNR["medium"] * quality * np.exp(spread - np.median(spread))
    medium = np.minimum(medium, 1.3)
    signal = SIGNAL_SD * np.exp(0.35 * rng.normal(size=n) + 0.5 * spread)
    total = np.square(signal / medium)  # noise variance at the medium level
    scale = np.square(MEDIAN_NCSNR["medium"] / MEDIAN_NCSNR[level])

    early = np.where(cortex.prf > 0, 0.6, 0.0)
    pattern = 0.8 * smooth_field(rng, mm, 9.0, 1)[0] + 0.5 * rng.normal(size=n) + early
    pattern = (pattern - pattern.mean()) / pattern.std()
    pearson = rng.uniform(*MEAN_MAP_PEARSON)
    strength = np.sqrt(pearson**2 / (1 - pearson**2) * np.mean(total + signal**2))
    baseline = strength * (pattern + 0.7)

    gain = 0.13 * rng.uniform(0.85, 1.15) * np.sqrt(np.sqrt(scale))
    by_gain = np.expm1(gain**2) * (baseline**2 + signal**2)
    noise = scale * total
    low_rank = _shared(rng, mm, LOW_RANK, 16.0, SHARE_LOW_RANK, noise)
    low_rank[0] = np.abs(low_rank[0]).mean() * np.sqrt(noise / noise.mean())  # one field spans the cortex
    drift = _shared(rng, mm, DRIFT_FIELDS, 25.0, SHARE_DRIFT, noise)
    rest = noise - by_gain - np.square(low_rank).sum(axis=0) - np.square(drift).sum(axis=0)
    independent = np.sqrt(np.maximum(rest, 0.2 * noise))
    small = np.float32
    trial_noise = TrialNoise(
        np.array([gain], dtype=small), low_rank.astype(small), drift.astype(small), independent.astype(small)
    )
    variance = trial_noise.variance(np.sqrt(baseline**2 + signal**2))
    return Strengths(
        baseline.astype(small), signal.astype(small), (signal / np.sqrt(variance)).astype(small)
    ), trial_noise


def _shared(
    rng: np.random.Generator,
    mm: NDArray[np.float64],
    rank: int,
    length: float,
    share: float,
    noise: NDArray[Any],
) -> NDArray[np.float64]:
    """Smooth fields whose squares sum to ``share`` of the noise variance on average."""
    return np.asarray(smooth_field(rng, mm, length, rank) * np.sqrt(share * noise / rank))
