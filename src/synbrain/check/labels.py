"""Do the labels fit the responses: session by session, against shuffles, shifts and other sessions' labels.

Every decision is a test with a family-wise error of ``ALPHA`` per kind of check and dataset.
A session is reported only on positive evidence: other labels fit it significantly better, or its evidence is
significantly below half of what sessions of this dataset usually give. A session that merely fails to beat
shuffled pairs is not reported, since few trials or noisy ones do that too.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from synbrain.arrays import Float64
from synbrain.check.evidence import Reduced, RepeatSums, standardised

ALPHA = 0.002  # family-wise, per kind of check and dataset
N_SHUFFLES = 999
MAX_SHIFT = 10  # trials
MIN_TRIALS = 20  # a session, or a shifted stretch of it, below this is not judged


@dataclass(frozen=True)
class AgainstShuffles:
    """Whether responses go with their labels better than with shuffled ones.

    Attributes:
        p: (n_blocks,) permutation p of each session; NaN where fewer than ``MIN_TRIALS`` could be judged.
        p_all: of all sessions together.
        evidence: (n_blocks,) mean own-label evidence per trial, in sd of other labels' evidence (d').
        absent: sessions whose evidence is significantly below half of the usual.
        n_trials: trials judged.
    """

    p: Float64
    p_all: float
    evidence: Float64
    absent: list[int]
    n_trials: int


def against_shuffles(evidence: list[Float64], seed: int = 0) -> AgainstShuffles:
    """Compare own labels with labels shuffled within each session.

    Args:
        evidence: per session (n, n), own labels on the diagonal; n may be 0.
        seed: of the shuffles.
    """
    rng = np.random.default_rng(seed)
    n_blocks = len(evidence)
    p, dprime = np.full(n_blocks, np.nan), np.full(n_blocks, np.nan)
    error = np.full(n_blocks, np.nan)
    observed, shuffled, n_trials = 0.0, np.zeros(N_SHUFFLES), 0
    for block, matrix in enumerate(evidence):
        n = len(matrix)
        if n < 2:
            continue
        scaled = standardised(matrix)
        stated = np.diag(scaled)
        sums = np.array([scaled[np.arange(n), rng.permutation(n)].sum() for _ in range(N_SHUFFLES)])
        observed, shuffled, n_trials = observed + stated.sum(), shuffled + sums, n_trials + n
        if n >= MIN_TRIALS:
            p[block] = (1 + (sums >= stated.sum()).sum()) / (N_SHUFFLES + 1)
            dprime[block], error[block] = stated.mean(), stated.std() / np.sqrt(n)
    # Each pair of sessions enters twice, once from either side, and their evidence is the same but for
    # weights: the sum varies up to sqrt(2) times as much as sums of independent sessions.
    shuffled = shuffled.mean() + np.sqrt(2.0) * (shuffled - shuffled.mean())
    p_all = float((1 + (shuffled >= observed).sum()) / (N_SHUFFLES + 1)) if n_trials >= 2 else float("nan")
    return AgainstShuffles(p, p_all, dprime, _absent(p, dprime, error), n_trials)


def _absent(p: Float64, dprime: Float64, error: Float64) -> list[int]:
    judged = np.flatnonzero(np.isfinite(dprime))
    if len(judged) < 3:
        return []
    bound = norm.isf(ALPHA / len(judged))
    absent = []
    for block in judged:
        usual = np.median(dprime[judged[judged != block]])
        below = (usual / 2 - dprime[block]) / max(error[block], 1e-12)
        if usual > 0 and p[block] > 0.05 and below > bound:
            absent.append(int(block))
    return absent


@dataclass(frozen=True)
class Shift:
    """A stretch of a session whose responses fit the labels ``by`` trials later (negative: earlier)."""

    block: int
    by: int
    first: int
    last: int
    p: float


def find_shifts(evidence: list[Float64], known: list[NDArray[np.bool_]], seed: int = 0) -> list[Shift]:
    """Stretches of sessions that fit labels up to ``MAX_SHIFT`` trials away better than their own.

    For every shift, the gain over the own label is summed over the stretch where it is largest; its null
    distribution comes from flipping the signs of the trials' gains, which is what they would look like if
    neither label fitted (correct labels make the gains negative, so the test is conservative). The largest
    standardised sum over all sessions corrects for their number.

    Args:
        evidence: per session (n, n).
        known: per session (n,), labels j that could be judged.
        seed: of the sign flips.
    """
    rng = np.random.default_rng(seed)
    shifts = [n for n in range(-MAX_SHIFT, MAX_SHIFT + 1) if n != 0]
    candidates: list[tuple[int, Float64, Float64]] = []
    for block, (matrix, ok) in enumerate(zip(evidence, known, strict=True)):
        if ok.sum() < MIN_TRIALS:
            continue
        gains = np.stack([_gain(matrix, ok, by) for by in shifts], axis=1)
        signs = rng.integers(0, 2, size=(N_SHUFFLES, len(gains))).astype(np.float32) * 2 - 1
        null = _largest_stretch(gains, signs).max(axis=1)
        observed = _largest_stretch(gains, np.ones((1, len(gains)), dtype=np.float32))[0]
        centre, spread = null.mean(), max(null.std(), 1e-12)
        candidates.append((block, (observed - centre) / spread, (null - centre) / spread))
    if not candidates:
        return []
    highest = np.max([null for _, _, null in candidates], axis=0)
    results = []
    for block, observed, _ in candidates:
        best = int(np.argmax(observed))
        p = float((1 + (highest >= observed[best]).sum()) / (N_SHUFFLES + 1))
        if p <= ALPHA:
            first, last = _stretch(_gain(evidence[block], known[block], shifts[best]))
            if last - first + 1 >= MIN_TRIALS:
                results.append(Shift(block, shifts[best], first, last, p))
    return results


def _gain(evidence: Float64, known: NDArray[np.bool_], by: int) -> Float64:
    """(n,) evidence for the label ``by`` trials later minus that for the own one; 0 where unknown."""
    n = len(evidence)
    here = np.arange(max(0, -by), min(n, n - by))
    gain = np.zeros(n)
    use = here[known[here] & known[here + by]]
    gain[use] = evidence[use, use + by] - evidence[use, use]
    return gain


def _largest_stretch(gains: Float64, signs: NDArray[np.float32]) -> Float64:
    """(b, m) largest sum, at least 0, of consecutive rows of gains (n, m) under each of the signs (b, n)."""
    running = np.zeros((len(signs), gains.shape[1]), dtype=np.float32)
    best, single = running.copy(), gains.astype(np.float32)
    for t in range(len(gains)):
        running += signs[:, t, None] * single[t]
        np.maximum(running, 0.0, out=running)
        np.maximum(best, running, out=best)
    return best.astype(np.float64)


def _stretch(gain: Float64) -> tuple[int, int]:
    """First and last trial of the stretch with the largest sum."""
    total = np.concatenate([[0.0], np.cumsum(gain)])
    lowest = np.minimum.accumulate(total)
    last = int(np.argmax(total - lowest))
    return int(np.argmin(total[: last + 1])), last - 1


@dataclass(frozen=True)
class Swap:
    """A session whose responses fit the labels of session ``fits`` better than its own."""

    block: int
    fits: int
    z: float


def find_swaps(data: Reduced, sums: RepeatSums | None, predicted: list[Float64] | None) -> list[Swap]:
    """Sessions whose responses fit, trial by trial, the labels of another session better than their own.

    The gain of each trial is tested by its z value, corrected for all ordered pairs of sessions. Expected
    responses of the other session's images come from sessions outside the pair.
    """
    swaps, n_blocks = [], data.n_blocks
    bound = norm.isf(ALPHA / max(1, n_blocks * (n_blocks - 1)))
    for block in range(n_blocks):
        rows = data.rows(block)
        weights = sums.reliability(block) if sums is not None and n_blocks > 2 else None
        best: Swap | None = None
        for other in range(n_blocks):
            theirs = data.rows(other)
            n = min(len(rows), len(theirs))
            if other == block or n < MIN_TRIALS:
                continue
            mine, labels = rows[:n], (data.image[rows[:n]], data.image[theirs[:n]])
            gain = np.zeros(n)
            if sums is not None and weights is not None:
                gain += _pair_gain(data.scores[mine] * weights, *(
                    sums.means(images, {block, other}) for images in labels
                ))  # fmt: skip
            if predicted is not None:
                sure = np.ones(n, dtype=bool)
                expected = [(predicted[block][images], sure) for images in labels]
                gain += _pair_gain(data.scores[mine], *expected)
            judged = gain[gain != 0]
            if len(judged) < MIN_TRIALS:
                continue
            z = float(judged.mean() / max(judged.std() / np.sqrt(len(judged)), 1e-12))
            if z > bound and (best is None or z > best.z):
                best = Swap(block, other, z)
        if best is not None:
            swaps.append(best)
    return swaps


def _pair_gain(
    scores: Float64, stated: tuple[Float64, NDArray[np.bool_]], other: tuple[Float64, NDArray[np.bool_]]
) -> Float64:
    """Evidence for the other label minus that for the own, in sd over trials; 0 where either is unknown."""
    known = stated[1] & other[1]
    centre = (stated[0][known].mean(axis=0) + other[0][known].mean(axis=0)) / 2 if known.any() else 0.0
    to_stated, to_other = ((scores * (mean - centre)).sum(axis=1) for mean in (stated[0], other[0]))
    gain = np.where(known, to_other - to_stated, 0.0)
    spread = gain[known].std() if known.sum() > 1 else 0.0
    return gain / spread if spread > 0 else np.zeros_like(gain)


@dataclass(frozen=True)
class CommonShift:
    """The labels of all sessions together are ``by`` trials off; z of its gain over no shift."""

    by: int
    z: float


def find_common_shift(data: Reduced) -> CommonShift | None:
    """Whether all sessions' labels are shifted alike, which no session shows against the others.

    Under each shift, every trial is compared with repeats in earlier sessions (so that each pair counts
    once), components weighted by their variance.
    """
    values = {by: _repeat_products(data, by) for by in range(-MAX_SHIFT, MAX_SHIFT + 1)}
    unshifted = values[0]
    best: CommonShift | None = None
    bound = norm.isf(ALPHA / (2 * MAX_SHIFT))
    for by, products in values.items():
        if by == 0 or len(products) < MIN_TRIALS or len(unshifted) < MIN_TRIALS:
            continue
        error = products.std() / np.sqrt(len(products))
        both = np.hypot(error, unshifted.std() / np.sqrt(len(unshifted)))
        z = float(
            min(products.mean() / max(error, 1e-12), (products.mean() - unshifted.mean()) / max(both, 1e-12))
        )
        if z > bound and (best is None or z > best.z):
            best = CommonShift(by, z)
    return best


def _repeat_products(data: Reduced, by: int) -> Float64:
    """Per trial with an earlier repeat, its product with that repeat's mean, labels taken ``by`` later."""
    total = np.zeros((data.n_images, data.scores.shape[1]))
    count = np.zeros(data.n_images)
    products = []
    for block in range(data.n_blocks):
        rows = data.rows(block)
        n = len(rows)
        here = np.arange(max(0, -by), min(n, n - by))
        if len(here) == 0:
            continue
        scores, labels = data.scores[rows[here]], data.image[rows[here + by]]
        known = count[labels] > 0
        mean = total[labels[known]] / count[labels[known], None]
        products.append((scores[known] * mean) @ data.variances)
        np.add.at(total, labels, scores)
        np.add.at(count, labels, 1.0)
    return np.concatenate(products) if products else np.zeros(0)


@dataclass(frozen=True)
class LabelChecks:
    """All label checks of one dataset; None where one could not be made."""

    repeats: AgainstShuffles | None = None
    features: AgainstShuffles | None = None
    shifts: list[Shift] = field(default_factory=list)
    swaps: list[Swap] = field(default_factory=list)
    common_shift: CommonShift | None = None
    tested_order: bool = False
