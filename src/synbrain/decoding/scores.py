"""What a decoder's evaluation gives: scores of rows of responses, and what they were measured on.

Columns: ``images_ranked`` (top-1 of the images for each brain), ``brains_ranked`` (top-1 of the brains for
each image), ``two_way`` and ``correlation_distance`` of predicted tokens. Retrieval compares what the decoder
embeds with image tokens by cosine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from synbrain.arrays import Float32, Float64
from synbrain.decoding.protocol import TokenSpace
from synbrain.metrics.image import correlation_distance, two_way_wins
from synbrain.metrics.intervals import bootstrap_mean
from synbrain.metrics.retrieval import cosine_matrix, top1

Row = dict[str, dict[str, Any]]
Each = dict[str, Float64]


class ScoredOn(BaseModel):
    """What a decoder was scored on, and how."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    dataset: str
    subject: str
    decoder: str
    token_space: TokenSpace
    trained_on_synthetic_trials: bool
    is_synthetic_data: bool
    n_test_images: int
    n_way: int
    n_draws: int
    samples: int
    seed: int
    renderer: str | None
    # such a decoder flatters what the run synthesized: see synbrain.decoding.flattery
    reads_the_runs_tokens: bool


@dataclass(frozen=True)
class DecoderScores:
    """Scores of responses that went through one decoder.

    Attributes:
        rows: row -> metric -> {"value", "interval" (95 %, bootstrap over test images, where there is one)}.
        about: what they were measured on.
        each: row -> metric -> (n_images,) values, for paired comparisons.
    """

    rows: dict[str, Row]
    about: ScoredOn
    each: dict[str, Each]

    def to_json(self) -> dict[str, Any]:
        """Rows and what they were measured on."""
        return {"about": self.about.model_dump(mode="json"), "rows": self.rows}

    def table(self) -> str:
        """One line a row."""
        metrics = list(next(iter(self.rows.values())))
        width = max(len(name) for name in self.rows)
        lines = [f"{'':{width}}  " + "  ".join(f"{m:>6}" for m in metrics)]
        for name, row in self.rows.items():
            cells = (f"{row[m]['value']:{max(6, len(m))}.3f}" for m in metrics)
            lines.append(f"{name:{width}}  " + "  ".join(cells))
        return "\n".join(lines)


@dataclass(frozen=True)
class Draws:
    """How retrieval is scored: among ``n_way`` candidates, in ``n_subsets`` random draws of them."""

    n_way: int
    n_subsets: int
    seed: int = 0


def token_scores(embedded: Float32, predicted: Float32, seen: Float32, draws: Draws) -> tuple[Row, Each]:
    """(metric -> value and interval, metric -> value of each image) of decoded responses.

    Args:
        embedded: (n, n_tokens, dim), for retrieval.
        predicted: (n, n_tokens, dim), predicted image tokens.
        seen: (n, n_tokens, dim), tokens of the seen images.
        draws: candidates of retrieval.
    """
    similarity = cosine_matrix(embedded, seen)
    n = len(seen)
    each = identified(similarity) | {
        "two_way": two_way_wins(predicted, seen) / (n - 1),
        "correlation_distance": correlation_distance(predicted, seen),
    }
    row = {name: scored(values, draws.seed) for name, values in each.items()}
    for name, matrix in (("images_ranked", similarity), ("brains_ranked", similarity.T)):
        row[name]["value"] = top1(matrix, **vars(draws))
        if n > draws.n_way:  # among fewer candidates than there are images it is no mean over images
            del row[name]["interval"]
    return row, each


def scored(values: Float64, seed: int) -> dict[str, Any]:
    """Mean of (n_images,) values, and its 95 % interval by bootstrap over images."""
    low, high = bootstrap_mean(values, seed=seed)
    return {"value": float(np.mean(values)), "interval": [low, high]}


def identified(similarity: Float64) -> Each:
    """(n,) each, 1 where row i of (n, n) similarities has its largest at i, and where column i has."""
    right = np.diagonal(similarity)
    return {
        "images_ranked": _hits(similarity, right[:, None], 1),
        "brains_ranked": _hits(similarity, right[None], 0),
    }


def _hits(similarity: Float64, right: Float64, axis: int) -> Float64:
    """1 where the right candidate is the most similar one; a tie between k counts 1 / k."""
    best = similarity.max(axis=axis, keepdims=True)
    tied = (similarity >= best - 1e-12).sum(axis=axis)
    return np.asarray((np.ravel(right) >= np.ravel(best) - 1e-12) / tied, dtype=np.float64)
