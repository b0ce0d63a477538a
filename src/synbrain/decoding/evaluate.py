"""``synbrain decoder evaluate``: measured and synthetic responses through one frozen decoder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from synbrain.arrays import Float32, Float64
from synbrain.baselines.ridge import Ridge
from synbrain.data.dataset import Dataset
from synbrain.decoding.decoder import Decoder
from synbrain.decoding.feature_networks import COMMON_SIZE, OFFLINE, load_feature_network
from synbrain.decoding.picture_scores import picture_scores
from synbrain.decoding.reconstruct import painter_of
from synbrain.decoding.subjects import mean_and_sd, require_untrained
from synbrain.errors import SynBrainError
from synbrain.evaluation.oracle_row import true_trials
from synbrain.features.encoder import pick_device
from synbrain.features.store import open_tokens
from synbrain.features.tokens import Pairs, pairs_of
from synbrain.files import open_array, require_absent, write_json
from synbrain.metrics.image import correlation_distance, two_way_wins
from synbrain.metrics.intervals import bootstrap_mean
from synbrain.metrics.retrieval import N_SUBSETS, N_WAY, cosine_matrix, top1
from synbrain.model.synbrain import SynBrain


class DecoderEvaluation(BaseModel):
    """How a decoder is evaluated."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    samples: int = Field(1, ge=1, description="token samples of the prior, averaged before scoring")
    n_way: int = Field(N_WAY, ge=2, description="candidates in retrieval")
    n_subsets: int = Field(N_SUBSETS, ge=1, description="random draws of candidates")
    seed: int = Field(0, ge=0, description="of synthetic trials, samples and draws")
    renderer: str | None = Field(
        None, description="score pictures too: pixels, nearest, or the path of an unCLIP checkpoint"
    )
    networks: list[str] = Field(
        list(OFFLINE), description="that pictures are judged by: lite2, alexnet, inception, clip, ..."
    )
    device: str = Field("auto", description="where decoder and run work: auto, cpu, cuda, ...")


DEFAULTS = DecoderEvaluation()


@dataclass(frozen=True)
class DecoderScores:
    """Scores of responses that went through one decoder.

    Attributes:
        rows: row -> metric -> {"value", "interval" (95 %, bootstrap over test images, where there is one)}.
        about: dataset, decoder, sizes, n-way, draws, seed, whether synthetic trials were trained on.
        each: row -> metric -> (n_images,) values, for paired comparisons.
    """

    rows: dict[str, dict[str, dict[str, Any]]]
    about: dict[str, Any]
    each: dict[str, dict[str, Float64]]

    def to_json(self) -> dict[str, Any]:
        """Rows and what they were measured on."""
        return {"about": self.about, "rows": self.rows}

    def table(self) -> str:
        """One line a row."""
        metrics = list(next(iter(self.rows.values())))
        width = max(len(name) for name in self.rows)
        lines = [f"{'':{width}}  " + "  ".join(f"{m:>24}" for m in metrics)]
        for name, row in self.rows.items():
            lines.append(f"{name:{width}}  " + "  ".join(f"{row[m]['value']:24.3f}" for m in metrics))
        return "\n".join(lines)


