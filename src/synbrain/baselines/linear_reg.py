"""The paper's linear baseline: two linear layers from flattened tokens to voxels, trained by AdamW."""

from __future__ import annotations

import copy
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from synbrain.arrays import Float32
from synbrain.baselines.protocol import point_mass
from synbrain.features.scale import Scale
from synbrain.features.tokens import Pairs, TokenSet
from synbrain.progress import bar


class LinearRegConfig(BaseModel):
    """Settings of :class:`LinearReg`; the paper gives the hidden width 4096 and nothing else.

    Attributes:
        hidden: width between the two layers.
        lr, weight_decay, batch_size, epochs: of AdamW with a one-cycle schedule.
        patience: epochs without a better validation loss after which training stops.
        validation: share of the training images held out to stop on.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    hidden: int = Field(256, ge=1)
    lr: float = Field(1e-4, gt=0)
    weight_decay: float = Field(0.05, ge=0)
    batch_size: int = Field(64, ge=1)
    epochs: int = Field(30, ge=1)
    patience: int = Field(5, ge=1)
    validation: float = Field(0.1, gt=0, lt=1)


class LinearReg:
    """Two linear layers without a nonlinearity; a rank constraint and early stopping are all it has.

    Args:
        config: settings.
        device: where it is trained and run.
    """

    def __init__(self, config: LinearRegConfig | None = None, device: str = "cpu") -> None:
        self.config = config or LinearRegConfig()
        self.device = torch.device(device)

    def fit(self, pairs: Pairs, *, seed: int = 0, show_progress: bool = False) -> Self:
        """Minimise the MSE to repeat means, in z-scored voxels; the best epoch on validation is kept."""
        config = self.config
        training, validation = pairs.hold_out(config.validation, seed)
        targets = training.repeat_means()
        self.scale = Scale.of(targets)
        self.token_mean, self.token_scale = _token_statistics(training.tokens)
        width = sum(n * dim for n, dim in training.tokens.shapes.values())
        generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = torch.nn.Sequential(
                torch.nn.Linear(width, config.hidden), torch.nn.Linear(config.hidden, pairs.n_voxels)
            ).to(self.device)
        y = torch.from_numpy(self.scale.scaled(targets))
        y_validation = torch.from_numpy(self.scale.scaled(validation.repeat_means())).to(self.device)
        steps = -(-training.n_images // config.batch_size)
        optimiser = torch.optim.AdamW(
            self.network.parameters(), lr=config.lr, weight_decay=config.weight_decay
        )
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimiser, max_lr=config.lr, total_steps=steps * config.epochs
        )
        best, best_state, waited = float("inf"), self.network.state_dict(), 0
        progress = bar("linear_reg", total=config.epochs, unit="epoch", show=show_progress)
        for _ in range(config.epochs):
            self.network.train()
            for rows in torch.randperm(training.n_images, generator=generator).split(config.batch_size):
                x = self._inputs(training.tokens.take(rows.numpy()))
                loss = torch.nn.functional.mse_loss(self.network(x), y[rows].to(self.device))
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                optimiser.step()
                schedule.step()
            with torch.inference_mode():
                error = float(torch.nn.functional.mse_loss(self._forward(validation.tokens), y_validation))
            progress.update(1)
            if error < best:
                best, best_state, waited = error, copy.deepcopy(self.network.state_dict()), 0
            elif (waited := waited + 1) >= config.patience:
                break
        progress.close()
        self.network.load_state_dict(best_state)
        return self

    def _inputs(self, tokens: TokenSet) -> torch.Tensor:
        parts = [
            ((tokens.read(layer) - mean) / self.token_scale[layer]).reshape(len(tokens), -1)
            for layer, mean in self.token_mean.items()
        ]
        return torch.from_numpy(np.concatenate(parts, axis=1)).to(self.device)

    def _forward(self, tokens: TokenSet) -> torch.Tensor:
        size = self.config.batch_size
        parts = [np.arange(start, min(start + size, len(tokens))) for start in range(0, len(tokens), size)]
        return torch.cat([self.network(self._inputs(tokens.take(rows))) for rows in parts])

    def predict(self, tokens: TokenSet) -> Float32:
        """(n_images, n_voxels) float32, the dataset's unit."""
        if len(tokens) == 0:
            return np.empty((0, len(self.scale.mean)), dtype=np.float32)
        with torch.inference_mode():
            out = self._forward(tokens.only(*self.token_mean)).cpu().numpy()
        return self.scale.restored(out)

    def sample(self, tokens: TokenSet, n_samples: int, seed: int = 0) -> Float32:
        """(n_samples, n_images, n_voxels) float32, a point mass."""
        return point_mass(self.predict(tokens), n_samples)

    def sample_around(self, mean: Float32, n_samples: int, seed: int = 0) -> Float32:
        """As :meth:`sample`, given the predictions."""
        return point_mass(mean, n_samples)


def _token_statistics(tokens: TokenSet) -> tuple[dict[str, NDArray[np.float32]], dict[str, float]]:
    """Per layer: mean of every feature, and one scale for all (the root mean square of what is left)."""
    means, scales = {}, {}
    for layer, shape in tokens.shapes.items():
        total, squares = np.zeros(shape), 0.0
        for start in range(0, len(tokens), 128):
            block = tokens.read(layer, np.arange(start, min(start + 128, len(tokens)))).astype(np.float64)
            total += block.sum(axis=0)
            squares += float(np.sum(block**2))
        means[layer] = (total / len(tokens)).astype(np.float32)
        left = squares / len(tokens) - float(np.sum(np.square(means[layer], dtype=np.float64)))
        scales[layer] = float(np.sqrt(max(left, 0.0) / means[layer].size)) or 1.0
    return means, scales
