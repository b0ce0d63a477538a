"""Options of a training that would do nothing: who gave one believes that it does something."""

from __future__ import annotations

import warnings

from pydantic import BaseModel

from synbrain.errors import SynBrainWarning
from synbrain.training.config import TrainConfig
from synbrain.training.options import AdaptOptions, FitOptions
from synbrain.training.overrides import given_values

OF_NETWORKS = (
    "preset", "network_layer", "shrink", "validation_fraction", "subject_weights", "vae", "mapper", "update",
)  # fmt: skip


def note_unused(options: FitOptions, config: TrainConfig, *, networks: bool) -> None:
    """Warn of settings of a part that is not fitted.

    Args:
        options: as given.
        config: what they come to.
        networks: whether networks are trained.
    """
    if not networks:
        _note(options, OF_NETWORKS, "no networks are trained")
    if not config.linear_path:
        _note(options, ("linear",), "no linear path is fitted: pass --linear-path true")
    if not (config.linear_path and config.response_noise):
        _note(options, ("noise",), "no trial noise is fitted, which needs --linear-path and --response-noise")


def _note(options: FitOptions, names: tuple[str, ...], why: str) -> None:
    given = []
    for name in names:
        value = getattr(options, name, None)
        if isinstance(value, BaseModel):
            given += [f"{name}.{key}" for key in given_values(value.model_dump())]
        elif value is not None and not (name == "update" and value == AdaptOptions().update):
            given.append(name)
    if given:
        written = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        warnings.warn(f"without effect: {written}; {why}", SynBrainWarning, stacklevel=4)
