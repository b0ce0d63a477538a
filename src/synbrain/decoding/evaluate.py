"""``synbrain decoder evaluate``: measured and synthetic responses through one frozen decoder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from synbrain.arrays import Float32
from synbrain.baselines.ridge import Ridge
from synbrain.data.dataset import Dataset
from synbrain.decoding.decoder import Decoder
from synbrain.decoding.guards import part_beside
from synbrain.decoding.options import DecoderEvaluation
from synbrain.decoding.pictures.feature_networks import COMMON_SIZE
from synbrain.decoding.pictures.reconstruct import painter_of
from synbrain.decoding.pictures.scores import SeenPictures
from synbrain.decoding.scores import DecoderScores, Draws, Each, Row, ScoredOn, scored, token_scores
from synbrain.decoding.subjects import mean_and_sd, require_untrained
from synbrain.decoding.unused import note_unused_in_evaluation
from synbrain.describe import counted
from synbrain.errors import SynBrainError
from synbrain.evaluation.oracle_row import true_trials
from synbrain.features.encoder import pick_device
from synbrain.features.joint import encoders_of
from synbrain.features.store import open_untuned
from synbrain.features.tokens import Pairs, pairs_of
from synbrain.files import open_array, require_absent, write_json
from synbrain.metrics.retrieval import N_WAY
from synbrain.model.synbrain import SynBrain

DEFAULTS = DecoderEvaluation()


@dataclass(frozen=True)
class _Measured:
    """The test images of a dataset, the tokens that a decoder should find, and among how many."""

    test: Pairs
    train: Pairs
    seen: Float32
    draws: Draws


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
    """Score a decoder on the test images of a dataset, by the columns of :mod:`synbrain.decoding.scores`.

    Rows: ``measured_mean`` (outputs averaged over repeats), ``measured_trial`` (the first trial),
    ``mean_map`` and ``shuffled`` (measured trials of other images) show what the decoder makes of real
    responses. With ``run``: ``synthetic_trial``, ``synthetic_mean``, ``ridge`` (predictions of kernel ridge
    from the run's tokens) and, on simulated data, ``oracle`` (a trial of the true brain). With
    ``responses``: the row ``responses``. With a renderer, decoded pictures are scored too.

    Args:
        decoder: of the dataset's subject, or its folder.
        dataset: with test images and tokens of the decoder's encoder.
        options: samples, candidates, seed, pictures.
        run: a model of the same subject, whose synthetic responses are decoded too.
        responses: .npy (n_test_images, n_voxels) in the dataset's unit, in the order of its test images.
        out: file to write the scores to, as JSON.
        overwrite: replace ``out``.

    Raises:
        SynBrainError: another subject or unit, test images that the decoder was trained on, missing tokens.
    """
    if out is not None:
        require_absent(out, overwrite)
    note_unused_in_evaluation(options, has_run=run is not None)
    if isinstance(decoder, Path):
        decoder = Decoder.from_pretrained(decoder, device=str(pick_device(options.device)))
    decoder = decoder.for_dataset(dataset)
    measured = _measured(decoder, dataset, options)
    given = measured_rows(measured.test, measured.train, options.seed)
    if run is not None:
        given |= synthetic_rows(run, dataset, options.seed, options.subject)
    if responses is not None:
        given["responses"] = _read_responses(responses, given["measured_trial"].shape)
    painted = None if options.renderer is None else _pictures(options, decoder, dataset, measured.test)
    rows, each = _scored_rows(decoder, measured, given, options, painted)
    scores = DecoderScores(rows, _about(decoder, dataset, options, measured, run), each)
    if out is not None:
        write_json(out, scores.to_json())
    return scores


def _measured(decoder: Decoder, dataset: Dataset, options: DecoderEvaluation) -> _Measured:
    """What the decoder is tested on.

    Raises:
        SynBrainError: test images that it was trained on, or too few of them.
    """
    require_untrained(decoder, dataset)
    source = decoder.targets.source
    dataset, tokens = open_untuned(dataset, source.encoder, [source.layer])
    test = pairs_of(dataset, tokens, "test")
    if test.n_images < (options.n_way or 2):
        raise SynBrainError(
            f"{dataset.path} has {counted(test.n_images, 'test image')}, too few for "
            f"{options.n_way or 2}-way retrieval",
            "give more test images, or a smaller --n-way",
        )
    draws = Draws(options.n_way or min(N_WAY, test.n_images), options.n_subsets, options.seed)
    return _Measured(test, pairs_of(dataset, tokens, "train"), decoder.image_tokens(test.tokens), draws)


def _scored_rows(
    decoder: Decoder,
    measured: _Measured,
    given: dict[str, Float32],
    options: DecoderEvaluation,
    painted: Callable[[Float32], Each] | None,
) -> tuple[dict[str, Row], dict[str, Each]]:
    """Decode ``measured_mean`` and every row of ``given``, (n_test_images, n_voxels) each, and score them."""
    test = measured.test
    trials = test.trial_responses()
    means = _over_repeats(decoder.embed(trials), test), _over_repeats(decoder.backbone(trials), test)
    decoded = {"measured_mean": means} | {
        n: (decoder.embed(x), decoder.backbone(x)) for n, x in given.items()
    }
    rows: dict[str, Row] = {}
    each: dict[str, Each] = {}
    for name, (embed, backbone) in decoded.items():
        drawn = decoder.method.predict_tokens(backbone, options.samples, options.seed).mean(axis=0)
        rows[name], each[name] = token_scores(embed, drawn, measured.seen, measured.draws)
        pictures = {} if painted is None else painted(drawn)
        rows[name] |= {column: scored(values, options.seed) for column, values in pictures.items()}
        each[name] |= pictures
    return rows, each


def _about(
    decoder: Decoder,
    dataset: Dataset,
    options: DecoderEvaluation,
    measured: _Measured,
    run: SynBrain | None,
) -> ScoredOn:
    n, draws = len(measured.seen), measured.draws
    return ScoredOn(
        dataset=dataset.info.name,
        subject=decoder.active,
        decoder=decoder.config.kind,
        token_space=decoder.space,
        trained_on_synthetic_trials=decoder.config.synthetic is not None,
        is_synthetic_data=dataset.info.synthetic is not None,
        n_test_images=n,
        n_way=draws.n_way,
        n_draws=draws.n_subsets if n > draws.n_way else 1,
        samples=options.samples,
        seed=options.seed,
        renderer=options.renderer,
        reads_the_runs_tokens=run is not None and reads_tokens_of(decoder, run),
    )


def reads_tokens_of(decoder: Decoder, run: SynBrain) -> bool:
    """Whether a decoder was trained on tokens of an encoder that the run reads, be it one of several."""
    return bool(set(encoders_of(decoder.targets.source.encoder)) & set(encoders_of(run.config.encoder)))


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
) -> Callable[[Float32], Each]:
    """From predicted tokens (n, n_tokens, dim) to the columns of pictures, (n,) each.

    Raises:
        SynBrainError: for an unknown renderer, or a network that is not at hand; before anything is decoded.
    """
    seen = [dataset.load_image(int(row)).resize((COMMON_SIZE, COMMON_SIZE)) for row in test.tokens.image_rows]
    judged = SeenPictures(np.stack([np.asarray(picture) for picture in seen]), tuple(options.networks))
    painter = painter_of(str(options.renderer), decoder, dataset, seed=options.seed)

    def columns(predicted: Float32) -> Each:
        return {name: score.each for name, score in judged.scores(np.stack(painter(predicted))).items()}

    return columns


def measured_rows(test: Pairs, train: Pairs, seed: int) -> dict[str, Float32]:
    """Row -> (n_test_images, n_voxels): first trials, the training mean, trials of other images."""
    first = np.array([np.flatnonzero(test.image_of_trial == i)[0] for i in range(test.n_images)])
    trials = test.trial_responses(first)
    order = np.random.default_rng(seed).permutation(len(trials))
    mean, _ = mean_and_sd(train)
    return {"measured_trial": trials, "mean_map": np.repeat(mean[None], len(trials), 0),
            "shuffled": trials[np.roll(order, 1)[np.argsort(order)]]}  # fmt: skip


def synthetic_rows(
    run: SynBrain, dataset: Dataset, seed: int, subject: str | None = None
) -> dict[str, Float32]:
    """Row -> (n_test_images, n_voxels): synthetic trial and mean, ridge's prediction, the true brain's trial.

    Raises:
        SynBrainError: where the run is not of this subject, or was trained on its test images.
    """
    part = part_beside(run, dataset, subject)
    dataset, tokens = open_untuned(dataset, run.config.encoder, run.config.layers)
    tokens = run.tokens(tokens)
    test, train = pairs_of(dataset, tokens, "test"), pairs_of(dataset, tokens, "train")
    rows = {
        "synthetic_trial": run.sample(test.tokens, 1, seed, subject=part.name)[0],
        "synthetic_mean": run.predict(test.tokens, subject=part.name),
        "ridge": Ridge().fit(train, seed=seed).predict(test.tokens),
    }
    oracle = true_trials(dataset, test.tokens.image_rows, seed)
    return rows | ({} if oracle is None else {"oracle": oracle})


def _over_repeats(outputs: Float32, pairs: Pairs) -> Float32:
    total = np.zeros((pairs.n_images, *outputs.shape[1:]), dtype=np.float64)
    np.add.at(total, pairs.image_of_trial, outputs)
    return np.asarray(total / pairs.repeats()[:, None, None], dtype=np.float32)
