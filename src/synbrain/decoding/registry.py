"""Every decoding method by name. A further one is a class, a fitting function and an entry here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from synbrain.decoding.controls import MeanTokens, NearestResponse, fit_mean, fit_nearest
from synbrain.decoding.mindeye2 import MindEye2
from synbrain.decoding.mindeye2_fit import fit_mindeye2
from synbrain.decoding.options import DecoderOptions
from synbrain.decoding.protocol import DecodingMethod, DecodingSubject, State
from synbrain.decoding.ridge import RidgeTokens, fit_ridge, fit_shuffled
from synbrain.errors import SynBrainError
from synbrain.training.networks import Workspace


@dataclass(frozen=True)
class Method:
    """One entry.

    Attributes:
        fit: (subjects, options, workspace) -> fitted method; the workspace is for logs and checkpoints.
        restore: (config, tensors, device) -> method, from a folder.
        refit: the same up to a step, without validation images, for methods in which these choose a step
            (the fitted method's ``kept_step``); None: all images are fitted as it is.
    """

    fit: Callable[[Sequence[DecodingSubject], DecoderOptions, Workspace], DecodingMethod]
    restore: Callable[[dict[str, Any], State, str], DecodingMethod]
    refit: Callable[[Sequence[DecodingSubject], DecoderOptions, Workspace, int], DecodingMethod] | None = None


METHODS: dict[str, Method] = {
    "mindeye2": Method(fit_mindeye2, MindEye2.restore, fit_mindeye2),
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
    method = METHODS[options.method]
    if until is None:
        return method.fit(subjects, options, workspace)
    assert method.refit is not None  # only who chose a step is asked for it
    return method.refit(subjects, options, workspace, until)
