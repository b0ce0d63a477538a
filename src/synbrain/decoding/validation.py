"""What a decoder is chosen by: single trials of validation images, never of test images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from synbrain.arrays import Float32, Float64, Rows
from synbrain.decoding.protocol import DecodingMethod, DecodingSubject
from synbrain.metrics.image import correlation_distance
from synbrain.metrics.retrieval import both_directions, cosine_matrix


@dataclass(frozen=True)
class ValidationScores:
    """What single trials of validation images say of a decoder.

    Attributes:
        means: scores by name, mean over subjects; "score" is to be small.
        each: the "score" of each validation image, mean over its trials, subject by subject. Two decoders
            with the same validation images are compared image by image.
    """

    means: dict[str, float]
    each: list[float]


def validation_scores(method: DecodingMethod, subjects: Sequence[DecodingSubject]) -> ValidationScores:
    """Scores on single trials of validation images.

    ``score = (log rank of embed + log rank of predict_tokens) / 2``, where the log rank is the mean of
    log(1 + number of validation images more similar to what a trial was decoded to than its own image). It
    moves before retrieval is exact, and it looks at both outputs: a decoder that is chosen by ``embed``
    alone is stopped while its tokens still get better.

    Args:
        method: fitted, or in training (in eval mode).
        subjects: with validation images.
    """
    scores: dict[str, list[float]] = {}
    each: list[float] = []
    for subject in subjects:
        pairs, seen = subject.validation, subject.validation_targets
        trials = subject.scaled(pairs.trial_responses())
        embedded = method.embed(trials, subject.name)
        tokens = method.predict_tokens(method.backbone(trials, subject.name), 1, 0)[0]
        means = np.zeros((pairs.n_images, *embedded.shape[1:]), dtype=np.float32)
        np.add.at(means, pairs.image_of_trial, embedded)
        forward, backward = both_directions(cosine_matrix(means, seen))
        ranks = [log_ranks(decoded, seen, pairs.image_of_trial) for decoded in (embedded, tokens)]
        of_embedded, of_tokens = (float(of.mean()) for of in ranks)
        for name, value in {
            "score": (of_embedded + of_tokens) / 2,
            "log_rank_embedded": of_embedded,
            "log_rank_tokens": of_tokens,
            "correlation_distance": float(correlation_distance(tokens, seen[pairs.image_of_trial]).mean()),
            "images_ranked_for_brains": forward,
            "brains_ranked": backward,
        }.items():
            scores.setdefault(name, []).append(value)
        of_trial = np.mean(ranks, axis=0)
        each += (np.bincount(pairs.image_of_trial, of_trial, pairs.n_images) / pairs.repeats()).tolist()
    return ValidationScores({name: float(np.mean(values)) for name, values in scores.items()}, each)


def log_ranks(decoded: Float32, seen: Float32, image: Rows) -> Float64:
    """(n,) log(1 + number of images more similar to row i of ``decoded`` than its own, ``image[i]``).

    A tie counts half, so that a decoder that says nothing (zeros) is not the best; what is not a number is
    last.

    >>> import numpy as np
    >>> log_ranks(np.eye(3, dtype=np.float32), np.eye(3, dtype=np.float32), np.arange(3)).tolist()
    [0.0, 0.0, 0.0]
    """
    similarity = cosine_matrix(decoded, seen)
    right = similarity[np.arange(len(similarity)), image][:, None]
    tied = (np.abs(similarity - right) <= 1e-12).sum(axis=1) - 1  # not with itself
    rank = (similarity > right + 1e-12).sum(axis=1) + 0.5 * tied
    last = len(seen) - 1
    return np.asarray(np.log1p(np.where(np.isfinite(right[:, 0]), rank, last)), dtype=np.float64)
