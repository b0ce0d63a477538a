"""Validation images that whoever made synthetic trials has not seen, and that no synthetic trial shows.

A run that was fitted to a response makes trials that lie near it. Where such images choose between decoders
with and without synthetic trials, they favour those with.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from synbrain.describe import counted
from synbrain.errors import SynBrainWarning
from synbrain.features.look_alikes import held_out
from synbrain.features.tokens import Pairs

SHOWN = 3  # names in a note


@dataclass(frozen=True)
class HeldOut:
    """A subject's images, split into those that weights are fitted on and those that choose between weights.

    Attributes:
        train, validation: with all trials of their images.
        marks: of the validation images, and of images that look like them.
        seen: names of the validation images that the run saw, or saw a version of; None where it does not say
            what it saw, or where there is no run.
    """

    train: Pairs
    validation: Pairs
    marks: frozenset[bytes]
    seen: tuple[str, ...] | None = None


def hold_out(
    pairs: Pairs, marks: Sequence[bytes], names: Sequence[str], fraction: float, draw: tuple[int, set[bytes]]
) -> HeldOut:
    """Hold out a fraction of the images: of those that the run did not see, where they are half of it.

    Args:
        pairs: of one subject.
        marks, names: of the images of ``pairs``, in order.
        fraction: of the images.
        draw: the seed, and marks of the images that the run saw (empty: no run, or one that does not say).
    """
    seed, seen = draw
    n = min(max(1, round(fraction * pairs.n_images)), pairs.n_images - 1)
    family = pairs.tokens.families
    # who saw one version of a picture knows the others
    known = np.isin(family, family[[mark in seen for mark in marks]])
    unseen = np.flatnonzero(~known)
    if not seen or len(unseen) < n / 2:
        train, validation = pairs.hold_out(fraction, seed)
        held = np.flatnonzero(np.isin(pairs.tokens.rows, validation.tokens.rows))
    else:
        held = unseen[held_out(family[unseen], n, seed)]
        train = pairs.take(np.setdiff1d(np.arange(pairs.n_images), held))
        validation = pairs.take(held)
    chosen = held.tolist()
    told = tuple(names[i] for i in chosen if known[i]) if seen else None
    return HeldOut(train, validation, frozenset(marks[i] for i in chosen), told)


def note_seen(n: int, seen: Sequence[str] | None) -> None:
    """Warn where the run saw validation images, or does not say what it saw.

    Args:
        n: number of validation images.
        seen: names of those that it saw; None where it does not say.
    """
    if seen is None:
        note = f"the run does not say whether it saw the {counted(n, 'validation image')}; if so,"
    elif seen:
        some = ", ".join(seen[:SHOWN]) + (", ..." if len(seen) > SHOWN else "")
        note = f"the run saw {len(seen)} of {n} validation images ({some}), so that"
    else:
        return
    mend = "`synbrain adapt` or `train` with --leave-out 0.1 keeps images for it"
    warnings.warn(f"{note} they favour synthetic trials: {mend}", SynBrainWarning, stacklevel=3)
