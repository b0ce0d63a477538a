"""What a method is given: one dataset, its measured side, one seed."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from synbrain.data.dataset import Dataset
from synbrain.errors import SynBrainError
from synbrain.evaluation.measured import Measured, measure
from synbrain.evaluation.score_model import N_SAMPLES
from synbrain.features.store import open_tokens, stored_encoders
from synbrain.features.tokens import TokenSet, split_pairs
from synbrain.metrics.retrieval import N_SUBSETS, N_WAY


@dataclass(frozen=True)
class Task:
    """One dataset to fit a method on and to score it on.

    Attributes:
        dataset: with training and test images.
        tokens: of all its images, one row each.
        measured: its test side; the same object for every method, so that rows can be paired.
        preset: sizes of networks, a name in networks/presets.py.
        folder: where a training may keep its checkpoints.
        curves: the JSON file that takes the training curves of a method that has them; None keeps none.
        seed: of weights, batches, folds and synthetic trials.
        n_samples: synthetic trials per test image.
        n_way, n_subsets: of raw and synthetic retrieval.
        changes: values of the training configuration that differ from every recipe.
        show_progress: bars of trainings.
    """

    dataset: Dataset
    tokens: TokenSet
    measured: Measured
    preset: str
    folder: Path
    curves: Path | None = None
    seed: int = 0
    n_samples: int = N_SAMPLES
    n_way: int = N_WAY
    n_subsets: int = N_SUBSETS
    changes: dict[str, Any] = field(default_factory=dict)
    show_progress: bool = False

    def with_other_tokens(self) -> Task | None:
        """The same task on the tokens of another encoder that the dataset has; None where it has none."""
        others = [name for name in stored_encoders(self.dataset) if name != self.tokens.encoder]
        if not others:
            return None
        tokens = open_tokens(self.dataset, others[0])
        return replace(self, tokens=tokens, measured=measured_of(self.dataset, tokens, self.measured))


def measured_of(dataset: Dataset, tokens: TokenSet, like: Measured) -> Measured:
    """The measured side with other tokens; seed and bootstrap draws are those of ``like``.

    Raises:
        SynBrainError: where a split is empty.
    """
    train, test = split_pairs(dataset, tokens)
    if test.n_images != like.test.n_images:
        raise SynBrainError("tokens of another test set", "run `synbrain features` on this dataset")
    return measure(test, train, dataset.space, seed=like.seed, n_bootstrap=like.n_bootstrap)
