"""SynBrain: images to synthetic brain responses.

The public names are few: open a dataset, train or open a model, adapt it, evaluate it. They are imported
on first use, so that ``import synbrain`` is fast and has no side effect.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from synbrain.data.dataset import Dataset as Dataset
    from synbrain.data.dataset import load_dataset as load_dataset
    from synbrain.data.space import VoxelSpace as VoxelSpace
    from synbrain.decoding.decoder import Decoder as Decoder
    from synbrain.errors import SynBrainError as SynBrainError
    from synbrain.evaluation.evaluate import evaluate as evaluate
    from synbrain.evaluation.options import EvaluateOptions as EvaluateOptions
    from synbrain.evaluation.scores import Scores as Scores
    from synbrain.model.synbrain import SynBrain as SynBrain
    from synbrain.networks.brainvae import BrainVAE as BrainVAE
    from synbrain.networks.mapper import Mapper as Mapper
    from synbrain.training.adapt import adapt as adapt
    from synbrain.training.options import AdaptOptions as AdaptOptions
    from synbrain.training.options import TrainOptions as TrainOptions
    from synbrain.training.train import train as train

_HOMES = {
    "AdaptOptions": "synbrain.training.options",
    "BrainVAE": "synbrain.networks.brainvae",
    "Decoder": "synbrain.decoding.decoder",
    "Dataset": "synbrain.data.dataset",
    "EvaluateOptions": "synbrain.evaluation.options",
    "Mapper": "synbrain.networks.mapper",
    "Scores": "synbrain.evaluation.scores",
    "SynBrain": "synbrain.model.synbrain",
    "SynBrainError": "synbrain.errors",
    "TrainOptions": "synbrain.training.options",
    "VoxelSpace": "synbrain.data.space",
    "adapt": "synbrain.training.adapt",
    "evaluate": "synbrain.evaluation.evaluate",
    "load_dataset": "synbrain.data.dataset",
    "train": "synbrain.training.train",
}
__all__ = sorted(_HOMES)
__version__ = "0.1.0"


def __dir__() -> list[str]:
    """For completion in notebooks, which does not see what is imported on first use."""
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'synbrain' has no attribute {name!r}")
