"""Closed-form ridge from responses to tokens: the baseline that every network must beat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from himalaya.kernel_ridge import solve_kernel_ridge_cv_eigenvalues

from synbrain.arrays import Float32
from synbrain.baselines.ridge import ALPHAS, ALPHAS_AT_ONCE, TARGETS_AT_ONCE, folds
from synbrain.decoding.controls import PointMass, all_images, only_subject
from synbrain.decoding.options import DecoderOptions
from synbrain.decoding.protocol import DecodingSubject, State
from synbrain.training.networks import Workspace

N_FOLDS = 5


@dataclass(frozen=True)
class RidgeTokens(PointMass):
    """tokens = responses weights + offset, responses z-scored.

    Attributes:
        weights: (n_voxels, n_tokens * dim) float32.
        offset: (n_tokens, dim) float32.
    """

    weights: Float32
    offset: Float32

    def backbone(self, responses: Float32, subject: str) -> Float32:
        flat = responses @ self.weights
        return np.asarray(flat.reshape(len(responses), *self.offset.shape) + self.offset, dtype=np.float32)

    def config(self) -> dict[str, Any]:
        return {}

    def state(self) -> State:
        return {"weights": torch.from_numpy(self.weights), "offset": torch.from_numpy(self.offset)}

    @classmethod
    def restore(cls, config: dict[str, Any], state: State, device: str = "cpu") -> Self:
        return cls(state["weights"].numpy(), state["offset"].numpy())


def fit_ridge(
    subjects: Sequence[DecodingSubject], options: DecoderOptions, workspace: Workspace
) -> RidgeTokens:
    """Kernel ridge on repeat means, with a cross-validated penalty for every token value (himalaya).

    The penalty minimises squared error over folds of images: weights = X^T (X X^T / c + alpha)^-1 Y / c,
    where c makes the mean diagonal of the kernel 1, so that one grid of penalties fits all.
    """
    responses, targets = all_images(only_subject(subjects, "ridge"))
    return _fit(responses, targets, options.seed)


def fit_shuffled(
    subjects: Sequence[DecodingSubject], options: DecoderOptions, workspace: Workspace
) -> RidgeTokens:
    """Ridge on tokens that were permuted against the responses: chance after fitting."""
    responses, targets = all_images(only_subject(subjects, "shuffled"))
    order = np.random.default_rng(options.seed).permutation(len(targets))
    return _fit(responses, targets[order], options.seed)


def _fit(responses: Float32, targets: Float32, seed: int) -> RidgeTokens:
    centre = responses.mean(axis=0, dtype=np.float64)
    x = responses - centre
    y = targets.reshape(len(targets), -1).astype(np.float64)
    offset = y.mean(axis=0)
    gram = x @ x.T
    size = float(np.trace(gram) / len(gram)) or 1.0
    _, dual, _ = solve_kernel_ridge_cv_eigenvalues(
        gram / size,
        y - offset,
        alphas=ALPHAS,
        cv=folds(len(x), N_FOLDS, seed),
        n_targets_batch=TARGETS_AT_ONCE,
        n_targets_batch_refit=TARGETS_AT_ONCE,
        n_alphas_batch=ALPHAS_AT_ONCE,
    )
    weights = x.T @ dual / size
    constant = offset - centre @ weights
    shape = targets.shape[1:]
    return RidgeTokens(weights.astype(np.float32), constant.reshape(shape).astype(np.float32))
