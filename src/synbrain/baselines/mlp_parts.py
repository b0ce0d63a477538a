"""What the MLP baselines share: settings, scaling, image tokens in the latent's shape, one loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from synbrain.features.tokens import TokenSet
from synbrain.metrics.voxel import blocks
from synbrain.progress import bar

KEPT_VALUES = 2**26  # projected tokens of the training images kept in memory: 256 MiB
MOST_IMAGES = 1024  # that principal components are taken from


class MLPConfig(BaseModel):
    """Sizes and training of the MLP baselines; the released values in brackets.

    The defaults were chosen on held-out training images (benchmarks/tune_baselines.py and
    docs/research/comparison.md).

    Attributes:
        tokens, dim: of the latent [257, 768].
        hidden: width of the perceptrons [256].
        blocks, dropout: residual blocks of encoder and decoder [2], dropout in them [.15].
        lr, weight_decay, batch_size: AdamW with a one-cycle schedule [3e-4, 1e-2, 32].
        epochs: of the autoencoder [300].
        second_lr, second_weight_decay, second_epochs: of the mapper or the prior [3e-4, 1e-2, 150].
        depth, heads: of the mapper or the prior [6, 14].
        clip_weight: of SoftCLIP beside the MSE per voxel [1].
        kl_weight: of the divergence per voxel, for the variational one.
        timesteps, sample_steps: noise levels of the prior, and how many of them sampling visits [100, 100].
        drop: share of samples that the prior sees without their image [.2].
        validation: share of the training images held out for the curves and for the best epoch.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    tokens: int = Field(1, ge=1)
    dim: int = Field(256, ge=2)
    hidden: int = Field(128, ge=2)
    blocks: int = Field(2, ge=0)
    dropout: float = Field(0.15, ge=0, lt=1)
    lr: float = Field(1e-3, gt=0)
    weight_decay: float = Field(1e-2, ge=0)
    batch_size: int = Field(64, ge=2)
    epochs: int = Field(8, ge=1)
    second_epochs: int = Field(40, ge=1)
    second_lr: float = Field(1e-3, gt=0)
    second_weight_decay: float = Field(1e-2, ge=0)
    depth: int = Field(1, ge=1)
    heads: int = Field(4, ge=1)
    clip_weight: float = Field(0.1, ge=0)
    kl_weight: float = Field(1e-3, ge=0)
    timesteps: int = Field(100, ge=2)
    sample_steps: int = Field(20, ge=1)
    drop: float = Field(0.2, ge=0, lt=1)
    validation: float = Field(0.1, gt=0, lt=1)


