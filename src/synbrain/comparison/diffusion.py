"""The ablation with a diffusion transformer in place of the one-step mapper."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from synbrain.baselines.mindsimulator import MindSimulator
from synbrain.baselines.mlp_parts import LatentTokens, MLPConfig, seeded
from synbrain.comparison.recipes import Networks
from synbrain.comparison.task import Task
from synbrain.evaluation.latents import latent_retrieval
from synbrain.evaluation.row import Row
from synbrain.evaluation.score_model import score_model
from synbrain.features.tokens import Pairs, TokenSet
from synbrain.model.parts import SubjectPart
from synbrain.networks.brainvae import BrainVAE
from synbrain.networks.losses import contrastive_target
from synbrain.networks.posterior import Posterior
from synbrain.networks.presets import preset


@dataclass(frozen=True)
class Diffusion:
    """The reference's VAE, and latents that a transformer denoises from Gaussian noise, given the tokens.

    Depth, heads, batch size and number of steps are those of the reference's mapper; x-start prediction,
    100 noise levels of which sampling visits 20. A prediction is one sample of fixed noise.
    """

    networks: Networks = field(default_factory=lambda: Networks("reference", without="mapper"))

    def identity(self, task: Task) -> Any:
        """What a stored result must agree on."""
        return [
            self.networks.identity(task),
            self.settings(task, 1).model_dump(mode="json"),
            self._steps(task),
        ]

    def why_not(self, task: Task) -> str | None:
        return self.networks.why_not(task)

    def settings(self, task: Task, n_trials: int) -> MLPConfig:
        """Of the prior, with as many steps as the mapper would take."""
        sizes, stage = preset(task.preset).mapper, self._mapper_config(task)
        epochs = max(1, round(self._steps(task) * stage.batch_size / n_trials))
        return MLPConfig(
            depth=sizes.depth, heads=sizes.heads, batch_size=stage.batch_size, second_epochs=epochs
        )

    def _mapper_config(self, task: Task) -> Any:
        return Networks("reference").config(task).mapper

    def _steps(self, task: Task) -> int:
        return int(self._mapper_config(task).steps)

    def score(self, task: Task) -> Row:
        """Train the VAE, then the prior, and score one sample per image as the mean."""
        model = self.networks.train(task)
        assert model.vae is not None
        part = model.subject()
        pairs = task.measured.train
        prior = LatentDiffusion(model.vae, part, self.settings(task, pairs.n_trials))
        prior.fit(pairs, seed=task.seed, show_progress=task.show_progress)
        row = score_model(prior, task.measured, n_samples=task.n_samples, seed=task.seed)
        predicted = prior.predict(task.measured.test.tokens)
        latent_retrieval(
            row, model, part.name, predicted, task.measured, n_way=task.n_way, n_subsets=task.n_subsets
        )
        return row


class LatentDiffusion(MindSimulator):
    """MindSimulator's diffusion prior over the latents of a trained BrainVAE.

    Args:
        vae: as stage 1 left it; it is not trained further.
        part: the subject's scale.
        config: of the prior.
    """

    def __init__(self, vae: BrainVAE, part: SubjectPart, config: MLPConfig) -> None:
        sizes = vae.config
        super().__init__(config.model_copy(update={"tokens": sizes.tokens, "dim": sizes.dim}), n_average=1)
        self.autoencoder = _Latents(vae, part.n_voxels)  # type: ignore[assignment]
        self.scale = _Scale(part)  # type: ignore[assignment]

    def fit(self, pairs: Pairs, *, seed: int = 0, show_progress: bool = False) -> Self:
        """Fit the prior on latents of single trials."""
        rest, held = pairs.hold_out(self.config.validation, seed)
        self.grid = AlignedTokens(rest.tokens, self.config.tokens, self.config.dim)
        with seeded(seed):
            self._fit_second(rest, held, show_progress)
        return self


class AlignedTokens(LatentTokens):
    """Image tokens as the VAE's latents were contrasted with them: each at its place, projected where wider.

    BrainVAE's latent tokens stand for places of the image, which components of the whole image would mix.
    """

    def _fitted(self, train: TokenSet) -> None:
        return None

    def _shaped(self, centred: Tensor) -> Tensor:
        return contrastive_target(centred, *self.shape)


class _Latents(nn.Module):
    """A BrainVAE for responses of one subject."""

    def __init__(self, vae: BrainVAE, n_voxels: int) -> None:
        super().__init__()
        self.vae, self.n_voxels = vae.eval(), n_voxels

    def encode(self, y: Tensor) -> Posterior:
        return self.vae.encode(y)

    def decode(self, z: Tensor) -> Tensor:
        return self.vae.decode(z, self.n_voxels)


class _Scale:
    """From the dataset's unit to the networks', and back."""

    def __init__(self, part: SubjectPart) -> None:
        self.mean, self.sd = part.response_mean, np.where(part.response_sd > 0, part.response_sd, 1.0)

    def scaled(self, responses: NDArray[Any]) -> Tensor:
        return torch.from_numpy(np.asarray((responses - self.mean) / self.sd, dtype=np.float32))

    def restored(self, z: NDArray[Any]) -> NDArray[np.float32]:
        return np.asarray(z * self.sd + self.mean, dtype=np.float32)
