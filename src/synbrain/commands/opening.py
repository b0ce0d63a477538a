"""Datasets, runs and decoders behind typed folders; each is refused before torch is imported."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from synbrain.errors import SynBrainError
from synbrain.files import read_json

if TYPE_CHECKING:
    from synbrain.comparison.options import CompareOptions
    from synbrain.data.dataset import Dataset
    from synbrain.training.options import TrainOptions


def open_dataset(folder: Path) -> Any:
    """The dataset of a folder."""
    from synbrain.data.dataset import load_dataset

    return load_dataset(folder)


def require_run(run: Path) -> None:
    """Refuse what cannot be a run before torch is imported."""
    if not (run / "config.json").is_file() and (run.exists() or not _is_hub_id(run)):
        what = "is not a run" if run.exists() else "does not exist"
        raise SynBrainError(f"{run} {what}", "name a folder that `synbrain train` wrote")


def require_decoder(decoder: Path) -> None:
    """Refuse what cannot be a decoder before torch is imported."""
    config = decoder / "config.json"
    known = (
        "targets" in read_json(config) if config.is_file() else not decoder.exists() and _is_hub_id(decoder)
    )
    if not known:
        what = "is not a decoder" if decoder.exists() else "does not exist"
        raise SynBrainError(f"{decoder} {what}", "name a folder that `synbrain decoder train` wrote")


def _is_hub_id(path: Path) -> bool:
    return str(path).count("/") == 1 and not str(path).startswith((".", "/"))


def open_run(run: Path, device: str, folded: bool) -> Any:
    """The model of a run, on ``device``; ``folded`` for prediction alone."""
    from synbrain.features.encoder import pick_device
    from synbrain.model.synbrain import SynBrain

    return SynBrain.from_pretrained(run, device=pick_device(device), fold=folded)


def open_decoder(decoder: Path, device: str) -> Any:
    """The decoder of a folder, on ``device``."""
    from synbrain.decoding.decoder import Decoder
    from synbrain.features.encoder import pick_device

    return Decoder.from_pretrained(decoder, device=str(pick_device(device)))


def require_tokens(dataset: Dataset, options: TrainOptions | CompareOptions) -> None:
    """Refuse a dataset that was not encoded yet, by reading the token store alone."""
    from synbrain.features.store import open_tokens

    open_tokens(dataset, options.encoder, options.layers)