class LatentTokens:
    """Image tokens in the latent's shape: the contrast's target and the condition of mapper and prior.

    One layer is used: the encoder's final one, or the last of the token set. Tokens that have the latent's
    shape (the published case) are centred on training images and scaled to unit size. Others are replaced by
    as many principal components of the flattened tokens, from at most ``MOST_IMAGES`` training images, turned
    by a fixed random rotation so that all values have one size; cosines between images stay what they were.
    """

    def __init__(self, train: TokenSet, tokens: int, dim: int) -> None:
        self.layer = "final" if "final" in train.layers else list(train.layers)[-1]
        self.shape = (tokens, dim)
        total = np.zeros(train.shapes[self.layer])
        parts = [np.arange(part.start, part.stop) for part in blocks(len(train), total.size)]
        for rows in parts:
            total += train.read(self.layer, rows).sum(axis=0, dtype=np.float64)
        self.mean = (total / len(train)).astype(np.float32)
        self.projection = self._fitted(train)
        self.scale = 1.0
        squares = sum(float(self.read(train, rows).square().sum()) for rows in parts)
        self.scale = float(np.sqrt(squares / (len(train) * tokens * dim))) or 1.0

    def _fitted(self, train: TokenSet) -> Tensor | None:
        """(n_tokens * token_dim, tokens * dim), orthonormal where the images give as many components.

        None where the tokens have the latent's shape.
        """
        if self.mean.shape == self.shape:
            return None
        rng, size = np.random.default_rng(0), self.shape[0] * self.shape[1]
        rows = np.sort(rng.permutation(len(train))[:MOST_IMAGES])
        x = torch.from_numpy(train.read(self.layer, rows) - self.mean).flatten(1)
        values, vectors = torch.linalg.eigh((x @ x.T).double())
        kept = (values > 1e-6 * values[-1]).nonzero()[:, 0][-size:]
        axes = x.T @ (vectors[:, kept] / values[kept].sqrt()).float()
        turned = torch.linalg.qr(torch.from_numpy(rng.normal(size=(size, len(kept))))).Q.float()
        projection: Tensor = axes @ turned.T
        return projection

    def read(self, tokens: TokenSet, rows: NDArray[np.int64] | None = None) -> Tensor:
        """(n, tokens, dim) float32."""
        rows = np.arange(len(tokens)) if rows is None else rows
        out = torch.empty(len(rows), *self.shape)
        for part in blocks(len(rows), self.mean.size):  # the encoder's tokens are many times as large
            centred = torch.from_numpy(tokens.read(self.layer, rows[part]) - self.mean)
            out[part] = self._shaped(centred) / self.scale
        return out

    def _shaped(self, centred: Tensor) -> Tensor:
        """(n, n_tokens, token_dim) to (n, tokens, dim)."""
        if self.projection is None:
            return centred
        return (centred.flatten(1) @ self.projection).view(-1, *self.shape)

    def bank(self, tokens: TokenSet) -> Callable[[NDArray[np.int64]], Tensor]:
        """Rows of ``tokens`` to (n, tokens, dim); projected once and kept where that is small."""
        if len(tokens) * self.shape[0] * self.shape[1] > KEPT_VALUES:
            return lambda rows: self.read(tokens, rows)
        kept = self.read(tokens)
        return lambda rows: kept[torch.from_numpy(rows)]


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Torch's global generator seeded inside the block, and as it was after it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def train_loop(
    networks: nn.Module,
    loss: Callable[[Tensor], Tensor],
    n_items: int,
    config: MLPConfig,
    what: str,
    after_epoch: Callable[[], dict[str, float]],
    show_progress: bool,
    *,
    second: bool = False,
) -> list[dict[str, float]]:
    """AdamW with a one-cycle schedule; the epoch of the smallest "validation" is kept.

    Args:
        networks: whose parameters are trained, in place.
        loss: of the items (batch,) int64.
        n_items: number of training items.
        config: settings.
        what: words before the bar.
        after_epoch: measures one epoch; "validation" decides.
        show_progress: a bar.
        second: epochs, lr and weight decay of the mapper or the prior, not those of the autoencoder.

    Returns:
        What ``after_epoch`` gave, with the mean training loss, for each epoch.
    """
    steps = -(-n_items // config.batch_size)
    lr, decay, epochs = config.lr, config.weight_decay, config.epochs
    if second:
        lr, decay, epochs = config.second_lr, config.second_weight_decay, config.second_epochs
    optimiser = torch.optim.AdamW(networks.parameters(), lr=lr, weight_decay=decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=lr, total_steps=epochs * steps)
    history: list[dict[str, float]] = []
    best, kept = float("inf"), {k: v.clone() for k, v in networks.state_dict().items()}
    progress = bar(what, total=epochs, unit="epoch", show=show_progress)
    for _ in range(epochs):
        networks.train()
        total = 0.0
        for items in torch.randperm(n_items).split(config.batch_size):
            value = loss(items)
            optimiser.zero_grad(set_to_none=True)
            value.backward()
            nn.utils.clip_grad_norm_(networks.parameters(), 2.0)
            optimiser.step()
            schedule.step()
            total += float(value.detach()) * len(items) / n_items
        networks.eval()
        with torch.no_grad():
            history.append({"train": total, **after_epoch()})
        if history[-1]["validation"] < best:
            best = history[-1]["validation"]
            kept = {k: v.clone() for k, v in networks.state_dict().items()}
        progress.update(1)
    progress.close()
    networks.load_state_dict(kept)
    networks.eval()
    return history
