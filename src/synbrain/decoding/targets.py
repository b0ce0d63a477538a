"""From an encoder's tokens to what a decoder aims at: pooled over the grid, projected on components."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from scipy.linalg import eigh
from torch.nn import functional as F

from synbrain.arrays import Float32
from synbrain.decoding.protocol import Pictures, State, TokenSpace
from synbrain.describe import counted
from synbrain.errors import SynBrainError
from synbrain.features.tokens import TokenSet
from synbrain.files import digest_of

AT_ONCE = 256  # images


@dataclass(frozen=True)
class TokenTargets:
    """``t = (pool(tokens) - mean) components / scale``; the identity where nothing is reduced.

    Attributes:
        source: the encoder's own token space.
        grid: side that a square grid of tokens is average-pooled to; 0: as it is.
        mean: (n_tokens, dim) float32 of the training images; None for the identity.
        components: (dim, n_components) float32, orthonormal columns.
        scale: root mean square of the centred, projected training tokens.
    """

    source: TokenSpace
    grid: int = 0
    mean: Float32 | None = None
    components: Float32 | None = None
    scale: float = 1.0

    @property
    def space(self) -> TokenSpace:
        """The space of what :meth:`of` returns."""
        if self.mean is None or self.components is None:
            return self.source
        facts = {
            "grid": self.grid, "scale": self.scale,
            "sums": [float(np.abs(a.astype(np.float64)).sum()) for a in (self.mean, self.components)],
        }  # fmt: skip
        n_tokens, dim = len(self.mean), self.components.shape[1]
        return self.source.model_copy(
            update={"n_tokens": n_tokens, "dim": dim, "reduction": digest_of(facts)}
        )

    @classmethod
    def fit(
        cls,
        sets: Sequence[TokenSet],
        layer: str,
        *,
        grid: int = 3,
        components: int = 64,
        pictures: Pictures = "plain",
    ) -> Self:
        """Mean, components and scale of the images in ``sets``, which are to be training images.

        Args:
            sets: tokens of the training images of each subject, of one encoder.
            layer: the one to decode.
            grid: side to pool a square grid to; 0 keeps every token.
            components: principal components over all tokens of all images; 0 keeps the encoder's tokens
                as they are, uncentred.
            pictures: the convention that the tokens were made with.

        Raises:
            SynBrainError: where tokens form no square grid, or there are too few of them.
        """
        tokens = sets[0]
        n_tokens, dim = tokens.only(layer).shapes[layer]
        source = TokenSpace(
            encoder=tokens.encoder, digest=tokens.digest, layer=layer, n_tokens=n_tokens, dim=dim,
            pictures=pictures, given=tokens.given.get(layer, ""),
        )  # fmt: skip
        if not components and not grid:
            return cls(source)
        pooled = np.concatenate([_pooled(each, layer, grid) for each in sets])
        mean = pooled.mean(axis=0, dtype=np.float64).astype(np.float32)
        centred = (pooled - mean).reshape(-1, dim)
        kept = min(components or dim, dim)
        if len(centred) <= kept:
            raise SynBrainError(
                f"{counted(len(pooled), 'training image')} for {counted(kept, 'component')}",
                "give more images or fewer components",
            )
        covariance = centred.T.astype(np.float64) @ centred / len(centred)
        values, vectors = eigh(covariance, subset_by_index=(dim - kept, dim - 1))
        # the sign of an eigenvector is arbitrary: its largest entry is made positive
        vectors = vectors[:, ::-1] * np.sign(vectors[np.abs(vectors).argmax(axis=0), range(kept)])[::-1]
        scale = float(np.sqrt(np.maximum(values, 0).mean())) or 1.0
        return cls(source, grid, mean, np.ascontiguousarray(vectors, dtype=np.float32), scale)

    def of(self, tokens: TokenSet, pictures: Pictures = "plain") -> Float32:
        """(n_images, n_tokens, dim) float32, tokens of images in this decoder's space.

        Raises:
            SynBrainError: for tokens of another encoder, layer or picture convention.
        """
        layer = self.source.layer
        n_tokens, dim = tokens.only(layer).shapes[layer]
        # an imported decoder may not know its encoder's digest
        known = tokens.digest if self.source.digest else ""
        self.source.require(
            TokenSpace(
                encoder=tokens.encoder, digest=known, layer=layer, n_tokens=n_tokens, dim=dim,
                pictures=pictures, given=tokens.given.get(layer, ""),
            )
        )  # fmt: skip
        if self.mean is None or self.components is None:
            return tokens.read(layer)
        centred = _pooled(tokens, layer, self.grid) - self.mean
        return np.asarray(centred @ self.components / self.scale, dtype=np.float32)

    def state(self) -> State:
        """Tensors for the folder; empty for the identity."""
        if self.mean is None or self.components is None:
            return {}
        return {"mean": torch.from_numpy(self.mean), "components": torch.from_numpy(self.components)}

    @classmethod
    def restore(cls, source: TokenSpace, grid: int, scale: float, state: State) -> Self:
        """From what ``config.json`` and :meth:`state` hold."""
        if not state:
            return cls(source, grid)
        return cls(source, grid, state["mean"].numpy(), state["components"].numpy(), scale)


def _pooled(tokens: TokenSet, layer: str, grid: int) -> Float32:
    """(n_images, grid * grid, dim) float32; every token where ``grid`` is 0."""
    n_tokens, dim = tokens.shapes[layer]
    side = round(n_tokens**0.5)
    if grid and (side * side != n_tokens or grid > side):
        raise SynBrainError(
            f"{n_tokens} tokens of {layer} cannot be pooled to {grid} x {grid}",
            "pass --grid 0 to keep every token, or a layer with a square grid",
        )
    out = np.empty((len(tokens), grid * grid if grid else n_tokens, dim), dtype=np.float32)
    for start in range(0, len(tokens), AT_ONCE):
        rows = np.arange(start, min(start + AT_ONCE, len(tokens)))
        read = tokens.read(layer, rows)
        if grid:
            maps = torch.from_numpy(read).transpose(1, 2).reshape(len(rows), dim, side, side)
            read = F.adaptive_avg_pool2d(maps, grid).flatten(2).transpose(1, 2).numpy()
        out[rows] = read
    return out