def evaluate_decoder(
    decoder: Decoder | Path,
    dataset: Dataset,
    options: DecoderEvaluation = DEFAULTS,
    *,
    run: SynBrain | None = None,
    responses: Path | None = None,
    out: Path | None = None,
    overwrite: bool = False,
) -> DecoderScores:
    """Score a decoder on the test images of a dataset.

    Rows: ``measured_mean`` (outputs averaged over repeats), ``measured_trial`` (the first trial),
    ``mean_map`` and ``shuffled`` (measured trials of other images) show what the decoder makes of real
    responses. With ``run``: ``synthetic_trial``, ``synthetic_mean``, ``ridge`` (predictions of kernel ridge
    from the run's tokens) and, on simulated data, ``oracle`` (a trial of the true brain). With
    ``responses``: the row ``responses``.

    Columns: ``images_ranked`` (top-1 of the images for each brain), ``brains_ranked`` (top-1 of the brains
    for each image), ``two_way`` and ``correlation_distance`` of predicted tokens. Retrieval compares
    ``embed`` with image tokens by cosine. With ``options.renderer``, decoded pictures give ``pixcorr``,
    ``ssim`` and the columns of ``options.networks`` (:mod:`synbrain.decoding.picture_scores`).

    Args:
        decoder: of the dataset's subject, or its folder.
        dataset: with test images and tokens of the decoder's encoder.
        options: samples, candidates, seed.
        run: a model of the same subject, whose synthetic responses are decoded too.
        responses: .npy (n_test_images, n_voxels) in the dataset's unit, in the order of its test images.
        out: file to write the scores to, as JSON.
        overwrite: replace ``out``.

    Raises:
        SynBrainError: another subject or unit, test images that the decoder was trained on, missing tokens.
    """
    if out is not None:
        require_absent(out, overwrite)
    if isinstance(decoder, Path):
        decoder = Decoder.from_pretrained(decoder, device=str(pick_device(options.device)))
    decoder = decoder.for_dataset(dataset)
    require_untrained(decoder.config.trained_images, dataset)
    source = decoder.targets.source
    tokens = open_tokens(dataset, source.encoder, [source.layer])
    test = pairs_of(dataset, tokens, "test")
    seen = decoder.image_tokens(test.tokens)
    if len(seen) < 2:
        raise SynBrainError(f"{dataset.path} has {len(seen)} test image", "give two at least")
    given = measured_rows(test, pairs_of(dataset, tokens, "train"), options.seed)
    if run is not None:
        given |= synthetic_rows(run, dataset, options.seed)
    if responses is not None:
        given["responses"] = _read_responses(responses, given["measured_trial"].shape)
    painted = None if options.renderer is None else _pictures(options, decoder, dataset, test)
    embedded = _over_repeats(decoder.embed(test.trial_responses()), test)
    condition = _over_repeats(decoder.backbone(test.trial_responses()), test)
    scored = {"measured_mean": (embedded, condition)} | {
        name: (decoder.embed(x), decoder.backbone(x)) for name, x in given.items()
    }
    rows, each = {}, {}
    for name, (embed, backbone) in scored.items():
        drawn = decoder.method.predict_tokens(backbone, options.samples, options.seed).mean(axis=0)
        rows[name], each[name] = token_scores(embed, drawn, seen, options)
        if painted is not None:
            for column, values in painted(drawn).items():
                each[name][column] = values
                low, high = bootstrap_mean(values, seed=options.seed)
                rows[name][column] = {"value": float(values.mean()), "interval": [low, high]}
    about = {
        "dataset": dataset.info.name,
        "subject": decoder.active,
        "decoder": decoder.config.kind,
        "token_space": decoder.space.model_dump(),
        "trained_on_synthetic_trials": decoder.config.synthetic is not None,
        "is_synthetic_data": dataset.info.synthetic is not None,
        "n_test_images": len(seen),
        "n_way": min(options.n_way, len(seen)),
        "n_draws": options.n_subsets if len(seen) > options.n_way else 1,
        "samples": options.samples,
        "seed": options.seed,
        "renderer": options.renderer,
        # such a decoder flatters what the run synthesized: see synbrain.decoding.flattery
        "reads_the_runs_tokens": run is not None and run.config.encoder == source.encoder,
    }
    if out is not None:
        write_json(out, DecoderScores(rows, about, each).to_json())
    return DecoderScores(rows, about, each)


def _read_responses(path: Path, shape: tuple[int, ...]) -> Float32:
    """Responses of the user's own, one to each test image."""
    values = np.asarray(open_array(path), dtype=np.float32)
    if values.shape != shape:
        raise SynBrainError(
            f"{path} has shape {values.shape}, not {shape}",
            "give one response to each test image, in the order of the dataset",
        )
    return values


