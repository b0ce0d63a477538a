"""Linear kernels of token layers, computed in blocks over memory-mapped tokens.

Tokens are centred with the training mean of each feature and *not* z-scored: z-scoring the features drops
ridge on real recordings from .53 to .32, for it inflates features that hardly vary. Each layer's kernel is
divided by its mean diagonal over the training images, so that layers of any size weigh alike and one grid
of penalties fits all.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from synbrain.arrays import Float32, Float64
from synbrain.errors import SynBrainError
from synbrain.features.tokens import TokenSet
from synbrain.linear.kernels import LayerGrid
from synbrain.linear.meter import Meter
from synbrain.linear.plain import MANY_IMAGES, token_kernel
from synbrain.metrics.voxel import blocks

CPU = torch.device("cpu")
BLOCK_VALUES = 2**25  # float32 token values of new images in memory at a time: 128 MiB


@dataclass(frozen=True)
class TokenKernels:
    """Training images as the basis of linear kernels, one per layer.

    Attributes:
        train: tokens of the training images, read again (lazily) for every prediction.
        means: layer -> (n_tokens, dim) float32, training mean.
        scales: layer -> mean squared norm of the centred training tokens.
        device: where products are made.
    """

    train: TokenSet
    means: dict[str, Float32]
    scales: dict[str, float]
    device: torch.device = CPU
    _diagonal: dict[str, Float64] = field(default_factory=dict)

    @classmethod
    def fit(
        cls, tokens: TokenSet, device: torch.device = CPU, *, show_progress: bool = False
    ) -> tuple[TokenKernels, NDArray[Any]]:
        """The kernels and their (n_layers, n_images, n_images) Gram matrices, mean diagonal 1.

        float64; float32 from ``MANY_IMAGES`` on, where it would fill memory. Products are made on ``device``.
        """
        kernels, grams = cls.unscaled(tokens, device, show_progress=show_progress)
        for gram, scale in zip(grams, kernels.scales.values(), strict=True):
            gram /= scale
        return kernels, grams[0][None] if len(grams) == 1 else np.asarray(grams)

    @classmethod
    def unscaled(
        cls, tokens: TokenSet, device: torch.device = CPU, *, show_progress: bool = False
    ) -> tuple[TokenKernels, list[NDArray[Any]]]:
        """As :meth:`fit`, each Gram matrix still to be divided by its scale; one on disk stays there."""
        means, scales, grams = {}, {}, []
        size = sum(n_tokens * dim for n_tokens, dim in tokens.shapes.values())
        meter = Meter(len(tokens) ** 2 * size / 1e9, show=show_progress, what="kernels")
        for layer in tokens.layers:
            means[layer], kernel = token_kernel(tokens, layer, device, meter)
            many = len(tokens) >= MANY_IMAGES
            gram = kernel.cpu().numpy() if many else kernel.cpu().numpy().astype(np.float64)
            scales[layer] = float(np.trace(gram, dtype=np.float64) / len(gram)) or 1.0
            grams.append(gram)
        meter.close()
        return cls(tokens, means, scales, device), grams

    def against(self, tokens: TokenSet) -> Float64:
        """(n_layers, len(tokens), n_training_images) float64, the kernels of new with training images.

        Raises:
            SynBrainError: where the tokens are another encoder's, or lack a layer.
        """
        if tokens.digest != self.train.digest:
            raise SynBrainError(
                f"tokens of {tokens.encoder} ({tokens.digest[:8]}) for a model fitted on "
                f"{self.train.encoder} ({self.train.digest[:8]})",
                "encode the images with the model's own encoder",
            )
        tokens = tokens.only(*self.means)
        out = np.zeros((len(self.means), len(tokens), len(self.train)))
        for k, layer in enumerate(self.means):
            stored = tokens.layers[layer]
            total = torch.zeros(out[k].shape, dtype=torch.float64, device=self.device)
            grid = LayerGrid(layer, None, self.train.layers[layer], self.train.rows)
            for start, train, mean in grid.stretches(self.device):
                for rows in blocks(len(tokens), mean.numel(), BLOCK_VALUES):
                    some = stored[tokens.rows[rows], start : start + len(mean)]
                    new = torch.from_numpy(np.ascontiguousarray(some)).to(self.device).float().sub_(mean)
                    total[rows] += new.flatten(1) @ train.flatten(1).T
            out[k] = total.cpu().numpy() / self.scales[layer]
        return out
