"""Decoders of the augmentation curve, looked at each round of training: which score peaks when?

    python benchmarks/decoder_rounds.py RUN DATASET --images OTHER --hours 16 32 --out rounds.json

The decoders are those of ``synbrain augmentation-curve`` with a budget of 1 h, half of each batch synthetic
and no diffusion prior. Test images are looked at to find a cause; nothing is chosen by them. Prints means
over seeds: scores on validation images, which choose the checkpoint, and on test images.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from synbrain.data.dataset import load_dataset
from synbrain.decoding.evaluate import evaluate_decoder
from synbrain.decoding.experiments.arms import Arms, Cell
from synbrain.decoding.experiments.curve import METRICS
from synbrain.decoding.mindeye2 import fit as mindeye2_fit
from synbrain.decoding.mindeye2.model import MindEye2
from synbrain.decoding.options import CurveOptions, DecoderEvaluation
from synbrain.decoding.protocol import DecodingMethod, DecodingSubject
from synbrain.decoding.subjects import decoding_data, with_synthetic
from synbrain.decoding.train import decoder_of
from synbrain.decoding.validation import ValidationScores, validation_scores
from synbrain.files import read_json, write_json
from synbrain.model.synbrain import SynBrain
from synbrain.training.networks import Workspace

SHARE = 0.5
VALIDATION = ("score", "log_rank_embedded", "log_rank_tokens")


def rounds_of(arms: Arms, hours: float, seed: int) -> list[dict[str, float]]:
    """Scores of one decoder on validation and test images after each round of training."""
    options = CurveOptions.model_validate(
        {"budget": "1h", "seed": seed, "mindeye2": {"patience": 1_000_000, "sizes": {"use_prior": False}}}
    )
    real = decoding_data([arms.dataset], options, run_images=arms.run.config.trained_images)
    data = real
    if hours:
        data = with_synthetic(real, *arms.trials(Cell("calibrated", hours, seed), real), SHARE)
    rounds: list[dict[str, float]] = []

    def looked_at(method: DecodingMethod, subjects: Sequence[DecodingSubject]) -> ValidationScores:
        assert isinstance(method, MindEye2)
        scores = validation_scores(method, subjects)
        decoder = decoder_of(method, data, options)
        each = evaluate_decoder(decoder, arms.dataset, DecoderEvaluation()).each["measured_mean"]
        rounds.append(
            {m: scores.means[m] for m in VALIDATION} | {m: float(np.mean(each[m])) for m in METRICS}
        )
        return scores

    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(mindeye2_fit, "validation_scores", looked_at),
    ):
        mindeye2_fit.fit_mindeye2(data.subjects, options, Workspace(Path(folder)))
    return rounds[:-1]  # the last look is at the weights that were kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--images", type=Path, required=True, help="dataset whose images are shown")
    parser.add_argument("--hours", type=float, nargs="+", default=[16.0, 32.0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--out", type=Path, required=True, help="JSON file; decoders in it are not made again"
    )
    args = parser.parse_args()
    arms = Arms(SynBrain.from_pretrained(args.run), load_dataset(args.dataset), load_dataset(args.images))
    known: dict[str, Any] = read_json(args.out) if args.out.exists() else {}
    for seed in range(args.seeds):
        for hours in args.hours:
            if f"{hours:g}h-{seed}" not in known:
                known[f"{hours:g}h-{seed}"] = rounds_of(arms, hours, seed)
                write_json(args.out, known)
    columns = (*VALIDATION, *METRICS)
    for hours in args.hours:
        of = [known[f"{hours:g}h-{seed}"] for seed in range(args.seeds)]
        print(f"{hours:g} h synthetic\n{'step':>5} " + " ".join(f"{c:>18}" for c in columns))
        for place, entries in enumerate(zip(*of, strict=True)):
            means = [float(np.mean([entry[c] for entry in entries])) for c in columns]
            step = CurveOptions().mindeye2.round_steps * (place + 1)
            print(f"{step:>5} " + " ".join(f"{value:>18.4f}" for value in means))


if __name__ == "__main__":
    main()
