"""The multilayer perceptrons of MindSimulator's autoencoder (ICLR 2025, released code), sizes as values."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from synbrain.networks.posterior import Posterior


class ResidualBlock(nn.Module):
    """x + Linear(Dropout(GELU(Linear(LayerNorm(x)))))."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(width, width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.add(x, self.layers(x))


class MLPAutoencoder(nn.Module):
    """Voxels to a latent of ``tokens`` x ``dim`` and back, through hidden layers of one width.

    Args:
        n_voxels: the weights belong to one subject.
        tokens, dim: of the latent.
        hidden: width of every hidden layer.
        blocks: residual blocks of encoder and of decoder.
        dropout: within the blocks.
        variational: whether a second head gives the log variance.
    """

    def __init__(
        self,
        n_voxels: int,
        tokens: int,
        dim: int,
        hidden: int,
        blocks: int,
        dropout: float,
        variational: bool,
    ) -> None:
        super().__init__()
        self.shape = (tokens, dim)
        size = tokens * dim
        self.trunk = nn.Sequential(
            nn.Linear(n_voxels, hidden), *(ResidualBlock(hidden, dropout) for _ in range(blocks))
        )
        self.mean_head = nn.Linear(hidden, size)
        self.logvar_head = nn.Linear(hidden, size) if variational else None
        self.projector = nn.Sequential(
            nn.LayerNorm(size),
            nn.GELU(),
            nn.Linear(size, hidden),
            nn.LayerNorm(hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.LayerNorm(hidden),
            nn.GELU(),
            nn.Linear(hidden, size),
        )
        self.decoder = nn.Sequential(
            nn.Linear(size, hidden),
            *(ResidualBlock(hidden, dropout) for _ in range(blocks)),
            nn.Linear(hidden, n_voxels),
        )

    def encode(self, y: Tensor) -> Posterior:
        """Posterior over (batch, tokens, dim) of responses (batch, n_voxels); no spread if deterministic."""
        h = self.trunk(y)
        mean = self.mean_head(h).unflatten(1, self.shape)
        if self.logvar_head is None:
            return Posterior(mean, torch.full_like(mean, -torch.inf))
        return Posterior(mean, self.logvar_head(h).unflatten(1, self.shape).clamp(-20, 10))

    def project(self, z: Tensor) -> Tensor:
        """(batch, tokens, dim), the latent as the contrastive loss sees it."""
        out: Tensor = self.projector(z.flatten(1)).unflatten(1, self.shape)
        return out

    def decode(self, z: Tensor) -> Tensor:
        """(batch, n_voxels) from (batch, tokens, dim)."""
        out: Tensor = self.decoder(z.flatten(1))
        return out


class Denoiser(nn.Module):
    """A transformer that gives the clean latent from a noisy one, its noise level and image tokens.

    Args:
        tokens, dim: of the latent and of the image tokens.
        depth, heads: of the transformer.
        timesteps: noise levels.
    """

    def __init__(self, tokens: int, dim: int, depth: int, heads: int, timesteps: int) -> None:
        super().__init__()
        self.n_tokens = tokens
        self.time = nn.Embedding(timesteps, dim)
        self.positions = nn.Parameter(0.02 * torch.randn(2 * tokens + 1, dim))
        self.absent = nn.Parameter(0.02 * torch.randn(tokens, dim))  # stands for image tokens left out
        layer = nn.TransformerEncoderLayer(
            dim, heads, 4 * dim, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.transformer = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.out = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, dim))

    def forward(self, noisy: Tensor, t: Tensor, image: Tensor, keep: Tensor | None = None) -> Tensor:
        """Clean latent (batch, tokens, dim).

        Args:
            noisy: (batch, tokens, dim).
            t: (batch,) int64, noise level.
            image: (batch, tokens, dim) image tokens.
            keep: (batch,) bool, where they are shown; everywhere if left out.
        """
        if keep is not None:
            image = torch.where(keep[:, None, None], image, self.absent)
        sequence = torch.cat([image, self.time(t)[:, None], noisy], dim=1) + self.positions
        out: Tensor = self.out(self.transformer(sequence)[:, -self.n_tokens :])
        return out
