"""The ablation with a diffusion transformer in place of the one-step mapper."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Self

from torch import Tensor, nn

from synbrain.baselines.mindsimulator import MindSimulator
from synbrain.baselines.mlp_parts import LatentTokens, MLPConfig, seeded
from synbrain.comparison.job import Job
from synbrain.comparison.recipes import Networks, retrieval_row
from synbrain.evaluation.row import Row
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

    def identity(self, job: Job) -> Any:
        """What a stored result must agree on."""
        return [
            self.networks.identity(job),
            self.settings(job, 1).model_dump(mode="json"),
            self._steps(job),
        ]

    def why_not(self, job: Job) -> str | None:
        return self.networks.why_not(job)

    def settings(self, job: Job, n_trials: int) -> MLPConfig:
        """Of the prior, with as many steps as the mapper would take."""
        sizes, stage = preset(job.options.preset).mapper, self._mapper_config(job)
        epochs = max(1, round(self._steps(job) * stage.batch_size / n_trials))
        return MLPConfig(
            depth=sizes.depth, heads=sizes.heads, batch_size=stage.batch_size, second_epochs=epochs
        )

    def _mapper_config(self, job: Job) -> Any:
        return Networks("reference").config(job).mapper

    def _steps(self, job: Job) -> int:
        return int(self._mapper_config(job).steps)

    def score(self, job: Job) -> Row:
        """Train the VAE, then the prior, and score one sample per image as the mean."""
        model = self.networks.train(job)
        assert model.vae is not None
        part = model.subject()
        pairs = job.measured.train
        prior = LatentDiffusion(model.vae, part, self.settings(job, pairs.n_trials))
        prior.fit(pairs, seed=job.seed, show_progress=job.show_progress)
        predicted = prior.predict(job.measured.test.tokens)
        return job.score(prior, predicted) | retrieval_row(model, part.name, predicted, job)


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
        self.scale = part.scale

    def fit(self, pairs: Pairs, *, seed: int = 0, show_progress: bool = False) -> Self:
        """Fit the prior on latents of single trials."""
        training, validation = pairs.hold_out(self.config.validation, seed)
        self.grid = AlignedTokens(training.tokens, self.config.tokens, self.config.dim)
        with seeded(seed):
            self._fit_second(training, validation, show_progress)
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
