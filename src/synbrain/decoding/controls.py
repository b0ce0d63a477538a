"""Decoders that any other must beat: the mean token, and the tokens of the nearest measured response."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch

from synbrain.arrays import Float32
from synbrain.decoding.options import DecoderOptions
from synbrain.decoding.protocol import DecodingSubject, State
from synbrain.errors import SynBrainError
from synbrain.metrics.retrieval import cosine_matrix
from synbrain.training.networks import Workspace


def only_subject(subjects: Sequence[DecodingSubject], name: str) -> DecodingSubject:
    """The one subject of a method that shares nothing between subjects.

    Raises:
        SynBrainError: where there are several.
    """
    if len(subjects) != 1:
        raise SynBrainError(f"{name} takes one subject, got {len(subjects)}", "train one decoder a subject")
    return subjects[0]


def all_images(subject: DecodingSubject) -> tuple[Float32, Float32]:
    """Scaled repeat means and targets of every real image that a closed-form method may use.

    Validation images are among them, for nothing is stopped early.
    """
    parts = [(subject.train, subject.targets), (subject.validation, subject.validation_targets)]
    responses = np.concatenate([subject.scaled(pairs.repeat_means()) for pairs, _ in parts])
    return responses, np.concatenate([targets for _, targets in parts])


@dataclass(frozen=True)
class PointMass:
    """What methods without a prior share: the backbone is the prediction, and every sample is the same."""

    def embed(self, responses: Float32, subject: str) -> Float32:
        """The prediction itself."""
        return self.backbone(responses, subject)

    def backbone(self, responses: Float32, subject: str) -> Float32:
        """(n, n_tokens, dim) float32, the prediction."""
        raise NotImplementedError

    def predict_tokens(self, backbone: Float32, n_samples: int, seed: int) -> Float32:
        """(n_samples, n, n_tokens, dim) float32, ``n_samples`` times the prediction."""
        return np.repeat(backbone[None], n_samples, axis=0)


@dataclass(frozen=True)
class MeanTokens(PointMass):
    """The mean tokens of the training images, whatever the response.

    Attributes:
        mean: (n_tokens, dim) float32.
    """

    mean: Float32

    def backbone(self, responses: Float32, subject: str) -> Float32:
        return np.repeat(self.mean[None], len(responses), axis=0)

    def config(self) -> dict[str, Any]:
        return {}

    def state(self) -> State:
        return {"mean": torch.from_numpy(self.mean)}

    @classmethod
    def restore(cls, config: dict[str, Any], state: State, device: str = "cpu") -> Self:
        return cls(state["mean"].numpy())


@dataclass(frozen=True)
class NearestResponse(PointMass):
    """The tokens of the training image whose mean response correlates best with the given one.

    Attributes:
        responses: (n_images, n_voxels) float32, z-scored repeat means.
        targets: (n_images, n_tokens, dim) float32.
    """

    responses: Float32
    targets: Float32

    def backbone(self, responses: Float32, subject: str) -> Float32:
        if not len(responses):
            return np.empty((0, *self.targets.shape[1:]), dtype=np.float32)
        nearest = cosine_matrix(responses, self.responses, centre=True).argmax(axis=1)
        return np.asarray(self.targets[nearest])

    def config(self) -> dict[str, Any]:
        return {}

    def state(self) -> State:
        return {"responses": torch.from_numpy(self.responses), "targets": torch.from_numpy(self.targets)}

    @classmethod
    def restore(cls, config: dict[str, Any], state: State, device: str = "cpu") -> Self:
        return cls(state["responses"].numpy(), state["targets"].numpy())


def fit_mean(
    subjects: Sequence[DecodingSubject], options: DecoderOptions, workspace: Workspace
) -> MeanTokens:
    """The mean over the training images."""
    _, targets = all_images(only_subject(subjects, "mean"))
    return MeanTokens(targets.mean(axis=0, dtype=np.float64).astype(np.float32))


def fit_nearest(
    subjects: Sequence[DecodingSubject], options: DecoderOptions, workspace: Workspace
) -> NearestResponse:
    """Keep every training image's mean response and tokens."""
    return NearestResponse(*all_images(only_subject(subjects, "nearest")))
