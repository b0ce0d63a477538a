"""SynBrain and its ablations: one training recipe with a few values changed, trained and scored."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from synbrain.arrays import Float32
from synbrain.comparison.job import Job
from synbrain.evaluation.latents import latent_retrieval
from synbrain.evaluation.row import Row
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

    def sizes(self, job: Job) -> tuple[str, str | None]:
        """(name of the preset, why there is nothing to train)."""
        chosen = preset(job.options.preset)
        name, nothing_to_train = job.options.preset, AS_REFERENCE.format(self.base)
        if self.depth is not None:
            depth = scaled_depth(chosen, self.depth)
            if depth == chosen.mapper.depth:
                return name, nothing_to_train
            name = f"{name}-depth{depth}"
        if self.down_blocks is not None:
            if self.down_blocks == chosen.vae.down_blocks:
                return name, nothing_to_train
            name = f"{name}-down{self.down_blocks}"
        return name, None

    def config(self, job: Job) -> TrainConfig:
        """The complete training configuration."""
        name, _ = self.sizes(job)
        base = recipe(self.recipe, preset=job.options.preset)  # values go by the preset, sizes by its variant
        changed = overridden(
            overridden(base, job.options.changes), {**self.changes, "preset": name, "seed": job.seed}
        )
        if self.without == "mapper":  # it is thrown away, so one step of it is enough
            changed = overridden(changed, {"mapper": {"steps": 1, "round_steps": 1}})
        return changed

    def identity(self, job: Job) -> Any:
        """What a stored result must agree on."""
        other = job.with_other_tokens() if self.other_encoder else None
        digest = job.tokens.content if other is None else other.tokens.content
        config = self.config(job).model_dump(mode="json")
        return [config, self.without, digest, [job.options.n_way, job.options.n_subsets]]

    def why_not(self, job: Job) -> str | None:
        """Why the row does not apply to this dataset; None where it does."""
        if self.other_encoder and job.with_other_tokens() is None:
            return "the dataset has tokens of one encoder only: run `synbrain features --encoder ...`"
        return self.sizes(job)[1]

    def score(self, job: Job) -> Row:
        """Train on the training images of ``job`` and score on its test images."""
        if self.other_encoder:
            job = job.with_other_tokens() or job
        model = self.train(job)
        if self.without == "mapper":
            assert model.vae is not None
            shape = (model.vae.config.tokens, model.vae.config.dim)
            model.mapper = ContrastTarget(shape)  # type: ignore[assignment]
        name = next(iter(model.subjects))
        bound = BoundModel(model, name)
        predicted = bound.predict(job.measured.test.tokens)
        return job.score(bound, predicted) | retrieval_row(model, name, predicted, job)

    def train(self, job: Job) -> SynBrain:
        """The trained model."""
        info, config = job.dataset.info, self.config(job)
        pairs = job.measured.train
        subject = TrainingSubject(info.subject, pairs, job.dataset.space, info.unit, info.scaling)
        networks = None
        if self.without != "networks":
            networks = new_networks(network_sizes(pairs.tokens, config), config.seed)
        workspace = Workspace(job.folder, show_progress=job.show_progress, device=job.options.device)
        return fit_model([subject], config, networks, workspace)


def retrieval_row(model: SynBrain, subject: str, predicted: Float32, job: Job) -> Row:
    """Raw and synthetic retrieval in the latent space of ``model``, as the job scores it."""
    n_way, n_subsets = job.options.n_way, job.options.n_subsets
    return latent_retrieval(model, subject, predicted, job.measured, n_way=n_way, n_subsets=n_subsets)


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
