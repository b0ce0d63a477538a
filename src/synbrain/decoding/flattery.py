"""``synbrain evaluate --decoder``: what a frozen decoder reads from synthetic responses, and its flattery.

A decoder that was trained on the tokens that the generator reads finds in synthetic responses what the
generator put there. A second decoder, trained on the tokens of another encoder, is not in that circle:

    advantage = score of synthetic responses - score of measured responses   (same decoder, same images)
    flattery  = advantage by the generator's own tokens - advantage by the other encoder's tokens
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synbrain.data.dataset import Dataset
from synbrain.decoding.decoder import Decoder
from synbrain.decoding.evaluate import evaluate_decoder, reads_tokens_of
from synbrain.decoding.options import DecoderEvaluation
from synbrain.decoding.scores import DecoderScores
from synbrain.describe import counted
from synbrain.errors import SynBrainError
from synbrain.features.encoder import pick_device
from synbrain.metrics.intervals import bootstrap_mean
from synbrain.model.synbrain import SynBrain

COMPARED = (("synthetic_trial", "measured_trial"), ("synthetic_mean", "measured_mean"))
DEFAULTS = DecoderEvaluation()


@dataclass(frozen=True)
class SemanticScores:
    """Scores of a run's responses by one frozen decoder, or two.

    Attributes:
        first: by the decoder.
        second: by one of another encoder's tokens, where it was given.
        flattery: row -> metric -> "advantage", "advantage_by_second", "flattery" and its "interval" (95 %
            over test images); empty without a second decoder.
    """

    first: DecoderScores
    second: DecoderScores | None
    flattery: dict[str, dict[str, dict[str, Any]]]

    def to_json(self) -> dict[str, Any]:
        """Everything, as ``scores.json`` keeps it under "decoding"."""
        more = {} if self.second is None else {"second": self.second.to_json(), "flattery": self.flattery}
        return self.first.to_json() | more

    def table(self) -> str:
        """The rows by either decoder, n-way and draws, and the flattery."""
        parts = [_table(self.first)]
        if self.second is not None:
            parts.append(_table(self.second))
        for row, metrics in self.flattery.items():
            for metric, entry in metrics.items():
                low, high = entry["interval"]
                parts.append(
                    f"{row} minus measured, {metric}: {entry['advantage']:+.3f}, by the second decoder "
                    f"{entry['advantage_by_second']:+.3f}; flattery {entry['flattery']:+.3f} "
                    f"[{low:+.3f}, {high:+.3f}]"
                )
        return "\n".join(parts)


def evaluate_semantics(
    run: SynBrain,
    dataset: Dataset,
    decoder: Path,
    options: DecoderEvaluation = DEFAULTS,
    *,
    second: Path | None = None,
) -> SemanticScores:
    """Put synthetic, predicted and measured responses to the test images through one frozen decoder.

    Args:
        run: a model of the dataset's subject.
        dataset: with test images, tokens of the run's encoder and of each decoder's.
        decoder: folder of the decoder.
        options: candidates, draws, pictures, seed.
        second: folder of a decoder of another encoder's tokens, to say by how much the first one flatters.

    Raises:
        SynBrainError: as :func:`synbrain.decoding.evaluate.evaluate_decoder`; two decoders of one encoder, a
            second one of tokens that the run reads.
    """
    device = str(pick_device(options.device))
    opened = [Decoder.from_pretrained(f, device=device) for f in (decoder, second) if f is not None]
    if second is not None:
        _require_outside(opened[1], opened[0], run)
    scores = [evaluate_decoder(each, dataset, options, run=run) for each in opened]
    if second is None:
        return SemanticScores(scores[0], None, {})
    return SemanticScores(scores[0], scores[1], flattery(scores[0], scores[1], seed=options.seed))


def _require_outside(second: Decoder, first: Decoder, run: SynBrain) -> None:
    """Refuse a second decoder within the circle: the flattery would be 0, or turn its sign."""
    encoders = [decoder.targets.source.encoder for decoder in (first, second)]
    if encoders[0] == encoders[1]:
        raise SynBrainError(
            f"both decoders read tokens of {encoders[0]}",
            "train the second one with another --encoder",
        )
    if reads_tokens_of(second, run):
        raise SynBrainError(
            f"the second decoder reads tokens of {encoders[1]}, as the run does ({run.config.encoder})",
            "give the decoder of the run's tokens first, and second one of an encoder that it does not read",
        )


def flattery(
    first: DecoderScores, second: DecoderScores, *, seed: int = 0
) -> dict[str, dict[str, dict[str, Any]]]:
    """By how much ``first`` favours synthetic over measured responses, beyond what ``second`` does.

    Both must be of the same test images; images are resampled together (95 %, bootstrap).
    """
    table: dict[str, dict[str, dict[str, Any]]] = {}
    for synthetic, measured in COMPARED:
        for metric in first.each[synthetic]:
            gains = [s.each[synthetic][metric] - s.each[measured][metric] for s in (first, second)]
            table.setdefault(synthetic, {})[metric] = {
                "advantage": float(gains[0].mean()),
                "advantage_by_second": float(gains[1].mean()),
                "flattery": float((gains[0] - gains[1]).mean()),
                "interval": list(bootstrap_mean(gains[0] - gains[1], seed=seed)),
            }
    return table


def _table(scores: DecoderScores) -> str:
    about = scores.about
    circle = " (which the run reads too)" if about.reads_the_runs_tokens else ""
    return (
        f"decoder {about.decoder} on tokens of {about.token_space.encoder}{circle}; retrieval "
        f"{about.n_way}-way, {counted(about.n_draws, 'draw')}; "
        f"{counted(about.n_test_images, 'test image')}\n" + scores.table()
    )
