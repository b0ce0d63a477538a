"""What a method is given: one dataset, its measured side, one seed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from synbrain.arrays import Float32
from synbrain.baselines.protocol import ResponseModel
from synbrain.comparison.options import CompareOptions
from synbrain.data.dataset import Dataset
from synbrain.errors import SynBrainError
from synbrain.evaluation.measured import Measured, measure
from synbrain.evaluation.row import Row
from synbrain.evaluation.score_model import score_model
from synbrain.features.joint import encoders_of
from synbrain.features.store import open_tokens, stored_encoders
from synbrain.features.tokens import TokenSet, split_pairs
from synbrain.features.tuned_folder import PREFIX


@dataclass(frozen=True)
class Job:
    """One dataset to fit a method on and to score it on.

    Attributes:
        dataset: with training and test images.
        tokens: of all its images, one row each.
        measured: its test side; the same object for every method, so that rows can be paired.
        options: sizes of networks, changes to their recipes, and how rows are scored.
        folder: where a training may keep its checkpoints.
        curves: the JSON file that takes the training curves of a method that has them; None keeps none.
        seed: of weights, batches, folds and synthetic trials.
        show_progress: bars of trainings.
    """

    dataset: Dataset
    tokens: TokenSet
    measured: Measured
    options: CompareOptions
    folder: Path
    curves: Path | None = None
    seed: int = 0
    show_progress: bool = False

    def score(self, model: ResponseModel, predicted: Float32 | None = None) -> Row:
        """The row of a fitted model, of which ``predicted`` is known where it was predicted already."""
        return score_model(
            model, self.measured, predicted=predicted, n_samples=self.options.samples, seed=self.seed
        )

    def with_other_tokens(self) -> Job | None:
        """The same job on the tokens of another encoder that the dataset has; None where it has none.

        Tuned encoders are no other: they know responses, and images that they were tuned on have no part.
        """
        mine = encoders_of(self.tokens.encoder)
        stored = stored_encoders(self.dataset)
        others = [name for name in stored if name not in mine and not name.startswith(PREFIX)]
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
    return measure(
        test, train, dataset.space, seed=like.seed, n_bootstrap=like.n_bootstrap, device=like.device
    )
