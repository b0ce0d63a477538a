"""The linear path of the mean: tokens of one or more layers to voxels, as two thin matrices per layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file
from safetensors.torch import load_file

from synbrain.arrays import Float32, Float64
from synbrain.errors import SynBrainError
from synbrain.features.tokens import TokenSet
from synbrain.files import atomic_path, read_json, write_json
from synbrain.linear.storing import as_stored, column_sizes, require_kept, some_images
from synbrain.metrics.voxel import blocks

CONFIG, WEIGHTS = "config.json", "model.safetensors"
IMAGES, BLOCK_BYTES = 512, 1 << 27  # that are projected at a time
CUT = 1e-3  # of the variance of a sum of paths that may be cut
JOINED_IMAGES = 128  # on which a sum of paths is held against its parts


@dataclass(frozen=True)
class LinearPath:
    """``mean = intercept + (sum over layers of flattened tokens @ projections[layer]) @ mixing``.

    The factors hold any linear map of the tokens whose predictions have rank ``r`` or less; ``r`` is
    bounded by the number of voxels, so a few voxels are stored exactly and many in bounded size.

    Attributes:
        projections: layer -> (n_tokens * dim, r) float16 or float32.
        mixing: (r, n_voxels) float32, in the unit of the responses.
        intercept: (n_voxels,) float32, in the unit of the responses.
        shapes: layer -> (n_tokens, dim), to refuse tokens of another size.
        about: how it was fitted: chosen kernels, cross-validated scores, number of images.
    """

    projections: Mapping[str, NDArray[Any]]
    mixing: NDArray[np.float32]
    intercept: NDArray[np.float32]
    shapes: Mapping[str, tuple[int, int]]
    about: Mapping[str, Any]

    @property
    def n_voxels(self) -> int:
        return len(self.intercept)

    @property
    def layers(self) -> list[str]:
        return list(self.projections)

    def predict(self, tokens: TokenSet, device: str | torch.device = "cpu") -> NDArray[np.float32]:
        """(n_images, n_voxels) float32, in the unit of the responses.

        Args:
            tokens: images.
            device: where tokens are projected, as in :meth:`scores`.

        Raises:
            SynBrainError: where a layer is missing or has another size.
        """
        return np.asarray(self.variation(tokens, device) + self.intercept, dtype=np.float32)

    def variation(self, tokens: TokenSet, device: str | torch.device = "cpu") -> NDArray[np.float32]:
        """As :meth:`predict` without the intercept, beside which float32 rounds a small variation away."""
        return self.scores(tokens, device) @ self.mixing

    def scores(self, tokens: TokenSet, device: str | torch.device = "cpu") -> NDArray[np.float32]:
        """(n_images, r) float32 projections of the tokens, which ``mixing`` takes to voxels.

        Args:
            tokens: images.
            device: where products are made, some tokens and images at a time.

        Raises:
            SynBrainError: where a layer is missing or has another size.
        """
        self._check(tokens)
        reduced = np.zeros((len(tokens), len(self.mixing)), dtype=np.float32)
        for layer, projection in self.projections.items():
            reduced += _project(tokens, layer, projection, torch.device(device))
        return reduced

    def _check(self, tokens: TokenSet) -> None:
        there = tokens.only(*self.layers).shapes
        for layer, shape in self.shapes.items():
            if tuple(there[layer]) != tuple(shape):
                raise SynBrainError(
                    f"layer {layer} has {there[layer]} tokens x channels, the model was fitted on {shape}",
                    "use tokens of the encoder that the run names",
                )

    def save(self, folder: Path) -> list[str]:
        """Write the path into ``folder`` and return the file names written."""
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {f"projection.{layer}": np.ascontiguousarray(p) for layer, p in self.projections.items()}
        tensors |= {"mixing": np.ascontiguousarray(self.mixing), "intercept": self.intercept}
        with atomic_path(folder / WEIGHTS) as partial:
            save_file(tensors, partial)
        shapes = {layer: list(shape) for layer, shape in self.shapes.items()}
        write_json(folder / CONFIG, {"shapes": shapes, "about": dict(self.about)})
        return [CONFIG, WEIGHTS]

    @classmethod
    def load(cls, folder: Path) -> LinearPath:
        """Read a path that :meth:`save` wrote.

        Its arrays stay on disk until they are read, so the file may be replaced or deleted, as all of ours
        do, but not written into while the path is in use.
        """
        config = read_json(folder / CONFIG)
        tensors = {name: tensor.numpy() for name, tensor in load_file(folder / WEIGHTS).items()}
        shapes = {layer: (int(n), int(dim)) for layer, (n, dim) in config["shapes"].items()}
        return cls(
            projections={layer: tensors[f"projection.{layer}"] for layer in shapes},
            mixing=tensors["mixing"],
            intercept=tensors["intercept"],
            shapes=shapes,
            about=config["about"],
        )


def _project(
    tokens: TokenSet, layer: str, projection: NDArray[Any], device: torch.device
) -> NDArray[np.float32]:
    """(n_images, r) float32: flattened tokens times ``projection``, some tokens and images at a time."""
    n_tokens, dim = tokens.shapes[layer]
    out = torch.zeros((len(tokens), projection.shape[1]), device=device)
    # float16 weights are widened a part at a time, for up to IMAGES images: few times, and little memory
    step = max(1, BLOCK_BYTES // (4 * dim * max(IMAGES, projection.shape[1])))
    stored = tokens.layers[layer]
    for first in range(0, n_tokens, step):
        part = slice(first, min(first + step, n_tokens))
        rows = np.ascontiguousarray(projection[part.start * dim : part.stop * dim])
        weights = torch.from_numpy(rows).to(device).float()
        for start in range(0, len(tokens), IMAGES):
            some = tokens.rows[start : start + IMAGES]
            x = torch.from_numpy(np.ascontiguousarray(stored[some, part])).to(device).float()
            out[start : start + len(some)].addmm_(x.flatten(1), weights)
    return out.cpu().numpy()


def joined(
    paths: Sequence[LinearPath],
    shares: Float64,
    tokens: TokenSet,
    unit: Float32,
    rank: int,
    dtype: str,
) -> LinearPath:
    """The weighted sum of paths (weights per voxel) as one path.

    It has some ``rank`` columns, and keeps the principal components of the predictions on the images at hand:
    more of them where less would lose more than a thousandth of the variance. Where a path has a column for
    each voxel, as one that shares nothing has, so has the sum, which is exact: the components of columns that
    stand for voxels are voxels, and all others would be lost.

    Args:
        paths: of the same voxels, on layers of ``tokens``.
        shares: (n_paths, n_voxels) weights.
        tokens: the images at hand.
        unit: (n_voxels,) in which voxels count alike, the sd of their responses.
        rank: columns, where no path has one for each voxel.
        dtype: of the projections that are stored.
    """
    layers = list(dict.fromkeys(layer for path in paths for layer in path.layers))
    shapes = {layer: tokens.shapes[layer] for layer in layers}
    weighted = [path.mixing * share.astype(np.float32) for path, share in zip(paths, shares, strict=True)]
    if any(len(path.mixing) >= path.n_voxels for path in paths):
        onto: Sequence[NDArray[Any]] = weighted
        expand: NDArray[Any] = np.eye(paths[0].n_voxels)
    else:
        onto, expand = _principal(paths, np.concatenate(weighted), tokens, unit, rank)
    weights = {layer: torch.from_numpy(_through(paths, onto, layer)) for layer in layers}
    size = column_sizes(weights)
    whole = LinearPath(
        projections={layer: as_stored(of, size, dtype) for layer, of in weights.items()},
        mixing=(expand * size.numpy()[:, None]).astype(np.float32),
        intercept=np.zeros(paths[0].n_voxels, dtype=np.float32),
        shapes=shapes,
        about={},
    )
    some = tokens.take(some_images(len(tokens), JOINED_IMAGES))
    each = [share * path.variation(some) for path, share in zip(paths, shares, strict=True)]
    fitted, stored = np.sum(each, axis=0), whole.variation(some)
    require_kept(stored, fitted, unit)
    intercept = np.sum([path.intercept * share for path, share in zip(paths, shares, strict=True)], axis=0)
    # what rounded weights and cut patterns change of the mean, of tokens that are far from 0, is given back
    return replace(whole, intercept=(intercept + (fitted - stored).mean(axis=0)).astype(np.float32))


def times(projection: NDArray[Any], right: NDArray[np.floating]) -> Float32:
    """``projection @ right`` (k, m) float32, some rows of the projection widened at a time."""
    out = np.empty((len(projection), right.shape[1]), dtype=np.float32)
    narrow = np.asarray(right, dtype=np.float32)
    for rows in blocks(len(projection), projection.shape[1], BLOCK_BYTES // 4):
        np.matmul(projection[rows].astype(np.float32), narrow, out=out[rows])
    return out


def _through(paths: Sequence[LinearPath], mixings: Sequence[NDArray[Any]], layer: str) -> Float32:
    """(n_tokens * dim, r) float32, what the paths read from a layer together, through ``mixings``."""
    whole: Float32 | None = None
    for path, mixing in zip(paths, mixings, strict=True):
        if layer in path.projections:
            of_path = times(path.projections[layer], mixing)
            whole = of_path if whole is None else np.add(whole, of_path, out=whole)
    assert whole is not None  # a layer is there because a path reads it
    return whole


def _principal(
    paths: Sequence[LinearPath], mixing: NDArray[Any], tokens: TokenSet, unit: Float32, rank: int
) -> tuple[list[NDArray[Any]], NDArray[Any]]:
    """What reduces the columns of each path to some ``rank`` in common, and the mixing of those."""
    scores = np.concatenate([path.scores(tokens) for path in paths], axis=1)
    spread = np.maximum(scores.astype(np.float64).std(axis=0), 1e-30)
    # voxels over their sd, or those in a small unit would be the first that are cut
    u, s, vt = np.linalg.svd(spread[:, None] * mixing / unit, full_matrices=False)
    least = max(s[0], 1e-30) * 1e-6
    beyond = np.append(np.cumsum(s[::-1] ** 2)[::-1], 0)  # squares of this and all later components
    needed = int(np.argmax(beyond <= CUT * max(beyond[0], least**2)))
    kept = max(1, min(max(rank, needed), len(unit), int(np.sum(s > least))))
    reduce = u[:, :kept] / spread[:, None]
    starts = np.cumsum([len(path.mixing) for path in paths])[:-1]
    return np.split(reduce, starts), s[:kept, None] * vt[:kept] * unit
