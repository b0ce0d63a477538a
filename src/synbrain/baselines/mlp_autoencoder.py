"""MLP autoencoders in SynBrain's pipeline: autoencoder with SoftCLIP, then a mapper to its latent."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from synbrain.arrays import Float32
from synbrain.baselines.mlp_networks import MLPAutoencoder
from synbrain.baselines.mlp_parts import LatentTokens, MLPConfig, seeded, train_loop
from synbrain.baselines.protocol import point_mass
from synbrain.features.scale import Scale
from synbrain.features.tokens import Pairs, TokenSet
from synbrain.metrics.retrieval import both_directions, cosine_matrix
from synbrain.networks.losses import soft_clip
from synbrain.networks.mapper import Mapper, MapperConfig

COLD, WARM = 0.004, 0.0075  # SoftCLIP's temperature, annealed by a cosine (MindSimulator, released code)


class MLPAE:
    """Deterministic MLP autoencoder and a transformer mapper; a synthetic trial is the decoded mean.

    ``curves`` holds, for each epoch of the autoencoder, the training loss, reconstruction error and
    contrastive loss on held-out images, and retrieval there in both directions: what the paper's Figure 3
    shows, which calls the variational version unstable.

    Args:
        config: settings.
        variational: whether the latent is a learned Gaussian.
    """

    def __init__(self, config: MLPConfig | None = None, *, variational: bool = False) -> None:
        self.config = config or MLPConfig()
        self.variational = variational
        self.curves: list[dict[str, float]] = []
        self.mapper_curves: list[dict[str, float]] = []

    def fit(self, pairs: Pairs, *, seed: int = 0, show_progress: bool = False) -> Self:
        """Fit on single trials; epochs are chosen on images held out of the training images."""
        config = self.config
        training, validation = pairs.hold_out(config.validation, seed)
        self.scale = Scale.of_trials(training)
        self.grid = LatentTokens(training.tokens, config.tokens, config.dim)
        with seeded(seed):
            self.autoencoder = MLPAutoencoder(
                pairs.n_voxels, config.tokens, config.dim, config.hidden, config.blocks, config.dropout,
                self.variational,
            )  # fmt: skip
            self.curves = self._fit_autoencoder(training, validation, show_progress)
            self._fit_second(training, validation, show_progress)
        return self

    def standardised(self, responses: NDArray[Any]) -> Tensor:
        """(n, n_voxels) float32 tensor in the networks' unit."""
        return torch.from_numpy(self.scale.scaled(responses))

    def _fit_autoencoder(
        self, training: Pairs, validation: Pairs, show_progress: bool
    ) -> list[dict[str, float]]:
        config, network = self.config, self.autoencoder
        y_validation = self.standardised(validation.trial_responses())
        seen_validation, means_validation = (
            self.grid.read(validation.tokens),
            self.standardised(validation.repeat_means()),
        )
        seen_by = self.grid.bank(training.tokens)
        steps = config.epochs * -(-training.n_trials // config.batch_size)
        done = 0

        def loss(items: Tensor) -> Tensor:
            nonlocal done
            share, done = done / max(steps - 1, 1), done + 1
            temperature = WARM - (WARM - COLD) * (1 + np.cos(np.pi * share)) / 2
            y = self.standardised(training.trial_responses(items.numpy()))
            seen = seen_by(training.image_of_trial[items.numpy()])
            posterior = network.encode(y)
            z = posterior.sample() if self.variational else posterior.mode()
            total = torch.nn.functional.mse_loss(network.decode(z), y)
            if config.clip_weight:
                total = total + config.clip_weight * soft_clip(network.project(z), seen, float(temperature))
            if self.variational:
                total = total + config.kl_weight * posterior.kl().mean() / y.shape[1]
            return total

        def after_epoch() -> dict[str, float]:
            error = torch.nn.functional.mse_loss(
                network.decode(network.encode(y_validation).mode()), y_validation
            )
            latent = network.project(network.encode(means_validation).mode())
            contrast = soft_clip(latent, seen_validation, WARM)
            forward, backward = both_directions(cosine_matrix(latent.numpy(), seen_validation.numpy()))
            return {
                "validation": float(error + config.clip_weight * contrast),
                "mse": float(error),
                "soft_clip": float(contrast),
                "images_ranked_for_responses": forward,
                "responses_ranked_for_images": backward,
            }

        return train_loop(network, loss, training.n_trials, config, "autoencoder", after_epoch, show_progress)

    def _fit_second(self, training: Pairs, validation: Pairs, show_progress: bool) -> None:
        """The mapper: tokens to the mean latent of each image's trials, as in SynBrain."""
        config = self.config
        self.mapper = Mapper(
            MapperConfig(
                tokens=config.tokens, dim=config.dim, depth=config.depth, heads=config.heads,
                modulation="constant",
            )
        )  # fmt: skip
        targets, validation_targets = self.image_latents(training), self.image_latents(validation)
        self._standardise(targets)
        targets, validation_targets = self._standard(targets), self._standard(validation_targets)
        read, validation_tokens = self.grid.bank(training.tokens), self.grid.read(validation.tokens)

        def loss(items: Tensor) -> Tensor:
            return torch.nn.functional.mse_loss(self.mapper(read(items.numpy())), targets[items])

        def after_epoch() -> dict[str, float]:
            return {
                "validation": float(
                    torch.nn.functional.mse_loss(self.mapper(validation_tokens), validation_targets)
                )
            }

        self.mapper_curves = train_loop(
            self.mapper, loss, training.n_images, config, "mapper", after_epoch, show_progress, second=True
        )

    def image_latents(self, pairs: Pairs) -> Tensor:
        """(n_images, tokens, dim), mean over each image's trials of the posterior mean."""
        total = torch.zeros(pairs.n_images, self.config.tokens, self.config.dim)
        with torch.no_grad():
            for start in range(0, pairs.n_trials, 512):
                which = np.arange(start, min(start + 512, pairs.n_trials))
                latents = self.autoencoder.encode(self.standardised(pairs.trial_responses(which))).mode()
                total.index_add_(0, torch.from_numpy(pairs.image_of_trial[which]), latents)
        return total / torch.from_numpy(np.maximum(pairs.repeats(), 1))[:, None, None]

    def _standardise(self, latents: Tensor) -> None:
        """Fix the mean (tokens, dim) and the one size of the latents that the second network gives."""
        self.latent_mean = latents.mean(dim=0)
        self.latent_sd = float((latents - self.latent_mean).square().mean().sqrt()) or 1.0

    def _standard(self, latents: Tensor) -> Tensor:
        return (latents - self.latent_mean) / self.latent_sd

    def _mapped(self, tokens: TokenSet) -> Tensor:
        out: Tensor = self.mapper(self.grid.read(tokens)) * self.latent_sd + self.latent_mean
        return out

    def predict(self, tokens: TokenSet) -> Float32:
        """(n_images, n_voxels) float32, the decoded latent, the dataset's unit."""
        out: list[NDArray[Any]] = [np.empty((0, len(self.scale.mean)), dtype=np.float32)]
        with torch.no_grad():
            for start in range(0, len(tokens), 128):
                part = tokens.take(np.arange(start, min(start + 128, len(tokens))))
                out.append(self.autoencoder.decode(self._mapped(part)).numpy())
        return self.scale.restored(np.concatenate(out))

    def sample(self, tokens: TokenSet, n_samples: int, seed: int = 0) -> Float32:
        """(n_samples, n_images, n_voxels) float32, a point mass, as published inference is."""
        return point_mass(self.predict(tokens), n_samples)


class MLPVAE(MLPAE):
    """:class:`MLPAE` with a variational latent: the baseline that the paper calls unstable."""

    def __init__(self, config: MLPConfig | None = None) -> None:
        super().__init__(config, variational=True)