def _pictures(
    options: DecoderEvaluation, decoder: Decoder, dataset: Dataset, test: Pairs
) -> Callable[[Float32], dict[str, Float64]]:
    """From predicted tokens (n, n_tokens, dim) to the columns of pictures, (n,) each.

    Raises:
        SynBrainError: for an unknown renderer, or a network that is not at hand; before anything is decoded.
    """
    for name in options.networks:
        load_feature_network(name)
    painter = painter_of(str(options.renderer), decoder, dataset, seed=options.seed)
    seen = [dataset.load_image(int(row)).resize((COMMON_SIZE, COMMON_SIZE)) for row in test.tokens.rows]
    stacked = np.stack([np.asarray(picture) for picture in seen])

    def columns(predicted: Float32) -> dict[str, Float64]:
        scores = picture_scores(np.stack(painter(predicted)), stacked, networks=options.networks)
        return {name: score.each for name, score in scores.items()}

    return columns


def measured_rows(test: Pairs, train: Pairs, seed: int) -> dict[str, Float32]:
    """Row -> (n_test_images, n_voxels): first trials, the training mean, trials of other images."""
    first = np.array([np.flatnonzero(test.image_of_trial == i)[0] for i in range(test.n_images)])
    trials = test.trial_responses(first)
    order = np.random.default_rng(seed).permutation(len(trials))
    mean, _ = mean_and_sd(train)
    return {"measured_trial": trials, "mean_map": np.repeat(mean[None], len(trials), 0),
            "shuffled": trials[np.roll(order, 1)[np.argsort(order)]]}  # fmt: skip


def synthetic_rows(run: SynBrain, dataset: Dataset, seed: int) -> dict[str, Float32]:
    """Row -> (n_test_images, n_voxels): synthetic trial and mean, ridge's prediction, the true brain's trial.

    Raises:
        SynBrainError: where the run is not of this subject.
    """
    name = dataset.info.subject if dataset.info.subject in run.subjects else None
    part = run.subject(name)
    if part.n_voxels != dataset.n_voxels or part.unit != dataset.info.unit:
        raise SynBrainError(
            f"the run predicts {part.n_voxels} voxels in {part.unit!r}, {dataset.path} has "
            f"{dataset.n_voxels} in {dataset.info.unit!r}",
            "give a run of this subject",
        )
    tokens = run.tokens(open_tokens(dataset, run.config.encoder, run.config.layers))
    test, train = pairs_of(dataset, tokens, "test"), pairs_of(dataset, tokens, "train")
    rows = {
        "synthetic_trial": run.sample(test.tokens, 1, seed, subject=part.name)[0],
        "synthetic_mean": run.predict(test.tokens, subject=part.name),
        "ridge": Ridge().fit(train, seed=seed).predict(test.tokens),
    }
    oracle = true_trials(dataset, test.tokens.rows, seed)
    return rows | ({} if oracle is None else {"oracle": oracle})


def token_scores(
    embedded: Float32, predicted: Float32, seen: Float32, options: DecoderEvaluation
) -> tuple[dict[str, dict[str, Any]], dict[str, Float64]]:
    """(metric -> value and interval, metric -> value of each image) of decoded responses.

    Args:
        embedded: (n, n_tokens, dim), for retrieval.
        predicted: (n, n_tokens, dim), predicted image tokens.
        seen: (n, n_tokens, dim), tokens of the seen images.
        options: candidates and draws.
    """
    similarity = cosine_matrix(embedded, seen)
    ways = {"n_way": options.n_way, "n_subsets": options.n_subsets, "seed": options.seed}
    n = len(seen)
    each = identified(similarity) | {
        "two_way": two_way_wins(predicted, seen) / (n - 1),
        "correlation_distance": correlation_distance(predicted, seen),
    }
    values = {name: float(np.mean(value)) for name, value in each.items()}
    values["images_ranked"] = top1(similarity, **ways)
    values["brains_ranked"] = top1(similarity.T, **ways)
    scores: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        scores[name] = {"value": value}
        if n <= options.n_way or name not in ("images_ranked", "brains_ranked"):
            low, high = bootstrap_mean(each[name], seed=options.seed)
            scores[name]["interval"] = [low, high]
    return scores, each


def identified(similarity: Float64) -> dict[str, Float64]:
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


def _over_repeats(outputs: Float32, pairs: Pairs) -> Float32:
    total = np.zeros((pairs.n_images, *outputs.shape[1:]), dtype=np.float64)
    np.add.at(total, pairs.image_of_trial, outputs)
    return np.asarray(total / pairs.repeats()[:, None, None], dtype=np.float32)
