"""Options that would do nothing: who gave one believes that it does something, so it is named."""

from __future__ import annotations

import warnings
from typing import Any

from synbrain.decoding.decoder import Decoder
from synbrain.decoding.mindeye2.model import MindEye2
from synbrain.decoding.options import DecoderAdaptOptions, DecoderEvaluation, DecoderOptions, MindEye2Sizes
from synbrain.errors import SynBrainWarning

OF_MINDALIGNER = ("known", "latent", "alignment_weight", "labels", "neighbours")
OF_PAIRS = ("alignment_weight", "labels", "neighbours")  # which need the known subject's data


def note_unused_in_training(options: DecoderOptions, *, has_synthetic: bool) -> None:
    """Warn of a share of synthetic trials where there are none."""
    if not has_synthetic:
        _note(_changed(options, ("synthetic_weight",)), "there are no synthetic trials: pass --augment")


def note_unused_in_adaptation(
    base: Decoder, options: DecoderAdaptOptions, *, one: bool = False, has_pairs: bool = True
) -> None:
    """Warn of token space and sizes other than the base's, and of settings of another kind of adaptation.

    Args:
        base: that is adapted.
        options: of the adaptation.
        one: whether ``options.adaptation`` is the only one that is made.
        has_pairs: whether there are data of the known subject.
    """
    source, components = base.targets.source, base.targets.components
    mine = {
        "method": "mindeye2", "encoder": source.encoder, "layer": source.layer, "grid": base.targets.grid,
        "components": 0 if components is None else components.shape[1],
    }  # fmt: skip
    given = options.model_dump() | {
        "components": min(options.components, source.dim)
    }  # no more than there are
    other = [name for name in _changed(options, tuple(mine)) if given[name] != mine[name]]
    sizes = options.mindeye2.sizes
    if isinstance(base.method, MindEye2) and sizes != MindEye2Sizes():
        backbone, prior = base.method.network.backbone.config, base.method.network.prior
        asked = (sizes.hidden, sizes.blocks, sizes.use_prior)
        if asked != (backbone.hidden, backbone.n_blocks, prior is not None):
            other.append("mindeye2.sizes")
    _note(other, "token space and sizes are the base's")
    if one and options.adaptation != "mindaligner":
        _note(_changed(options, OF_MINDALIGNER), "pass --adaptation mindaligner")
    elif one and not has_pairs:
        _note(_changed(options, OF_PAIRS), "pass --known-data, the known subject's dataset")


def note_unused_in_evaluation(options: DecoderEvaluation, *, has_run: bool) -> None:
    """Warn of networks that judge no picture, and of a subject of no run."""
    if options.renderer is None:
        _note(_changed(options, ("networks",)), "pass --renderer, which makes the pictures that they judge")
    if not has_run:
        _note(_changed(options, ("subject",)), "pass --run")


def _changed(options: Any, names: tuple[str, ...]) -> list[str]:
    """Those whose value is not the one that is taken where nothing is given."""
    fields = type(options).model_fields
    return [name for name in names if getattr(options, name) != fields[name].get_default()]


def _note(names: list[str], why: str) -> None:
    if names:
        written = ", ".join(f"--{name.replace('_', '-')}" for name in names)
        warnings.warn(f"without effect: {written}; {why}", SynBrainWarning, stacklevel=4)
