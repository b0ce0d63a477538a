"""What can be wrong with the numbers themselves: units, broken or copied sessions, counts."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from synbrain.arrays import Float64
from synbrain.check.evidence import choose_voxels, session_z, sessions_of
from synbrain.data.dataset import Dataset
from synbrain.data.scaling import RAW_PER_PERCENT, REFERENCE_DIVISOR
from synbrain.data.units import UNITS
from synbrain.prepare.nsd import layout as nsd_layout

# Percent signal change of single trials: the median voxel's sd is near 1 in NSD, and the whole BOLD response
# of visual cortex is a few percent. Nothing physiological reaches 20; betas left at x 300 are near 300.
IMPOSSIBLE_PERCENT = 20.0
SD_FACTOR = 2.0  # a session whose typical sd is half or double the others' is broken
MEAN_SHIFT = 1.0  # ... or whose typical voxel mean is one single-trial sd off
ROBUST_Z = 6.0  # and it must stand out of the sessions' own spread (median absolute deviation)
COPIED = 0.9  # correlation of trial noise; independent recordings are near 0, copies at 1
FEW_VOXELS, BLOCK_TRIALS = 10, 750


@dataclass(frozen=True)
class Moments:
    """Per session and voxel: mean and sd (n_sessions, n_voxels); values that are not finite, by session."""

    sessions: list[int]
    mean: Float64
    sd: Float64
    not_finite: NDArray[np.int64]


def moments_of(dataset: Dataset) -> Moments:
    """One pass over the responses, a session at a time."""
    numbers, index = sessions_of(dataset)
    shape = (len(numbers), dataset.n_voxels)
    mean, sd, bad = np.zeros(shape), np.zeros(shape), np.zeros(len(numbers), dtype=np.int64)
    for row in range(len(numbers)):
        values = np.asarray(dataset.responses[np.flatnonzero(index == row)])
        finite = np.isfinite(values)
        bad[row] = int((~finite).sum())
        values = np.where(finite, values, 0.0) if bad[row] else values
        mean[row], sd[row] = values.mean(axis=0, dtype=np.float64), values.std(axis=0, dtype=np.float64)
    return Moments(numbers, mean, sd, bad)


@dataclass(frozen=True)
class SessionBreak:
    """A session that stands out: ``what`` is "variance", "mean", "constant" or "not finite"."""

    session: int
    what: str
    value: float


def find_breaks(moments: Moments) -> list[SessionBreak]:
    """Sessions whose numbers break: not finite, constant, or of another scale or offset than the others.

    The typical voxel counts: the median over voxels of log sd and of the mean (in single-trial sd), each
    against the median over sessions. A session breaks where it is off by a factor of two, or by one sd, and
    by six robust sd of the sessions' own spread (from four sessions on; two sessions show a factor of four).
    """
    breaks = [
        SessionBreak(number, "not finite", float(n))
        for number, n in zip(moments.sessions, moments.not_finite, strict=True)
        if n
    ]
    alive = moments.sd.max(axis=0) > 0
    if not alive.any():
        return [*breaks, *(SessionBreak(number, "constant", 1.0) for number in moments.sessions)]
    mean, sd = moments.mean[:, alive], moments.sd[:, alive]
    still = (sd <= 1e-9 * np.median(sd, axis=0)).mean(axis=1)
    constant = still > 0.5  # of the voxels that vary in other sessions
    breaks += [
        SessionBreak(moments.sessions[i], "constant", float(still[i])) for i in np.flatnonzero(constant)
    ]
    if (~constant).sum() < 2:
        return breaks
    kept, usual = np.flatnonzero(~constant), np.maximum(np.median(sd[~constant], axis=0), 1e-12)
    log_sd = np.log(np.maximum(sd[kept], 1e-12 * usual)) - np.log(usual)
    shift = (mean[kept] - np.median(mean[kept], axis=0)) / usual
    scale, offset = np.median(log_sd, axis=1), np.median(np.abs(shift), axis=1)
    for i in _outliers(scale, np.log(SD_FACTOR)):
        breaks.append(SessionBreak(moments.sessions[kept[i]], "variance", float(np.exp(scale[i]))))
    off_variance = {b.session for b in breaks if b.what == "variance"}
    for i in _outliers(offset, MEAN_SHIFT, centre=0.0):
        if moments.sessions[kept[i]] not in off_variance:  # a wrong scale moves the mean as well
            breaks.append(SessionBreak(moments.sessions[kept[i]], "mean", float(offset[i])))
    return breaks


def _outliers(values: Float64, least: float, centre: float | None = None) -> NDArray[np.int64]:
    around = np.median(values)
    off = np.abs(values - (around if centre is None else centre))
    spread = 1.4826 * np.median(np.abs(values - around)) if len(values) >= 4 else 0.0
    return np.flatnonzero((off > least) & (np.abs(values - around) > ROBUST_Z * spread))


@dataclass(frozen=True)
class UnitGuess:
    """What the numbers look like.

    Attributes:
        looks: "integers" (int16 as stored), "percent", "reference", "z-scored" or "unknown".
        wrong: what contradicts the unit that the dataset states, or "".
        sd: median over sessions of the median over voxels of the sd over trials.
    """

    looks: str
    wrong: str
    sd: float


def recognise_unit(dataset: Dataset, moments: Moments, seed: int = 0) -> UnitGuess:
    """Tell the unit from the numbers: their grid (int16 / 300, int16 / 2000, whole), or their moments.

    Args:
        dataset: its stated unit is what :data:`synbrain.data.scaling.UNITS` calls it; of another unit
            (spike counts) nothing is claimed.
        moments: from :func:`moments_of`.
        seed: of the trials looked at.
    """
    stated = next((kind for kind, unit in UNITS.items() if unit == dataset.info.unit), None)
    if stated is None and "percent" in dataset.info.unit.lower():
        stated = "percent"
    if stated is None and "z-score" in dataset.info.unit.lower():
        stated = "session-zscore"
    sd = float(np.median(np.median(moments.sd, axis=1)))  # of the typical session: one may be broken
    rows = np.sort(np.random.default_rng(seed).permutation(dataset.n_trials)[:200])
    sample = np.asarray(dataset.responses[rows], dtype=np.float64)
    sample = sample[np.isfinite(sample) & (sample != 0)]
    whole = _on_grid(sample, 1.0)
    looks = "unknown"
    if whole and sd > IMPOSSIBLE_PERCENT:
        looks = "integers"
    elif _is_z_scored(dataset):
        looks = "z-scored"
    elif _on_grid(sample, float(RAW_PER_PERCENT)) and not whole:
        looks = "percent"
    elif _on_grid(sample, float(REFERENCE_DIVISOR)) and not whole:
        looks = "reference"
    return UnitGuess(looks, _contradiction(stated, looks, sd, dataset.info.unit), sd)


def _contradiction(stated: str | None, looks: str, sd: float, unit: str) -> str:
    if stated is None:
        return ""
    expected = {"percent": "percent", "session-zscore": "z-scored", "reference": "reference"}[stated]
    if looks == "integers":
        return f"the values are whole numbers with sd {sd:.0f}: int16 betas that were not divided by 300"
    if stated == "session-zscore" and looks != "z-scored":
        return f"said to be {unit}, but sessions are not at mean 0 and sd 1 over their training trials"
    if stated != "session-zscore" and looks == "z-scored":
        return f"said to be {unit}, but every session is at mean 0 and sd 1: these are z-scores"
    if looks not in ("unknown", expected):
        return f"said to be {unit}, but the values lie on the grid of {looks} ({_grid(looks)})"
    limit = IMPOSSIBLE_PERCENT * (0.15 if stated == "reference" else 1.0)
    if stated != "session-zscore" and sd > limit:
        return f"said to be {unit}, but the typical voxel's sd is {sd:.3g}: betas left at x 300?"
    return ""


def _grid(looks: str) -> str:
    return {"percent": "int16 / 300", "reference": "int16 / 2000"}[looks]


def _on_grid(values: Float64, steps: float) -> bool:
    """Whether all values times ``steps`` are whole numbers, to float32's precision."""
    if len(values) == 0:
        return False
    scaled = values * steps
    tolerance = np.maximum(1e-3, 4 * np.abs(scaled) * np.finfo(np.float32).eps)
    return bool((np.abs(scaled - np.rint(scaled)) < tolerance).mean() > 0.999)


