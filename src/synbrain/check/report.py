"""Find data that is out of step before a GPU-week is spent on it.

What each check can see. A whole session whose labels are wrong (swapped, shuffled, shifted), or a stretch
of it, is seen from about 100 trials on where trials are as reliable as NSD's (per-trial evidence, "d'", near
1 over a few hundred voxels), and needs more the noisier the voxels are: roughly 25 / d'^2 judged trials.
Shifts are looked for up to 10 trials. Stretches below 20 trials, single exchanged trials, and sessions of few
repeats without image features stay unseen. Faults in most sessions at once are seen only as a loss of the
subject's evidence (which has to be significant where trials and images are not very few), or as one common
shift. All trials take part, test trials too: nothing is fitted that a
model uses.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from synbrain.arrays import Float64, Rows
from synbrain.check import labels as check_labels
from synbrain.check import sessions as check_sessions
from synbrain.check.evidence import (
    FOLDS,
    Reduced,
    RepeatSums,
    feature_evidence,
    predict_left_out,
    reduce_responses,
    repeat_evidence,
    sessions_of,
    standardised,
)
from synbrain.check.labels import AgainstShuffles, LabelChecks
from synbrain.data.dataset import Dataset
from synbrain.describe import counted
from synbrain.errors import SynBrainError
from synbrain.files import verify_manifest

# Below these (distinct training images; trials with a repeat), no evidence is no finding.
ENOUGH_IMAGES, ENOUGH_TRIALS = 100, 100
Status = Literal["ok", "fault", "not tested"]


@dataclass(frozen=True)
class Line:
    """One check: its name, how it ended, in plain words, and the numbers behind it."""

    check: str
    status: Status
    text: str
    numbers: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class CheckReport:
    """All checks of one dataset, or those between datasets."""

    name: str
    lines: list[Line]

    @property
    def faults(self) -> list[Line]:
        return [line for line in self.lines if line.status == "fault"]

    def as_json(self) -> dict[str, Any]:
        """For a JSON file; numbers that are not finite become None."""
        return {
            "name": self.name,
            "faults": len(self.faults),
            "checks": [_plain(asdict(x)) for x in self.lines],
        }


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_plain(item) for item in value]
    if isinstance(value, (float, np.floating)):
        return float(value) if np.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value


def check_dataset(
    dataset: Dataset,
    features: NDArray[np.floating] | None = None,
    features_name: str = "image features",
    *,
    families: Rows | None = None,
    seed: int = 0,
) -> CheckReport:
    """Run every check on one dataset.

    Args:
        dataset: the recordings.
        features: (n_images, d) features of ``dataset.images``, if there are any (few: d of about 100).
        features_name: what they are, for the report.
        families: (n_images,) of images that look alike (``TokenSet.families``), if they are known.
        seed: of shuffles and sign flips; the same seed gives the same report.
    """
    numbers, _ = sessions_of(dataset)
    moments = check_sessions.moments_of(dataset)
    lines = [_files(dataset), _counts(dataset), _unit(dataset, moments), _breaks(moments)]
    lines += [_copies(dataset), _look_alikes(dataset, families)]
    labels = check_labels_of(dataset, features, seed)
    named = features_name if features is not None else None
    lines += _label_lines(labels, numbers, named, dataset)
    return CheckReport(dataset.info.name, lines)


def check_labels_of(
    dataset: Dataset, features: NDArray[np.floating] | None = None, seed: int = 0
) -> LabelChecks:
    """All label checks of one dataset, see :mod:`synbrain.check.labels`."""
    data = reduce_responses(dataset)
    many = data.n_blocks > 1
    by_repeat = data if many else data.with_blocks(_halves_of_repeats(dataset))
    by_image = data if many else data.with_blocks(data.image % FOLDS)
    sums = RepeatSums(by_repeat) if by_repeat.n_blocks > 1 else None
    predicted = None
    if features is not None and by_image.n_blocks > 1 and data.n_images >= 2 * FOLDS:
        predicted = predict_left_out(by_image, features)
    from_repeats: list[tuple[Float64, NDArray[np.bool_]]] = []
    if sums is not None:
        from_repeats = [repeat_evidence(by_repeat, sums, block) for block in range(by_repeat.n_blocks)]
    checks: dict[str, Any] = {}
    if any(known.sum() >= 2 for _, known in from_repeats):
        checks["repeats"] = check_labels.against_shuffles(
            [matrix[np.ix_(known, known)] for matrix, known in from_repeats], seed
        )
    from_features: list[Float64] = []
    if predicted is not None:
        from_features = [feature_evidence(by_image, predicted, b) for b in range(by_image.n_blocks)]
        # Shared images sit at the same trials in all NSD subjects, so that another subject's responses fit
        # them: training images alone decide.
        train = (dataset.trials["split"] == "train").to_numpy()
        trials_of_block = [train[by_image.rows(block)] for block in range(by_image.n_blocks)]
        checks["features"] = check_labels.against_shuffles(
            [matrix[np.ix_(t, t)] for matrix, t in zip(from_features, trials_of_block, strict=True)], seed
        )
    if many and (from_repeats or from_features):
        evidence, known = _combine(data, from_repeats, from_features)
        shifts = check_labels.find_shifts(evidence, known, seed)
        swaps = check_labels.find_swaps(data, sums, predicted)
        common = check_labels.find_common_shift(data)
        checks |= {"shifts": shifts, "swaps": swaps, "common_shift": common, "tested_order": True}
    return LabelChecks(**checks)


def _halves_of_repeats(dataset: Dataset) -> NDArray[np.int64]:
    """(n_trials,) 0 and 1 in turn over the trials of each image: blocks of a dataset of one session."""
    return np.asarray(dataset.trials.groupby("image").cumcount().to_numpy() % 2, dtype=np.int64)


def _combine(
    data: Reduced, repeats: list[tuple[Float64, NDArray[np.bool_]]], features: list[Float64]
) -> tuple[list[Float64], list[NDArray[np.bool_]]]:
    """Evidence of both sources added, each in sd of wrong labels; a label that one lacks counts 0 there."""
    evidence, known = [], []
    for block in range(data.n_blocks):
        n = len(data.rows(block))
        total, judged = np.zeros((n, n)), np.zeros(n, dtype=bool)
        if repeats:
            matrix, ok = repeats[block]
            if ok.sum() > 1:
                part = np.zeros((n, n))
                part[:, ok] = matrix[:, ok] / max(matrix[:, ok].std(), 1e-12)
                total, judged = total + part, judged | ok
        if features:
            total, judged = total + standardised(features[block]), np.ones(n, dtype=bool)
        evidence.append(total)
        known.append(judged)
    return evidence, known


def _files(dataset: Dataset) -> Line:
    try:
        verify_manifest(dataset.path)
    except SynBrainError as error:
        return Line("files", "fault", str(error))
    return Line("files", "ok", "all checksums are right")


def _counts(dataset: Dataset) -> Line:
    numbers, index = sessions_of(dataset)
    repeats = np.bincount(dataset.trials["image"].to_numpy(dtype=np.int64), minlength=dataset.n_images)
    sizes = np.bincount(index)
    text = f"{counted(len(numbers), 'session')} of {_trials(sizes)}, {counted(dataset.n_images, 'image')}, "
    text += f"{_trials(repeats)} each"
    odd = check_sessions.compare_counts(dataset)
    broken = check_sessions.broken_repeats(dataset)
    problems = list(odd or [])
    if broken:
        problems.append(f"{broken} images' repeats are not numbered in the order of their trials")
    figures = {"n_sessions": len(numbers), "n_images": dataset.n_images, "n_trials": dataset.n_trials}
    if problems:
        return Line("counts", "fault", "; ".join(problems), figures)
    return Line("counts", "ok", text + ("" if odd is None else "; as NSD published"), figures)


def _trials(counts: Rows) -> str:
    """``300 trials``, or ``1 to 3 trials`` where they differ."""
    low, high = int(counts.min()), int(counts.max())
    return counted(high, "trial") if low == high else f"{low} to {high} trials"


def _unit(dataset: Dataset, moments: check_sessions.Moments) -> Line:
    guess = check_sessions.recognise_unit(dataset, moments)
    numbers = {"looks": guess.looks, "stated": dataset.info.unit, "sd": guess.sd}
    if guess.wrong:
        return Line("unit", "fault", guess.wrong, numbers)
    seen = f", recognised as {guess.looks}" if guess.looks != "unknown" else ""
    return Line("unit", "ok", f"{dataset.info.unit}{seen}; typical sd {guess.sd:.3g}", numbers)


def _breaks(moments: check_sessions.Moments) -> Line:
    breaks = check_sessions.find_breaks(moments)
    words = {
        "variance": "has {:.3g} times the usual sd",
        "mean": "is off by {:.2g} single-trial sd",
        "constant": "is constant in {:.0%} of voxels",
        "not finite": "has {:.0f} values that are not finite",
    }
    if breaks:
        text = "; ".join(f"session {b.session} " + words[b.what].format(b.value) for b in breaks)
        return Line("mean and variance", "fault", text, {"breaks": [asdict(b) for b in breaks]})
    if len(moments.sessions) < 2:
        return Line("mean and variance", "ok", "finite and varying; one session, none to compare with")
    return Line("mean and variance", "ok", f"alike in all {len(moments.sessions)} sessions")


def _copies(dataset: Dataset) -> Line:
    sessions = check_sessions.find_copied_sessions(dataset)
    trials = check_sessions.find_copied_trials(dataset)
    problems = [f"{c.first} and {c.second} hold the same responses (r {c.similarity:.3f})" for c in sessions]
    if trials:
        pairs = counted(len(trials), "pair of trials is", "pairs of trials are")
        problems.append(f"{pairs} equal to the last bit, first {trials[0]}")
    if problems:
        return Line("duplicate sessions", "fault", "; ".join(problems))
    return Line("duplicate sessions", "ok", "no session or trial occurs twice")


def _look_alikes(dataset: Dataset, families: Rows | None) -> Line:
    if families is None:
        return Line("look-alikes", "not tested", "no tokens are stored: run `synbrain features`")
    train, test = (families[dataset.image_rows(split)] for split in ("train", "test"))
    numbers, counts = np.unique(train, return_counts=True)
    alike, known = int(counts[counts > 1].sum()), int(np.isin(test, numbers).sum())
    figures = {"training_images": alike, "families": int((counts > 1).sum()), "test_images": known}
    if not alike + known:
        return Line("look-alikes", "ok", "no image looks like another", figures)
    text = f"{alike} of {len(train)} training images look like another one and share a fold with it"
    if known:
        text += f"; {known} of {len(test)} test images look like a training image and are easier"
    return Line("look-alikes", "ok", text, figures)


def _label_lines(
    labels: LabelChecks, numbers: list[int], features: str | None, dataset: Dataset
) -> list[Line]:
    explained = {swap.block for swap in labels.swaps} | {shift.block for shift in labels.shifts}
    again = dataset.info.n_trials - dataset.trials["image"].nunique()
    lines = [
        _evidence_line(
            "repeats", "repeats of an image are more alike than other images",
            labels.repeats, numbers, explained,
            labels.repeats is not None and labels.repeats.n_trials >= ENOUGH_TRIALS,
            f"too few images were repeated ({again} more trials)" if again else "no image was repeated",
        ),
        _evidence_line(
            f"images ({features})" if features else "images",
            "responses go with their images better than shuffled pairs",
            labels.features, numbers, explained,
            len(dataset.image_rows("train")) >= ENOUGH_IMAGES,
            "too few images to fit a prediction" if features else "no tokens and no readable images",
        ),
    ]  # fmt: skip
    return [*lines, _shift_line(labels, numbers), _swap_line(labels, numbers)]


def _evidence_line(
    name: str,
    claim: str,
    evidence: AgainstShuffles | None,
    numbers: list[int],
    explained: set[int],
    enough: bool,
    why_not: str,
) -> Line:
    if evidence is None:
        return Line(name, "not tested", why_not)
    many = len(numbers) > 1
    figures: dict[str, Any] = {"p": evidence.p_all, "n_trials": evidence.n_trials}
    if many:
        figures["sessions"] = {
            str(n): {"p": p, "d_prime": d}
            for n, p, d in zip(numbers, evidence.p, evidence.evidence, strict=True)
        }
    absent = [numbers[block] for block in evidence.absent if many and block not in explained]
    if enough and not evidence.p_all <= check_labels.ALPHA:
        return Line(name, "fault", f"not so: {claim} (p {evidence.p_all:.3f})", figures)
    if absent:
        which = f"session{'s' if len(absent) > 1 else ''} {', '.join(map(str, absent))}"
        return Line(name, "fault", f"{which}: labels do not fit the responses, others' do", figures)
    if not evidence.p_all <= check_labels.ALPHA:
        return Line(
            name,
            "not tested",
            f"too few trials to tell ({evidence.n_trials}, p {evidence.p_all:.2f})",
            figures,
        )
    judged = np.isfinite(evidence.p)
    sessions = f", by itself in {int((evidence.p[judged] <= 0.05).sum())} of {int(judged.sum())} sessions"
    return Line(name, "ok", f"{claim} (p {evidence.p_all:.3f}{sessions if many else ''})", figures)


def _why_no_order(numbers: list[int]) -> str:
    if len(numbers) < 2:
        return "all trials are one session: give a column `session`, or blocks of 500 trials in scan order"
    return "neither repeats nor image features"


def _shift_line(labels: LabelChecks, numbers: list[int]) -> Line:
    if not labels.tested_order:
        return Line("shifted trials", "not tested", _why_no_order(numbers))
    swapped = {swap.block for swap in labels.swaps}
    shifts = [shift for shift in labels.shifts if shift.block not in swapped]
    problems = [
        f"session {numbers[s.block]}, trials {s.first} to {s.last}: responses fit the labels "
        f"{abs(s.by)} trial{'s' if abs(s.by) > 1 else ''} {'later' if s.by > 0 else 'earlier'}"
        for s in shifts
    ]
    if labels.common_shift is not None:
        by = labels.common_shift.by
        problems.append(
            f"all sessions: responses fit the labels {abs(by)} trials {'later' if by > 0 else 'earlier'}"
        )
    figures = {"shifts": [asdict(s) | {"session": numbers[s.block]} for s in shifts]}
    if problems:
        return Line("shifted trials", "fault", "; ".join(problems), figures)
    return Line("shifted trials", "ok", f"no labels shifted by up to {check_labels.MAX_SHIFT} trials")


def _swap_line(labels: LabelChecks, numbers: list[int]) -> Line:
    if not labels.tested_order:
        return Line("swapped sessions", "not tested", _why_no_order(numbers))
    fits = {swap.block: swap.fits for swap in labels.swaps}
    problems = []
    for block, other in fits.items():
        if fits.get(other) == block:
            if block < other:
                problems.append(f"sessions {numbers[block]} and {numbers[other]} are swapped")
        else:
            problems.append(f"session {numbers[block]} holds responses to session {numbers[other]}'s images")
    figures = {
        "swaps": [{"session": numbers[s.block], "fits": numbers[s.fits], "z": s.z} for s in labels.swaps]
    }
    if problems:
        return Line("swapped sessions", "fault", "; ".join(problems), figures)
    return Line("swapped sessions", "ok", "every session fits its own labels best")
