"""The linear path of a new subject with a prior from base subjects: their predicted responses as features.

What base subjects are predicted to do is a low-dimensional, denoised account of an image that was learned
from far more data than the new subject has. Ridge from these predictions to the new voxels is ridge from the
tokens with another prior on the weights: the covariance of the base voxels' weights instead of the identity.
No image and no voxel needs to be shared with them. Where images are shared, the base's predictions for them
are too good to be judged by: they know the responses of base subjects to these very images. The fit keeps
them (they are nearer to the truth), cross-validation takes what the base predicts without the image.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import eigh

from synbrain.arrays import Float32, Float64
from synbrain.features.look_alikes import about_families
from synbrain.features.tokens import Pairs, TokenSet
from synbrain.linear.config import LinearPathConfig
from synbrain.linear.fit import LinearFit, fit_linear_path
from synbrain.linear.held_out import HeldOutScores
from synbrain.linear.path import LinearPath, joined, times
from synbrain.linear.stacking import stacked
from synbrain.linear.storing import require_kept, some_images, voxel_sd
from synbrain.metrics.voxel import mean_defined, voxel_r

LAYER = "base responses"  # the name of the prior's features among token layers; no encoder has such a one


@dataclass(frozen=True)
class ResponseSpace:
    """Linear features of tokens with the inner products of the base subjects' predictions.

    Predictions of subject s, each voxel over its sd, are ``scores_s @ M_s`` with few scores. Features
    ``scores_s @ roots[s]`` with ``roots[s] @ roots[s].T = M_s @ M_s.T`` have the same kernel in as many
    dimensions as there are scores, whatever the number of voxels.

    Attributes:
        paths: the base subjects' linear paths.
        roots: (r_s, r_s) float64 for each of them.
        held_out: for each of them its scores for its training images without them, where it kept any.
        also: mark of an image of the new subject -> marks of its picture in the base subjects' files.
    """

    paths: tuple[LinearPath, ...]
    roots: tuple[Float64, ...]
    held_out: tuple[HeldOutScores | None, ...] = ()
    also: Mapping[bytes, Sequence[bytes]] = field(default_factory=dict)

    @property
    def dim(self) -> int:
        return sum(root.shape[1] for root in self.roots)

    @property
    def layers(self) -> list[str]:
        return list(dict.fromkeys(layer for path in self.paths for layer in path.layers))

    def on(self, layers: Iterable[str]) -> ResponseSpace | None:
        """That of the base subjects whose paths read none but ``layers``; None where there is none."""
        there = set(layers)
        kept = [i for i, path in enumerate(self.paths) if set(path.layers) <= there]
        if not kept:
            return None
        of = self.held_out
        return ResponseSpace(
            tuple(self.paths[i] for i in kept),
            tuple(self.roots[i] for i in kept),
            tuple(of[i] for i in kept) if of else (),
            self.also,
        )

    def features(self, tokens: TokenSet) -> NDArray[np.float32]:
        """(n_images, dim) float32, in units of the base voxels' sd."""
        parts = []
        for path, root in zip(self.paths, self.roots, strict=True):
            bare = replace(
                path,
                mixing=root.astype(np.float32),
                intercept=np.zeros(root.shape[1], dtype=np.float32),
            )
            parts.append(bare.predict(tokens))
        return np.concatenate(parts, axis=1)

    def unseen_features(
        self, features: NDArray[np.float32], marks: Sequence[bytes]
    ) -> tuple[NDArray[np.float32], int]:
        """``features`` (n_images, dim) as the base predicts them without the image, and how many differ.

        Args:
            features: of :meth:`features`.
            marks: of the images; none where they are not known.
        """
        unseen, start = features.copy(), 0
        known = np.zeros(len(features), dtype=bool)
        for held_out, root in zip(self.held_out, self.roots, strict=False):
            if held_out is not None and len(marks):
                rows = held_out.rows_of(marks, self.also)
                ours = rows >= 0
                unseen[ours, start : start + root.shape[1]] = held_out.scores[rows[ours]] @ root
                known |= ours
            start += root.shape[1]
        return unseen, int(known.sum())

    def weights(self, on_features: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        """Layer -> (n_tokens * dim, k) float32: weights on the tokens that equal (dim, k) on the features."""
        by_layer: dict[str, NDArray[np.float32]] = {}
        start = 0
        for path, root in zip(self.paths, self.roots, strict=True):
            of_base = root @ on_features[start : start + root.shape[1]]
            start += root.shape[1]
            for layer, projection in path.projections.items():
                added = times(projection, of_base)
                if layer in by_layer:
                    added += by_layer[layer]
                by_layer[layer] = added
        return by_layer


@dataclass(frozen=True)
class BasePath:
    """What a base subject brings: its linear path, the sd of its responses, its held-out scores."""

    path: LinearPath
    response_sd: NDArray[np.float32]
    held_out: HeldOutScores | None = None


def response_space(bases: Sequence[BasePath]) -> ResponseSpace | None:
    """The space that the linear paths of base subjects span; None where there is none."""
    paths, roots, held_out = [], [], []
    for base in bases:
        mixing = base.path.mixing.astype(np.float64) / np.maximum(base.response_sd, 1e-12)
        values, vectors = eigh(mixing @ mixing.T)
        paths.append(base.path)
        held_out.append(base.held_out)
        roots.append(vectors * np.sqrt(np.maximum(values, 0)))
    return ResponseSpace(tuple(paths), tuple(roots), tuple(held_out)) if paths else None


def fit_with_prior(
    pairs: Pairs,
    space: ResponseSpace,
    config: LinearPathConfig,
    *,
    marks: Sequence[bytes] = (),
    seed: int = 0,
    device: str | torch.device = "cpu",
    show_progress: bool = False,
    alone: LinearFit | None = None,
) -> LinearFit:
    """Fit from the tokens, from the base responses and from both, and average the three voxel by voxel.

    Averages are weighed by cross-validation among the images at hand (``candidates.stacking_weights``). The
    result is one path from tokens: what goes through the base responses is folded into it.

    Args:
        pairs: training images of the new subject with their trials.
        space: of the base subjects.
        config: of all three fits; its folds are the same in each.
        marks: of the images in ``pairs.tokens``; those that a base subject was trained on are judged by
            its held-out scores.
        seed: of the folds.
        device, show_progress: where arithmetic is done; show bars.
        alone: the fit from the tokens alone (``pairs``, ``config`` and ``seed`` as here), if there is one.
    """
    chosen = pairs.tokens if config.layers is None else pairs.tokens.only(*config.layers)
    plain = chosen.in_families()  # so that folds are the same through base responses
    features = space.features(pairs.tokens)
    unseen_features, n_shared = space.unseen_features(features, marks)
    through = config.model_copy(update={"layers": None, "windows": 0, "blur": 0.0})
    free = config.model_copy(update={"layers": None})

    def fit(tokens: TokenSet, how: LinearPathConfig) -> LinearFit:
        of_tokens = replace(pairs, tokens=tokens)
        return fit_linear_path(of_tokens, how, seed=seed, device=device, show_progress=show_progress)

    def through_base(features: NDArray[np.float32]) -> list[LinearFit]:
        both = _with_features(plain, features)
        return [fit(both.only(LAYER), through), fit(both, free)]

    alone = alone or fit(plain, free)
    fits = [alone, *through_base(features)]
    judged = fits if n_shared == 0 else [alone, *through_base(unseen_features)]
    y = pairs.repeat_means()
    shares, average = stacked([fit.out_of_fold for fit in judged], y, alone.folds)
    path = _from_tokens([fit.path for fit in fits], shares, pairs.tokens, space, voxel_sd(y), config)
    about = about_families(plain.families) | {
        "n_images": len(y),
        "base_subjects": len(space.paths),
        "base_dimensions": space.dim,
        "images_shared_with_base": n_shared,
        "weight_of_tokens_alone": float(shares[0].mean()),
        "weight_of_base_responses": float(shares[1].mean()),
        "weight_of_both": float(shares[2].mean()),
        "cross_validated_r_of_tokens_alone": mean_defined(voxel_r(alone.out_of_fold, y))[0],
        "cross_validated_r": mean_defined(voxel_r(average, y))[0],
        "rank": len(path.mixing),
    }
    return LinearFit(replace(path, about=about), average, alone.folds)


def _with_features(tokens: TokenSet, features: NDArray[np.float32]) -> TokenSet:
    """``tokens`` with one more layer: a single token that holds the base responses of each image."""
    n_stored = len(next(iter(tokens.layers.values())))
    stored = np.zeros((n_stored, 1, features.shape[1]), dtype=np.float32)
    stored[tokens.rows, 0] = features
    return replace(tokens, layers={**tokens.layers, LAYER: stored})


def _from_tokens(
    paths: Sequence[LinearPath],
    shares: Float64,
    tokens: TokenSet,
    space: ResponseSpace,
    unit: Float32,
    config: LinearPathConfig,
) -> LinearPath:
    """The average of paths, some of which read base responses, as one path from the tokens alone."""
    folded = [_folded(path, space) for path in paths]
    path = joined(folded, shares, tokens, unit, config.rank, config.dtype)
    some = tokens.take(some_images(len(tokens)))
    with_base = _with_features(some, space.features(some))
    parts = [share * path.variation(with_base) for share, path in zip(shares, paths, strict=True)]
    require_kept(path.variation(some), np.sum(parts, axis=0), unit)
    return path


def _folded(path: LinearPath, space: ResponseSpace) -> LinearPath:
    """The same map from tokens alone: weights on the base responses become weights on tokens."""
    if LAYER not in path.projections:
        return path
    projections = {k: p.astype(np.float32) for k, p in path.projections.items() if k != LAYER}
    for layer, added in space.weights(path.projections[LAYER].astype(np.float64)).items():
        projections[layer] = projections[layer] + added if layer in projections else added
    shapes = {k: s for k, s in path.shapes.items() if k != LAYER}
    for base in space.paths:
        shapes |= dict(base.shapes)
    return replace(path, projections=projections, shapes=shapes)