def _is_z_scored(dataset: Dataset) -> bool:
    """Mean 0 and sd 1 over the training trials (or all) of each session, in nearly all voxels."""
    _, index = sessions_of(dataset)
    train = (dataset.trials["split"] == "train").to_numpy()
    for fitting in (train, np.ones(len(train), dtype=bool)):
        good = []
        for number in range(int(index.max()) + 1):
            rows = np.flatnonzero((index == number) & fitting)
            if len(rows) < 3:
                continue
            values = np.asarray(dataset.responses[rows])
            mean, sd = values.mean(axis=0, dtype=np.float64), values.std(axis=0, dtype=np.float64)
            alive = sd > 0
            tolerance = max(1.0 / len(rows), 1e-3)  # allows either divisor, n or n - 1
            fits = (np.abs(mean) < 1e-3) & (np.abs(sd - 1) < tolerance)
            good.append(float(fits[alive].mean()) if alive.any() else 0.0)
        if good and min(good) > 0.9:
            return True
    return False


@dataclass(frozen=True)
class Copy:
    """Two sessions (or datasets) that hold the same recording."""

    first: str
    second: str
    similarity: float


def find_copied_sessions(dataset: Dataset) -> list[Copy]:
    """Pairs of sessions whose trials correlate across voxels as only copies do (scale does not matter)."""
    numbers, index = sessions_of(dataset)
    voxels = choose_voxels(dataset)[:300]
    unit: list[NDArray[np.float32]] = []
    for row in range(len(numbers)):
        z = session_z(np.asarray(dataset.responses[np.flatnonzero(index == row)])[:, voxels])
        unit.append((z / max(float(np.linalg.norm(z)), 1e-12)).astype(np.float32))
    copies = []
    for i in range(len(unit)):
        for j in range(i + 1, len(unit)):
            n = min(len(unit[i]), len(unit[j]))
            a, b = unit[i][:n], unit[j][:n]
            size = float(np.linalg.norm(a)) * float(np.linalg.norm(b))
            r = float((a * b).sum()) / size if size > 0 else 0.0
            if n > 1 and r > COPIED:
                copies.append(Copy(f"session {numbers[i]}", f"session {numbers[j]}", r))
    return copies


