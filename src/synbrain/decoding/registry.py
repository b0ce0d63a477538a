"""Every decoding method by name. A further one is a class, a fitting function and an entry here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from synbrain.decoding.controls import MeanTokens, NearestResponse, fit_mean, fit_nearest
from synbrain.decoding.mindeye2.fit import fit_mindeye2
from synbrain.decoding.mindeye2.model import MindEye2
from synbrain.decoding.options import DecoderOptions
from synbrain.decoding.protocol import DecodingMethod, DecodingSubject, State
from synbrain.decoding.ridge import RidgeTokens, fit_ridge, fit_shuffled
from synbrain.errors import SynBrainError
from synbrain.training.networks import Workspace


@dataclass(frozen=True)
class Method:
    """One entry.

    Attributes:
        fit: (subjects, options, workspace) -> fitted method; the workspace is for logs and checkpoints. One
            whose fitted method has a :func:`chosen_step` takes the step to end at, ``until``, as well.
        restore: (config, tensors, device) -> method, from a folder.
    """

    fit: Callable[..., DecodingMethod]
    restore: Callable[[dict[str, Any], State, str], DecodingMethod]


METHODS: dict[str, Method] = {
    "mindeye2": Method(fit_mindeye2, MindEye2.restore),
    "ridge": Method(fit_ridge, RidgeTokens.restore),
    "shuffled": Method(fit_shuffled, RidgeTokens.restore),
    "nearest": Method(fit_nearest, NearestResponse.restore),
    "mean": Method(fit_mean, MeanTokens.restore),
}


def fit_method(
    subjects: Sequence[DecodingSubject],
    options: DecoderOptions,
    workspace: Workspace,
    until: int | None = None,
) -> DecodingMethod:
    """Fit ``options.method``; where ``until`` is given, up to that step, and no image is held out.

    Raises:
        SynBrainError: where there is none of that name, or it takes one subject and got several.
    """
    if options.method not in METHODS:
        raise SynBrainError(f"no decoding method {options.method!r}", f"choose among {', '.join(METHODS)}")
    ending = {} if until is None else {"until": until}  # only who chose a step is asked to end at one
    return METHODS[options.method].fit(subjects, options, workspace, **ending)
