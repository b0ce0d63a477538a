"""MindSimulator (ICLR 2025): MLP autoencoder with SoftCLIP, and a diffusion prior over its latent.

After the released code: single trials, x-start prediction, image tokens as condition, samples from pure
noise (the paper's correlated start is not in it), and an average of several samples as the prediction.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from synbrain.arrays import Float32
from synbrain.baselines.mlp_autoencoder import MLPAE
from synbrain.baselines.mlp_networks import Denoiser
from synbrain.baselines.mlp_parts import MLPConfig, train_loop
from synbrain.features.tokens import Pairs, TokenSet

AT_ONCE = 512  # latents denoised together


class MindSimulator(MLPAE):
    """Synthetic trials by denoising; the prediction is the mean of ``n_average`` of them.

    Args:
        config: settings; by default those of ``mlp_ae`` with 8 epochs for the prior.
        n_average: 5 is the published multi-trial enhancement, 1 its single trial.
    """

    def __init__(self, config: MLPConfig | None = None, n_average: int = 5) -> None:
        super().__init__(config or MLPConfig(second_epochs=8))  # trials, several to an image: more steps each
        self.n_average = n_average

    def _fit_second(self, training: Pairs, validation: Pairs, show_progress: bool) -> None:
        """The prior, on the latents of single trials."""
        config = self.config
        self.kept_signal = cosine_schedule(config.timesteps)
        latents, validation_latents = self._trial_latents(training), self._trial_latents(validation)
        self._standardise(latents)
        latents, validation_latents = self._standard(latents), self._standard(validation_latents)
        self.prior = Denoiser(config.tokens, config.dim, config.depth, config.heads, config.timesteps)
        levels = torch.arange(len(validation_latents)) % config.timesteps  # the same in every epoch
        seen_by = self.grid.bank(training.tokens)
        validation_noise = torch.randn(validation_latents.shape)
        validation_seen = self.grid.read(validation.tokens)[torch.from_numpy(validation.image_of_trial)]

        def loss(items: Tensor) -> Tensor:
            clean = latents[items]
            t = torch.randint(config.timesteps, (len(items),))
            seen = seen_by(training.image_of_trial[items.numpy()])
            keep = torch.rand(len(items)) >= config.drop
            noisy = self._noised(clean, t, torch.randn(clean.shape))
            return torch.nn.functional.mse_loss(self.prior(noisy, t, seen, keep), clean)

        def after_epoch() -> dict[str, float]:
            noisy = self._noised(validation_latents, levels, validation_noise)
            denoised = self.prior(noisy, levels, validation_seen)
            return {"validation": float(torch.nn.functional.mse_loss(denoised, validation_latents))}

        self.mapper_curves = train_loop(
            self.prior, loss, training.n_trials, config, "prior", after_epoch, show_progress, second=True
        )

    def _trial_latents(self, pairs: Pairs) -> Tensor:
        parts = []
        with torch.no_grad():
            for start in range(0, pairs.n_trials, 512):
                which = np.arange(start, min(start + 512, pairs.n_trials))
                parts.append(self.autoencoder.encode(self.standardised(pairs.trial_responses(which))).mode())
        return torch.cat(parts)

    def _noised(self, clean: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        kept = self.kept_signal[t][:, None, None]
        return kept.sqrt() * clean + (1 - kept).sqrt() * noise

    def _denoised(self, seen: Tensor, generator: torch.Generator, *, shared: bool) -> Tensor:
        """(n, tokens, dim) latents of images ``seen`` (n, tokens, dim), ancestral sampling.

        With ``shared`` the same noise is used for every image, so that the result depends on the image alone.
        """

        def noise() -> Tensor:
            shape = (1, *seen.shape[1:]) if shared else seen.shape
            return torch.randn(shape, generator=generator).expand(seen.shape)

        visited = np.linspace(
            self.config.timesteps - 1, 0, min(self.config.sample_steps, self.config.timesteps)
        )
        levels = np.unique(visited.round().astype(int))[::-1]
        x, clean = noise(), torch.zeros_like(seen)
        for k, level in enumerate(levels):
            kept = self.kept_signal[level]
            clean = self.prior(x, torch.full((len(seen),), int(level)), seen)
            if k + 1 == len(levels):
                break
            later = self.kept_signal[levels[k + 1]]
            error = (x - kept.sqrt() * clean) / (1 - kept).sqrt()
            variance = (1 - later) / (1 - kept) * (1 - kept / later)
            x = (
                later.sqrt() * clean
                + (1 - later - variance).clamp(min=0).sqrt() * error
                + variance.sqrt() * noise()
            )
        return clean * self.latent_sd + self.latent_mean

    def predict(self, tokens: TokenSet) -> Float32:
        """(n_images, n_voxels) float32, mean of ``n_average`` synthetic trials of fixed noise."""
        total = np.zeros((len(tokens), len(self.scale.mean)), dtype=np.float64)
        for number in range(self.n_average):
            for start in range(0, len(tokens), AT_ONCE):
                rows = np.arange(start, min(start + AT_ONCE, len(tokens)))
                generator = torch.Generator().manual_seed(number)
                with torch.no_grad():
                    latents = self._denoised(self.grid.read(tokens, rows), generator, shared=True)
                    total[rows] += self.autoencoder.decode(latents).numpy()
        return self.scale.restored(total / self.n_average)

    def sample(self, tokens: TokenSet, n_samples: int, seed: int = 0) -> Float32:
        """(n_samples, n_images, n_voxels) float32, independent synthetic trials."""
        generator = torch.Generator().manual_seed(seed)
        out = np.empty((n_samples, len(tokens), len(self.scale.mean)), dtype=np.float32)
        step = max(1, AT_ONCE // n_samples)
        for start in range(0, len(tokens), step):
            rows = np.arange(start, min(start + step, len(tokens)))
            with torch.no_grad():
                seen = self.grid.read(tokens, rows).repeat(n_samples, 1, 1)
                trials = self.autoencoder.decode(self._denoised(seen, generator, shared=False)).numpy()
            out[:, rows] = self.scale.restored(trials).reshape(n_samples, len(rows), -1)
        return out


def cosine_schedule(timesteps: int) -> Tensor:
    """(timesteps,) share of signal variance kept at each level (Nichol and Dhariwal 2021, eq. 17)."""
    t = torch.linspace(0, 1, timesteps + 1, dtype=torch.float64)
    kept = torch.cos((t + 0.008) / 1.008 * torch.pi / 2) ** 2
    ratio = (kept[1:] / kept[:-1]).clamp(min=1 - 0.999)
    return torch.cumprod(ratio, dim=0).float()