def find_copied_trials(dataset: Dataset) -> list[tuple[int, int]]:
    """Pairs of trials (rows), of one session or of two, whose responses are the same to the last bit."""
    voxels = choose_voxels(dataset)[:100]
    if len(voxels) < FEW_VOXELS:  # few values coincide by chance
        return []
    seen: dict[bytes, int] = {}
    copies = []
    for start in range(0, dataset.n_trials, BLOCK_TRIALS):
        block = np.asarray(dataset.responses[start : start + BLOCK_TRIALS])[:, voxels]
        for row, value in enumerate(np.ascontiguousarray(block), start=start):
            if len(np.unique(value)) <= len(voxels) // 2:  # counts of units, which coincide too
                continue
            other = seen.setdefault(hashlib.blake2b(value.tobytes(), digest_size=16).digest(), row)
            if other != row:
                copies.append((other, row))
    return copies


def voxel_fingerprints(dataset: Dataset, n_trials: int = 32) -> set[bytes]:
    """One digest per voxel of its first trials' course, free of scale and offset.

    Two different recordings share none; copies share nearly all, whatever their unit, voxel order or mask.
    """
    _, index = sessions_of(dataset)
    rows = np.flatnonzero(index == 0)[:n_trials]
    values = np.asarray(dataset.responses[rows], dtype=np.float64)
    if len(rows) < 8:
        return set()
    values -= values.mean(axis=0)
    sd = values.std(axis=0)
    good = np.isfinite(sd) & (sd > 0)
    # Distinct values guard against counts, whose short courses may coincide.
    good &= np.array([len(np.unique(column)) > len(rows) // 2 for column in values.T])
    # Coarse rounding, so that another unit's float rounding seldom changes a digest.
    rounded = np.rint(values[:, good] / sd[good] * 50).astype(np.int16)
    return {hashlib.blake2b(column.tobytes(), digest_size=12).digest() for column in rounded.T}


def same_recording(first: set[bytes], second: set[bytes]) -> float:
    """Share of the smaller set of fingerprints that the other has too."""
    smaller = min(len(first), len(second))
    return len(first & second) / smaller if smaller else 0.0


def compare_counts(dataset: Dataset) -> list[str] | None:
    """Counts that contradict NSD's published ones; None where the dataset does not come from NSD itself.

    Fewer sessions than published are no contradiction: they may have been asked for.
    """
    origin = dataset.info.nsd
    if origin is None:
        return None
    odd = [str(note) for note in dataset.info.provenance.get("notes", []) if "published" in str(note)]
    n_sessions, published = origin.n_sessions, nsd_layout.SESSIONS[origin.subject - 1]
    if n_sessions > published and not odd:
        odd.append(f"{n_sessions} sessions, {published} are published")
    n_trials, trials_published = dataset.n_trials, n_sessions * nsd_layout.N_PER_SESSION
    if n_trials > trials_published:
        odd.append(f"{n_trials} trials in {n_sessions} sessions, {trials_published} are published")
    if dataset.info.trials_per_session != nsd_layout.N_PER_SESSION:
        scanned = dataset.info.trials_per_session
        odd.append(f"{scanned} trials a session, {nsd_layout.N_PER_SESSION} published")
    repeats = np.bincount(dataset.trials["image"].to_numpy(dtype=np.int64), minlength=dataset.n_images)
    if repeats.max() > 3:
        odd.append(f"an image has {repeats.max()} trials, NSD showed none more than 3 times")
    return odd


def broken_repeats(dataset: Dataset) -> int:
    """Number of images whose ``repeat`` column does not count up in the order of their trials."""
    trials = dataset.trials
    ordered = trials.groupby("image")["repeat"].agg(lambda r: bool((np.diff(r.to_numpy()) > 0).all()))
    return int((~ordered.astype(bool)).sum())
