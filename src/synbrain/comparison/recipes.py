"""SynBrain and its ablations: one training recipe with a few values changed, trained and scored."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from synbrain.comparison.task import Task
from synbrain.evaluation.latents import latent_retrieval
from synbrain.evaluation.row import Row
from synbrain.evaluation.score_model import score_model
from synbrain.model.subject import BoundModel
from synbrain.model.synbrain import SynBrain
from synbrain.networks.losses import contrastive_target
from synbrain.networks.presets import Preset, preset
from synbrain.training.config import TrainConfig
from synbrain.training.fit import fit_model
from synbrain.training.networks import Workspace, network_sizes, new_networks
from synbrain.training.overrides import overridden
from synbrain.training.recipes import recipe
from synbrain.training.subjects import TrainingSubject

PAPER_DEPTH = 8  # blocks of the published mapper
AS_REFERENCE = "at this preset it is {} itself: see that row"


@dataclass(frozen=True)
class Networks:
    """A training recipe with differences.

    Attributes:
        recipe: a name in training/recipes.py.
        changes: values of :class:`TrainConfig` that differ from the recipe.
        depth: blocks of the mapper as the paper counts them (8 is the published depth); other presets
            are scaled in proportion.
        down_blocks: levels of the VAE that halve the length (fewer: a wider latent).
        without: "mapper" decodes image tokens instead of mapped latents, "networks" keeps the linear path.
        other_encoder: train on the tokens of another encoder that the dataset has.
        base: the row that this one is a difference of.
    """

    recipe: Literal["reference", "calibrated"]
    changes: dict[str, Any] = field(default_factory=dict)
    depth: int | None = None
    down_blocks: int | None = None
    without: Literal["mapper", "networks"] | None = None
    other_encoder: bool = False
    base: str = "reference"

    def sizes(self, task: Task) -> tuple[str, str | None]:
        """(name of the preset, why there is nothing to train)."""
        chosen = preset(task.preset)
        name, own = task.preset, f"{AS_REFERENCE.format(self.base)}"
        if self.depth is not None:
            depth = scaled_depth(chosen, self.depth)
            if depth == chosen.mapper.depth:
                return name, own
            name = f"{name}-depth{depth}"
        if self.down_blocks is not None:
            if self.down_blocks == chosen.vae.down_blocks:
                return name, own
            name = f"{name}-down{self.down_blocks}"
        return name, None

    def config(self, task: Task) -> TrainConfig:
        """The complete training configuration."""
        name, _ = self.sizes(task)
        base = recipe(self.recipe, preset=task.preset)  # values go by the preset, sizes by its variant
        changed = overridden(
            overridden(base, task.changes), {**self.changes, "preset": name, "seed": task.seed}
        )
        if self.without == "mapper":  # it is thrown away, so one step of it is enough
            changed = overridden(changed, {"mapper": {"steps": 1, "round_steps": 1}})
        return changed

    def identity(self, task: Task) -> Any:
        """What a stored result must agree on."""
        other = task.with_other_tokens() if self.other_encoder else None
        digest = task.tokens.digest if other is None else other.tokens.digest
        config = self.config(task).model_dump(mode="json")
        return [config, self.without, digest, [task.n_way, task.n_subsets]]

    def why_not(self, task: Task) -> str | None:
        """Why the row does not apply to this dataset; None where it does."""
        if self.other_encoder and task.with_other_tokens() is None:
            return "the dataset has tokens of one encoder only: run `synbrain features --encoder ...`"
        return self.sizes(task)[1]

    def score(self, task: Task) -> Row:
        """Train on the training images of ``task`` and score on its test images."""
        if self.other_encoder:
            task = task.with_other_tokens() or task
        model = self.train(task)
        if self.without == "mapper":
            assert model.vae is not None
            shape = (model.vae.config.tokens, model.vae.config.dim)
            model.mapper = ContrastTarget(shape)  # type: ignore[assignment]
        name = next(iter(model.subjects))
        bound = BoundModel(model, name)
        predicted = bound.predict(task.measured.test.tokens)
        row = score_model(bound, task.measured, predicted=predicted, n_samples=task.n_samples, seed=task.seed)
        latent_retrieval(
            row, model, name, predicted, task.measured, n_way=task.n_way, n_subsets=task.n_subsets
        )
        return row

    def train(self, task: Task) -> SynBrain:
        """The trained model."""
        info, config = task.dataset.info, self.config(task)
        pairs = task.measured.train
        subject = TrainingSubject(info.subject, pairs, task.dataset.space, info.unit, info.scaling)
        networks = None
        if self.without != "networks":
            networks = new_networks(network_sizes(pairs.tokens, config), config.seed)
        return fit_model(
            [subject], config, networks, Workspace(task.folder, show_progress=task.show_progress)
        )


class ContrastTarget(nn.Module):
    """Image tokens in the latent's shape, as the contrastive loss saw them: a mapper without weights."""

    def __init__(self, shape: tuple[int, int]) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, tokens: Tensor) -> Tensor:
        """(batch, n_tokens, token_dim) to (batch, tokens, dim); nothing where they agree already."""
        with torch.no_grad():
            return contrastive_target(tokens, *self.shape)


def scaled_depth(sizes: Preset, paper_depth: int) -> int:
    """Blocks that stand to the preset's mapper as ``paper_depth`` to the published one."""
    return max(1, round(sizes.mapper.depth * paper_depth / PAPER_DEPTH))
