"""Options of a tuning that would do nothing: who gave one believes that it does something."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

from synbrain.errors import SynBrainError, SynBrainWarning
from synbrain.tuning.options import TuneOptions


def note_unused(options: TuneOptions) -> None:
    """Warn of settings of teachers where there are none, and of frozen parts beside low-rank updates."""
    if not options.teachers and options.taught_weight != TuneOptions().taught_weight:
        _note("--taught-weight", "pass --teachers")
    if options.freeze and options.lora_rank:
        _note("--freeze", "low-rank updates alone are trained: leave --lora-rank out")


def note_no_ceiling(name: str) -> None:
    """Warn that units of a dataset cannot be weighed by their noise ceiling."""
    _note(f"--ceiling-weights for {name}", "too few of its training images were repeated")


def require_parts(freeze: Iterable[str], parameters: Iterable[str]) -> None:
    """Refuse to freeze what is not there: all would be trained, and nothing said.

    Args:
        freeze: beginnings of names.
        parameters: names of the network's parameters.

    Raises:
        SynBrainError: naming the first that is no beginning, and the parts that there are.
    """
    names = list(parameters)
    for part in freeze:
        if not any(name.startswith(part) for name in names):
            there = dict.fromkeys(name.split(".")[0] for name in names)
            raise SynBrainError(
                f"no parameter of the encoder's network begins with {part!r}",
                f"give beginnings of names to --freeze; they begin with {', '.join(there)}",
            )


def _note(option: str, why: str) -> None:
    warnings.warn(f"without effect: {option}; {why}", SynBrainWarning, stacklevel=4)
