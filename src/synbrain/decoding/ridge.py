"""Closed-form ridge from responses to tokens: the baseline that every network must beat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import torch
from himalaya.kernel_ridge import solve_kernel_ridge_cv_eigenvalues

from synbrain.arrays import Float32
from synbrain.baselines.ridge import ALPHAS, ALPHAS_AT_ONCE, TARGETS_AT_ONCE, folds
from synbrain.decoding.controls import PointMass, all_images, only_subject
from synbrain.decoding.options import DecoderOptions
from synbrain.decoding.protocol import DecodingSubject, State
from synbrain.decoding.validation import validation_scores
from synbrain.features.look_alikes import families
from synbrain.training.networks import Workspace

N_FOLDS = 5


@dataclass(frozen=True)
class RidgeTokens(PointMass):
    """tokens = responses weights + offset, responses z-scored.

    Attributes:
        weights: (n_voxels, n_tokens * dim) float32.
        offset: (n_tokens, dim) float32.
        validation: figures on validation images, of a fit without them.
        validation_each: the score of each of these images.
    """

    weights: Float32
    offset: Float32
    validation: dict[str, float] = field(default_factory=dict)
    validation_each: list[float] = field(default_factory=list)

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

    The penalty minimises squared error over folds of *real* images,

        weights = X^T (X X^T / c + alpha)^-1 Y / c,

    where c makes the mean diagonal of the kernel 1, so that one grid of penalties fits all. Synthetic images
    together weigh ``synthetic_weight`` of all. ``validation`` is measured on a fit without those images.
    """
    subject = only_subject(subjects, "ridge")
    real, more = subject.scaled(subject.train.repeat_means()), synthetic_images(subject)
    fitted = _fit(*all_images(subject), options.seed, more)
    without = _fit(real, subject.targets, options.seed, more)
    scores = validation_scores(without, [subject])
    return replace(fitted, validation=scores.means, validation_each=scores.each)


def fit_shuffled(
    subjects: Sequence[DecodingSubject], options: DecoderOptions, workspace: Workspace
) -> RidgeTokens:
    """Ridge on tokens that were permuted against the responses: chance after fitting."""
    responses, targets = all_images(only_subject(subjects, "shuffled"))
    order = np.random.default_rng(options.seed).permutation(len(targets))
    return _fit(responses, targets[order], options.seed)


Synthetic = tuple[Float32, Float32, float]


def synthetic_images(subject: DecodingSubject) -> Synthetic | None:
    """Scaled means over the synthetic trials of each image, their targets, and their share of all weight."""
    if subject.synthetic is None or subject.synthetic_targets is None or not subject.synthetic_weight:
        return None
    responses = subject.scaled(subject.synthetic.repeat_means())
    return responses, subject.synthetic_targets, subject.synthetic_weight


def _fit(responses: Float32, targets: Float32, seed: int, synthetic: Synthetic | None = None) -> RidgeTokens:
    """Weighted ridge: row i of the centred X and Y times sqrt(weight_i); real images weigh 1."""
    shape, n = targets.shape[1:], len(targets)
    weight, cv = np.ones(n), list(folds(families({"": targets}, np.arange(n)), N_FOLDS, seed).split(targets))
    if synthetic is not None:
        more, more_targets, share = synthetic
        responses, targets = np.concatenate([responses, more]), np.concatenate([targets, more_targets])
        weight = np.concatenate([weight, np.full(len(more), share / (1 - share) * n / len(more))])
        all_synthetic = np.arange(n, n + len(more))  # in every training part, never judged by
        cv = [(np.concatenate([train, all_synthetic]), validation) for train, validation in cv]
    y = targets.reshape(len(targets), -1).astype(np.float64)
    centre, offset = (np.average(values, axis=0, weights=weight) for values in (responses, y))
    root = np.sqrt(weight)[:, None]
    x = root * (responses - centre)
    gram = x @ x.T
    size = float(np.trace(gram) / len(gram)) or 1.0
    _, dual, _ = solve_kernel_ridge_cv_eigenvalues(
        gram / size,
        root * (y - offset),
        alphas=ALPHAS,
        cv=cv,
        n_targets_batch=TARGETS_AT_ONCE,
        n_targets_batch_refit=TARGETS_AT_ONCE,
        n_alphas_batch=ALPHAS_AT_ONCE,
    )
    weights = x.T @ dual / size
    constant = offset - centre @ weights
    return RidgeTokens(weights.astype(np.float32), constant.reshape(shape).astype(np.float32))
