"""Decoded pictures without a generative network: the nearest known picture, and a small linear pixel decoder.

Both are honest about what they are. A gallery shows real pictures of a bank, the ones whose tokens are
nearest to the predicted ones; a pixel decoder shows the blur that ridge regression finds in the tokens.
Neither paints a detail that the responses did not give.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from himalaya.kernel_ridge import KernelRidgeCV
from numpy.typing import NDArray
from PIL import Image
from sklearn.model_selection import PredefinedSplit

from synbrain.arrays import Float32, Rows
from synbrain.describe import counted
from synbrain.errors import SynBrainError
from synbrain.features.look_alikes import families, folds_of, n_alike
from synbrain.metrics.retrieval import cosine_matrix

ALPHAS = np.logspace(-3, 5, 17)
N_FOLDS = 5
SIDE = 32  # pixels of a decoded picture
COLOURS = 3


def nearest_images(predicted: Float32, bank: Float32, *, n: int = 5) -> Rows:
    """(n_predicted, n) rows of the images in a bank whose tokens are most like the predicted ones, best
    first.

    Args:
        predicted: (n_predicted, n_tokens, dim), for example ``decoder.embed(responses)``.
        bank: (n_bank, n_tokens, dim) tokens of known images, in the same token space.
        n: how many for each.

    Raises:
        SynBrainError: for tokens of another size, or fewer than ``n`` images in the bank.

    Example:
        >>> import numpy as np
        >>> bank = np.eye(3, dtype=np.float32)[:, None]
        >>> nearest_images(bank[[2, 0]], bank, n=1).tolist()
        [[2], [0]]
    """
    if predicted.shape[1:] != bank.shape[1:]:
        raise SynBrainError(
            f"predicted tokens are {predicted.shape[1:]}, those of the bank {bank.shape[1:]}",
            "encode the bank with the decoder's encoder and layer",
        )
    if len(bank) < n:
        raise SynBrainError(
            f"{n} nearest images of a bank of {len(bank)}", "ask for fewer, or give more images"
        )
    similarity = cosine_matrix(predicted, bank)
    return np.argsort(-similarity, axis=1, kind="stable")[:, :n]


@dataclass(frozen=True)
class PixelDecoder:
    """Ridge from tokens to small pictures: pixels = (tokens - centre) weights + mean picture.

    Attributes:
        centre: (n_tokens * dim,) float32, mean training tokens.
        weights: (n_tokens * dim, SIDE * SIDE * 3) float32.
        mean: (SIDE * SIDE * 3,) float32, mean training picture in [0, 1].
    """

    centre: Float32
    weights: Float32
    mean: Float32

    @classmethod
    def fit(cls, tokens: Float32, pictures: Iterable[NDArray[np.uint8]]) -> Self:
        """Fit on training images; the penalty of every pixel is chosen by cross-validation over images
        (himalaya).

        Args:
            tokens: (n_images, n_tokens, dim), the images' own tokens.
            pictures: (h, w, 3) uint8 each, the images; read one by one, of any sizes.

        Raises:
            SynBrainError: for fewer images than folds, or tokens and pictures that do not pair up.
        """
        shrunk = [small(picture).ravel() for picture in pictures]
        if len(tokens) != len(shrunk) or len(tokens) < N_FOLDS:
            raise SynBrainError(
                f"tokens of {counted(len(tokens), 'image')} for {counted(len(shrunk), 'picture')}",
                f"give the tokens of these pictures, {N_FOLDS} at least",
            )
        x, y = tokens.reshape(len(tokens), -1).astype(np.float64), np.stack(shrunk)
        centre, mean = x.mean(axis=0), y.mean(axis=0)
        x, gram = x - centre, (x - centre) @ (x - centre).T
        size = float(np.trace(gram) / len(gram)) or 1.0
        family = families({"": tokens}, np.arange(len(tokens)))
        cv = PredefinedSplit(folds_of(family, N_FOLDS, 0)) if n_alike(family) else N_FOLDS
        model = KernelRidgeCV(
            alphas=ALPHAS, kernel="precomputed", cv=cv, solver_params={"n_targets_batch": 1024}
        )
        model.fit(gram / size, y - mean)
        weights = x.T @ model.dual_coef_ / size
        return cls(*(np.asarray(value, dtype=np.float32) for value in (centre, weights, mean)))

    def render(self, predicted: Float32, *, seed: int = 0) -> NDArray[np.uint8]:
        """(n, SIDE, SIDE, 3) uint8 of (n, n_tokens, dim) predicted tokens; ``seed`` is ignored, nothing is
        drawn.
        """
        flat = predicted.reshape(len(predicted), -1)
        if flat.shape[1] != len(self.centre):
            raise SynBrainError(
                f"{flat.shape[1]} token values an image, the pixel decoder was fitted on {len(self.centre)}",
                "use tokens of the decoder that it belongs to",
            )
        pixels = (flat - self.centre) @ self.weights + self.mean
        shape = (len(flat), SIDE, SIDE, COLOURS)
        return np.asarray((pixels.clip(0, 1) * 255).round().reshape(shape), dtype=np.uint8)

    def state(self) -> dict[str, Float32]:
        """The arrays, by name, as :meth:`restore` takes them."""
        return {"centre": self.centre, "weights": self.weights, "mean": self.mean}

    @classmethod
    def restore(cls, state: dict[str, Any]) -> Self:
        return cls(*(np.asarray(state[name], dtype=np.float32) for name in ("centre", "weights", "mean")))


def small(picture: NDArray[np.uint8]) -> Float32:
    """(SIDE, SIDE, 3) float32 in [0, 1] of a picture (h, w, 3) uint8."""
    resized = Image.fromarray(picture).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    return np.asarray(resized, dtype=np.float32) / np.float32(255)
