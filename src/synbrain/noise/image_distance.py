"""How far an image lies from the training images: the predictive variance of kernel ridge, in few numbers.

Kernel ridge with k(x, x') = f(x)' f(x') does not know of the mean at x::

    v(x) = k(x, x) - k(x, X) (K + a I)^-1 k(X, x)
         = |f|^2 - sum_j s_j^2 / (s_j^2 + a) (u_j' f)^2,      F = sum_j s_j w_j u_j'  (training features)

The second form needs no training image: the leading axes u_j and their shrinkage are kept. Directions beyond
them count in full, as if no training image had told of them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from sklearn.utils.extmath import randomized_svd

from synbrain.arrays import Float32, Float64, Rows
from synbrain.features.tokens import TokenSet

MOST_AXES = 128
BLOCK = 256


@dataclass(frozen=True)
class ImageDistance:
    """``v(x)`` of tokens averaged over places, each layer of the same size; mean 1 over unseen images.

    Attributes:
        layers: read, in this order.
        centre: (d,) float32, mean features of the training images, all layers one after the other.
        size: (d,) float32, what centred features are divided by.
        axes: (d, q) float32, orthonormal.
        known: (q,) float32 in [0, 1], how much of an axis the training images tell, s^2 / (s^2 + a).
        unit: mean of ``v`` over training images that were left out of its fit.
    """

    layers: tuple[str, ...]
    centre: Float32
    size: Float32
    axes: Float32
    known: Float32
    unit: float = 1.0

    def of(self, tokens: TokenSet) -> Float64:
        """(n_images,) v(x), 1 for an image as far as left-out training images are on average."""
        return self.of_features(pooled(tokens, self.layers))

    def of_features(self, features: Float32) -> Float64:
        """:meth:`of` given :func:`pooled` features (n_images, d)."""
        f = (features - self.centre) / self.size
        seen = (f @ self.axes) ** 2 @ self.known
        return np.asarray(np.maximum(np.sum(f**2, axis=1) - seen, 0), dtype=np.float64) / self.unit

    @classmethod
    def fit(cls, features: Float32, layers: tuple[str, ...], dims: list[int], penalty: float) -> Self:
        """Fit to training images.

        Args:
            features: (n_images, d), from :func:`pooled`.
            layers: their names.
            dims: width of each layer; they sum to d.
            penalty: a, as a fraction of the mean eigenvalue of the kernel over its leading axes.
        """
        centre = features.mean(axis=0)
        f = features - centre
        ends = np.cumsum(dims)
        of_layer = [
            float(np.sqrt(max(np.mean(np.sum(f[:, end - dim : end] ** 2, axis=1)), 1e-12)))
            for end, dim in zip(ends, dims, strict=True)
        ]
        size = np.repeat(of_layer, dims).astype(np.float32)
        q = max(1, min(MOST_AXES, len(f) // 3, f.shape[1]))
        _, s, axes = randomized_svd(f / size, q, random_state=0)
        a = penalty * float(np.mean(s**2))
        known = s**2 / (s**2 + a) if a > 0 else np.ones_like(s)
        return cls(layers, centre, size, np.ascontiguousarray(axes.T, np.float32), known.astype(np.float32))

    def in_units_of(self, values: Float64) -> Self:
        """The same distance, with ``values`` of it being 1 on average."""
        return replace(self, unit=self.unit * max(float(np.mean(values)), 1e-12))


def pooled(tokens: TokenSet, layers: tuple[str, ...]) -> Float32:
    """(n_images, d) float32, tokens averaged over places, layers one after the other, in blocks of images."""
    out = []
    for start in range(0, len(tokens), BLOCK):
        rows = np.arange(start, min(start + BLOCK, len(tokens)))
        out.append(np.concatenate([tokens.read(layer, rows).mean(axis=1) for layer in layers], axis=1))
    width = sum(tokens.shapes[layer][1] for layer in layers)
    return np.concatenate(out) if out else np.zeros((0, width), dtype=np.float32)


def left_out_distances(
    features: Float32,
    layers: tuple[str, ...],
    dims: list[int],
    penalty: float,
    families: Rows,
    *,
    seed: int,
    n_folds: int = 5,
) -> Float64:
    """(n_images,) v of each training image under a fit to the others' folds, mean 1; no family is parted."""
    n_families, family = np.unique(families, return_inverse=True)
    folds = (np.random.default_rng([seed, 7]).permutation(len(n_families)) % n_folds)[family]
    out = np.zeros(len(features))
    for fold in np.unique(folds):
        fitted = ImageDistance.fit(features[folds != fold], layers, dims, penalty)
        out[folds == fold] = fitted.of_features(features[folds == fold])
    return out
