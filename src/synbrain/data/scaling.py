"""Betas as stored to the dataset's unit and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synbrain.data.dataset import Dataset
from synbrain.data.units import AnyScaling
from synbrain.describe import counted
from synbrain.errors import SynBrainError

RAW_PER_PERCENT = 300  # NSD manual: int16 = percent signal change x 300; its surface files hold percent
REFERENCE_DIVISOR = 2000  # the published training data: int16 / 2000, that is percent x 0.15
SCALING_ARRAYS = "scaling.npz"


def scaling_arrays(scaling: str) -> list[str]:
    """Files that lead back from ``scaling`` to the raw unit, of a dataset's folder."""
    return [SCALING_ARRAYS] if scaling == "session-zscore" else []


ENOUGH_VOXELS = 20


@dataclass(frozen=True)
class Scaled:
    """One session in the dataset's unit, with what undoes the scaling and what was noticed.

    Attributes:
        values: (n_trials, n_voxels) float32, finite.
        mean: (n_voxels,) float32 in percent, taken off (session-zscore; zeros otherwise).
        sd: (n_voxels,) float32 in percent, divided by (session-zscore; ones otherwise).
        missing: voxels without data in this session: zero, or not finite, in all of its trials.
        constant: voxels that are not missing, but do not vary over the fitting trials.
    """

    values: NDArray[np.float32]
    mean: NDArray[np.float32]
    sd: NDArray[np.float32]
    missing: NDArray[np.int64]
    constant: NDArray[np.int64]


@dataclass(frozen=True)
class Gaps:
    """What a session's betas lack.

    Attributes:
        trials: (n_trials,) bool, trials without any data (censored volumes).
        voxels: (n_voxels,) bool, voxels without data in all other trials.
        partial: (n_trials,) bool, trials that lack data in voxels that have it elsewhere.
    """

    trials: NDArray[np.bool_]
    voxels: NDArray[np.bool_]
    partial: NDArray[np.bool_]


def find_gaps(raw: NDArray[Any]) -> Gaps:
    """Which trials and voxels of one session hold no data: not finite, or zero throughout.

    Programs write a trial that was censored as NaN or as 0 (AFNI's 3dLSS), whatever the type of the values.

    Args:
        raw: (n_trials, n_voxels) as stored.
    """
    gaps = ~np.isfinite(raw)
    silent = gaps | (raw == 0)
    known, with_data = ~gaps.all(axis=0), ~silent.all(axis=0)
    trials = gaps[:, known].all(axis=1) if known.any() else np.ones(len(raw), dtype=bool)
    if with_data.sum() >= ENOUGH_VOXELS:  # a trial of few voxels may be 0 by chance
        trials |= silent[:, with_data].all(axis=1)
    voxels = ~known | (raw[~trials] == 0).all(axis=0)
    return Gaps(trials, voxels, gaps[:, known].any(axis=1) & ~trials)


def scale_session(
    raw: NDArray[Any], kind: AnyScaling, fitting: NDArray[np.bool_], raw_per_percent: int | None = None
) -> Scaled:
    """Bring one session's betas into the unit ``kind``.

    ``percent`` divides integers by 300 and leaves floats; ``reference`` is int16 / 2000 (percent x 0.15 for
    floats); ``session-zscore`` takes off each voxel's mean and divides by its sd over the fitting trials of
    this session. A voxel that does not vary over them is divided by 1; a voxel without data is 0. ``none``
    leaves values as stored.

    Args:
        raw: (n_trials, n_voxels), int16 x 300 or float percent signal change, without the trials that
            :func:`find_gaps` says lack data.
        kind: the unit asked for.
        fitting: (n_trials,) bool, the trials to fit on: training trials only.
        raw_per_percent: what one percent is stored as; left out, 300 for integers and 1 for floats.

    Raises:
        SynBrainError: where z-scoring has fewer than two trials to fit on, or a trial lacks some values.
    """
    gaps = find_gaps(raw)
    if gaps.partial.any():
        raise SynBrainError(
            f"{counted(int(gaps.partial.sum()), 'trial lacks', 'trials lack')} values in some voxels",
            "leave those trials out",
        )
    is_integer = raw.dtype.kind in "iu"
    n_voxels = raw.shape[1]
    values = raw.astype(np.float32)
    missing = np.flatnonzero(gaps.voxels)
    values[:, missing] = 0.0
    lowest, highest = _extremes(values, fitting)
    constant = np.setdiff1d(np.flatnonzero(lowest == highest), missing)
    mean, sd = np.zeros(n_voxels, dtype=np.float32), np.ones(n_voxels, dtype=np.float32)
    per_percent = raw_per_percent or (RAW_PER_PERCENT if is_integer else 1)
    if kind == "reference":
        values /= np.float32(REFERENCE_DIVISOR * per_percent / RAW_PER_PERCENT)
    elif kind != "none" and per_percent != 1:
        values /= np.float32(per_percent)
    if kind == "session-zscore":
        if fitting.sum() < 2:
            raise SynBrainError(
                f"a session has {counted(int(fitting.sum()), 'training trial')} to z-score it by",
                "leave that session out, or choose --scaling percent",
            )
        used = values[fitting]
        mean = used.mean(axis=0, dtype=np.float64).astype(np.float32)
        sd = used.std(axis=0, dtype=np.float64).astype(np.float32)
        sd[np.union1d(constant, missing)] = 1.0
        values -= mean
        values /= sd
    return Scaled(values, mean, sd, missing, constant)


def _extremes(
    values: NDArray[np.float32], fitting: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    used = values[fitting] if fitting.any() else values
    return used.min(axis=0), used.max(axis=0)


def invert(dataset: Dataset, values: NDArray[Any], sessions: NDArray[np.integer]) -> NDArray[np.float32]:
    """Values in the dataset's unit, measured or synthetic, as percent signal change.

    Args:
        dataset: whose ``info.scaling`` and ``scaling.npz`` are undone.
        values: (n, n_voxels) in the dataset's unit.
        sessions: (n,) the session of each row, as in ``dataset.trials["session"]``; only z-scores need it.

    Returns:
        (n, n_voxels) float32, percent signal change. For betas that were int16, ``round(300 * x)`` is
        exactly what was on disk.

    Raises:
        SynBrainError: where the dataset's scaling is not one of NSD's, or a session is unknown.
    """
    kind = dataset.info.scaling.get("kind")
    taken = np.asarray(values, dtype=np.float32)
    if kind == "percent":
        return taken
    if kind == "reference":
        return taken * np.float32(REFERENCE_DIVISOR / RAW_PER_PERCENT)
    if kind != "session-zscore":
        raise SynBrainError(
            f"{dataset.path} has no scaling to undo ({kind})", "its values are in its source's unit"
        )
    with np.load(dataset.path / SCALING_ARRAYS, allow_pickle=False) as arrays:
        known, mean, sd = arrays["session"], arrays["mean"], arrays["sd"]
    position = np.searchsorted(known, sessions)
    if (position >= len(known)).any() or (known[np.minimum(position, len(known) - 1)] != sessions).any():
        raise SynBrainError(
            f"rows name sessions that are not among {known.tolist()}", "take sessions from dataset.trials"
        )
    return np.asarray(taken * sd[position] + mean[position], dtype=np.float32)
