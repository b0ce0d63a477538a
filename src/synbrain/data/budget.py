"""How much of a dataset a model may train on: the first sessions as scanned, or a number of images."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from synbrain.arrays import Rows
from synbrain.describe import counted
from synbrain.errors import SynBrainError

if TYPE_CHECKING:
    from synbrain.data.dataset import Dataset

TRIALS_PER_HOUR = 750  # one NSD session, about an hour of scanning
IMAGES_PER_HOUR = 250  # with three repeats each, as the published code counts an hour
By = Literal["session", "images"]


@dataclass(frozen=True)
class Budget:
    """A part of the training trials.

    ``by="hours"``: as many of the first sessions as reach ``amount`` x 750 trials as scanned, test trials
    counted: one NSD session per hour. This is what "1h" means in MindEye2, and what a new subject can give.

    ``by="sessions"``: the first ``amount`` sessions, however long.

    ``by="images"``: all repeats of ``amount`` images. Without a seed, the images are those shown first
    that have all their repeats; 250 of them give the 750 trials that the published code calls one hour
    (the first 750 rows of its image-major array), gathered from many sessions. With a seed they are drawn
    from all training images, and a smaller number is a part of a larger one.

    ``by="all"``: every training trial.
    """

    by: Literal["hours", "sessions", "images", "all"]
    amount: int
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.amount < 1:
            raise SynBrainError(f"a budget of {self.amount} {self.by}", "give at least one")
        if self.seed is not None and self.by != "images":
            raise SynBrainError(f"a budget by {self.by} takes no seed", "sessions are taken as scanned")


def parse_budget(text: str | int, by: By = "session", seed: int | None = None) -> Budget:
    """A budget as a user writes it: ``1h``, a number, or ``all``.

    ========  =======================================  ===========================================
    text      by="session"                             by="images"
    ========  =======================================  ===========================================
    ``1h``    first sessions that reach 750 trials     250 images with all repeats
    ``2``     the first 2 sessions                     2 images (drawn, where a seed is given)
    ``all``   every training trial                     every training trial
    ========  =======================================  ===========================================

    Raises:
        SynBrainError: for anything else.
    """
    match = re.fullmatch(r"(\d+)(h?)", str(text).strip())
    if str(text).strip() == "all":
        return Budget("all", 1)
    if match is None:
        raise SynBrainError(f"{text!r} is no budget", "write 1h, 2h, ..., a number, or all")
    amount, is_hours = int(match[1]), bool(match[2])
    if by == "images":
        return Budget("images", amount * IMAGES_PER_HOUR if is_hours else amount, seed)
    return Budget("hours" if is_hours else "sessions", amount, seed)


def budget_trials(dataset: Dataset, budget: Budget) -> Rows:
    """Rows of the training trials that a budget allows, in recorded order.

    Test trials are never among them; validation images are split off these rows' images by the training
    code.

    Args:
        dataset: one subject's recordings.
        budget: how much.

    Returns:
        (n_trials,) int64 rows of ``dataset.trials`` and ``dataset.responses``, ascending.

    Raises:
        SynBrainError: where the dataset holds less than the budget asks for.
    """
    train: Rows = dataset.trial_rows("train")
    if budget.by == "all":
        return train
    if budget.by == "images":
        chosen = _images(dataset, train, budget)
        image_of = dataset.trials["image"].to_numpy(dtype=np.int64)[train]
        return train[np.isin(image_of, chosen)]
    session_of = dataset.trials["session"].to_numpy()
    sessions, counts = np.unique(session_of, return_counts=True)
    scanned = dataset.info.trials_per_session  # before trials were left out
    if scanned:
        counts = np.full(len(sessions), scanned)
    wanted = budget.amount
    if budget.by == "hours":
        reached = np.flatnonzero(np.cumsum(counts) >= budget.amount * TRIALS_PER_HOUR)
        wanted = int(reached[0]) + 1 if len(reached) else len(sessions) + 1
    if wanted > len(sessions):
        raise SynBrainError(
            f"{dataset.path} has {counted(int(counts.sum()), 'trial')} in "
            f"{counted(len(sessions), 'session')}, too few for {counted(budget.amount, budget.by[:-1])}",
            "give a number of images with --by images, or --budget all, or prepare more sessions",
        )
    rows: Rows = train[np.isin(session_of[train], sessions[:wanted])]
    if len(rows) == 0:
        raise SynBrainError(f"the first {wanted} sessions have no training trial", "choose a larger budget")
    return rows


def _images(dataset: Dataset, train: Rows, budget: Budget) -> Rows:
    """Rows of the images that a budget by images takes."""
    image_of = dataset.trials["image"].to_numpy(dtype=np.int64)[train]
    unique, first, repeats = np.unique(image_of, return_index=True, return_counts=True)
    if budget.seed is None:
        complete = repeats == repeats.max()
        candidates = unique[complete][np.argsort(first[complete], kind="stable")]
        kind = f" with {counted(repeats.max(), 'repeat')}"
    else:
        candidates = np.random.default_rng(budget.seed).permutation(unique)
        kind = ""
    if len(candidates) < budget.amount:
        raise SynBrainError(
            f"{dataset.path} has {counted(len(candidates), 'training image')}{kind}, the budget asks for "
            f"{budget.amount}",
            "choose fewer images" + (" or give a seed" if budget.seed is None else ""),
        )
    taken: Rows = candidates[: budget.amount]
    return taken
