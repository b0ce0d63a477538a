"""Linear kernels of token layers, computed in blocks over memory-mapped tokens.

Tokens are centred with the training mean of each feature and *not* z-scored: z-scoring the features drops
ridge on real recordings from .53 to .32, for it inflates features that hardly vary. Each layer's kernel is
divided by its mean diagonal over the training images, so that layers of any size weigh alike and one grid
of penalties fits all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synbrain.arrays import Float32, Float64
from synbrain.errors import SynBrainError
from synbrain.features.tokens import TokenSet
from synbrain.linear.kernels import token_kernel
from synbrain.metrics.voxel import blocks
from synbrain.progress import track

MANY_IMAGES = 2500  # from here on Gram matrices stay float32
BLOCK_VALUES = 2**25  # float32 token values in memory at a time: 128 MiB


@dataclass(frozen=True)
class TokenKernels:
    """Training images as the basis of linear kernels, one per layer.

    Attributes:
        train: tokens of the training images, read again (lazily) for every prediction.
        means: layer -> (n_tokens, dim) float32, training mean.
        scales: layer -> mean squared norm of the centred training tokens.
    """

    train: TokenSet
    means: dict[str, Float32]
    scales: dict[str, float]
    _diagonal: dict[str, Float64] = field(default_factory=dict)

    @classmethod
    def fit(cls, tokens: TokenSet, *, show_progress: bool = False) -> tuple[TokenKernels, NDArray[Any]]:
        """The kernels and their (n_layers, n_images, n_images) Gram matrices, mean diagonal 1.

        float64; float32 from :data:`MANY_IMAGES` on, where it would fill memory.
        """
        means, scales, grams = {}, {}, []
        for layer in track(tokens.layers, "kernels", unit="layer", show=show_progress):
            means[layer], kernel = token_kernel(tokens, layer)
            many = len(tokens) >= MANY_IMAGES
            gram = kernel.numpy() if many else kernel.numpy().astype(np.float64)
            scales[layer] = float(np.trace(gram, dtype=np.float64) / len(gram)) or 1.0
            gram /= scales[layer]
            grams.append(gram)
        return cls(tokens, means, scales), grams[0][None] if len(grams) == 1 else np.asarray(grams)

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
        for k, (layer, mean) in enumerate(self.means.items()):
            for part, (new, train) in _token_blocks(layer, [tokens, self.train]):
                left = (new - mean[part]).reshape(len(new), -1)
                out[k] += left @ (train - mean[part]).reshape(len(train), -1).T
            out[k] /= self.scales[layer]
        return out


def _token_blocks(layer: str, sets: list[TokenSet]) -> Iterator[tuple[slice, list[Float32]]]:
    """Some tokens of one layer at a time, for all images of each set, float32 (n, tokens, dim)."""
    n_tokens, dim = sets[0].shapes[layer]
    for part in blocks(n_tokens, dim * sum(len(s) for s in sets), BLOCK_VALUES):
        yield part, [np.asarray(s.layers[layer][s.rows, part], dtype=np.float32) for s in sets]
