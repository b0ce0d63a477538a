"""Synthetic trials or none, told by folds of all real images with a generator for each.

    python benchmarks/share_by_folds.py BASE DATASET... --images 25 50 100 --draws 0 1 2 3 --out FOLDER \
        [--curves CURVE...]

The augmentation curve chooses by a fifth of a small budget, which neither generator nor decoders have seen:
5 images of 25. Here all images of the budget choose. For each of five folds of them, ``BASE`` is adapted
without the fold, and two decoders are trained without it: one on real trials alone, one with half of every
batch synthetic (4 h of calibrated trials, which show no image of the fold). Both are looked at after every
round on the fold.

The rule, fixed before any test score of such a decoder was seen:

1. Checkpoint. For each of the two the round with the smallest mean score over all real images (mean log rank
   of both outputs, as everywhere), among the first five of ten. Later rounds are not looked at: on unused
   *training* images of two other recordings (v4_190923, v4_201018) decoders of 25 to 200 images change by no
   more than .006 in two-way after them, and it halves the cost.
2. Share. Synthetic trials are taken where their gain at these rounds, paired over all real images, is above
   its own standard error: ``chosen_share(..., "one_se")``. A margin, since synthetic trials must not make a
   decoder worse; the same margin as with a fifth, since sqrt(5) times smaller an error is what folds are for.
   Images of a fold share two decoders and a generator, so that the error is somewhat too small.
3. Generator and decoder are fitted to all real images, the decoder for the number of steps of that round.

The better mean ("mean") and no choice ("never", "always") are shown beside it, at the same checkpoints.
``CURVE``: curves of the same budgets and draws (seed 0), whose decoders were chosen by a fifth.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from synbrain.arrays import Float64, Rows
from synbrain.data.dataset import Dataset, load_dataset
from synbrain.decoding.choice import chosen_share, standard_error
from synbrain.decoding.evaluate import evaluate_decoder
from synbrain.decoding.experiments.arms import Arms, Cell
from synbrain.decoding.experiments.curve import METRICS, choose_shares
from synbrain.decoding.mindeye2 import fit as mindeye2_fit
from synbrain.decoding.mindeye2.model import MindEye2
from synbrain.decoding.options import CurveOptions
from synbrain.decoding.protocol import DecodingMethod, DecodingSubject
from synbrain.decoding.refit import on_all_images
from synbrain.decoding.subjects import DecodingData, decoding_data, with_synthetic
from synbrain.decoding.train import decoder_of
from synbrain.decoding.validation import ValidationScores, validation_scores
from synbrain.features.store import open_untuned
from synbrain.files import read_json, write_json
from synbrain.metrics.intervals import bootstrap_mean
from synbrain.model.synbrain import SynBrain
from synbrain.training.adapt import adapt_to, layers_read, new_subject
from synbrain.training.networks import Workspace
from synbrain.training.options import AdaptOptions
from synbrain.training.subjects import TrainingSubject

FOLDS, SHARE, HOURS, ROUNDS = 5, 0.5, 4.0, 5
RULES = ("never", "one_se", "mean", "always")


class StepReachedError(Exception):
    """Training has reached the step that was asked for."""


@dataclass(frozen=True)
class Hour:
    """The real images of one budget, and what to adapt to them."""

    base: SynBrain
    dataset: Dataset
    images: int
    draw: int

    @property
    def budget(self) -> dict[str, Any]:
        return {"budget": self.images, "by": "images", "budget_seed": self.draw}

    @property
    def options(self) -> CurveOptions:
        network = {"patience": 1_000_000, "sizes": {"use_prior": False}}
        return CurveOptions.model_validate(
            self.budget | {"validation_fraction": 1 / FOLDS, "mindeye2": network}
        )

    def subject(self) -> tuple[TrainingSubject, AdaptOptions]:
        options = AdaptOptions.model_validate(self.budget | {"networks": False})
        dataset, tokens = open_untuned(
            self.dataset, self.base.config.encoder, layers_read(self.base, options)
        )
        return new_subject(self.base, dataset, tokens, options), options

    def generator(self, images: Rows) -> SynBrain:
        """``base`` adapted to some of the images, by their place among those of the budget."""
        subject, options = self.subject()
        marks = tuple(subject.image_marks[i] for i in images)
        return adapt_to(
            self.base, replace(subject, pairs=subject.pairs.take(images), image_marks=marks), options
        )


def scores_of_rounds(data: DecodingData, options: CurveOptions, n_rounds: int) -> list[list[float]]:
    """Scores of each validation image after each of the first rounds of training."""
    each: list[list[float]] = []

    def looked_at(method: DecodingMethod, subjects: Sequence[DecodingSubject]) -> ValidationScores:
        scores = validation_scores(method, subjects)
        each.append(scores.each)
        if len(each) >= n_rounds:
            raise StepReachedError
        return scores

    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(mindeye2_fit, "validation_scores", looked_at),
        contextlib.suppress(StepReachedError),
    ):
        mindeye2_fit.fit_mindeye2(data.subjects, options, Workspace(Path(folder)))
    return each


def both(hour: Hour, run: SynBrain, data: DecodingData) -> dict[float, DecodingData]:
    """The data without and with synthetic trials of ``run``."""
    arms = Arms(run, hour.dataset, hour.dataset)
    return {
        0.0: data,
        SHARE: with_synthetic(data, *arms.trials(Cell("calibrated", HOURS, 0), data), SHARE),
    }


def on_folds(hour: Hour) -> dict[float, Float64]:
    """Share -> (n_rounds, n_images) score of each real image, by decoders that have not seen it."""
    order = np.random.default_rng([hour.draw, 5]).permutation(hour.images)
    each: dict[float, list[Float64]] = {0.0: [], SHARE: []}
    for fold in np.array_split(order, FOLDS):
        run = hour.generator(np.setdiff1d(np.arange(hour.images), fold))
        # validation images are those that the run has not seen: the fold
        data = decoding_data([hour.dataset], hour.options, run_images=run.config.trained_images)
        assert data.seen == ()
        assert data.n_validation_images == len(fold)
        for share, of in both(hour, run, data).items():
            scores = scores_of_rounds(of, hour.options, ROUNDS)
            each[share].append(np.asarray(scores, dtype=np.float64))
    return {share: np.concatenate(of, axis=1) for share, of in each.items()}


def all_images(hour: Hour) -> DecodingData:
    """The data with every image of the budget in training."""
    return on_all_images(decoding_data([hour.dataset], hour.options), hour.options)


def trained_until(data: DecodingData, options: CurveOptions, step: int) -> MindEye2:
    """A decoder after ``step`` of the usual steps, with nothing held out."""
    with tempfile.TemporaryDirectory() as folder:
        return mindeye2_fit.fit_mindeye2(data.subjects, options, Workspace(Path(folder)), until=step)


def measured(hour: Hour) -> dict[str, Any]:
    """Choice by folds, and test scores of the two decoders that it is between."""
    scores = on_folds(hour)
    rounds = {share: int(of.mean(axis=1).argmin()) for share, of in scores.items()}
    kept = {share: scores[share][at] for share, at in rounds.items()}
    gain = kept[0.0] - kept[SHARE]
    run, data = hour.generator(np.arange(hour.images)), all_images(hour)
    found: dict[str, Any] = {
        "recording": hour.dataset.info.name, "images": hour.images, "draw": hour.draw,
        "rounds": {f"{share:g}": of.mean(axis=1).tolist() for share, of in scores.items()},
        "gain": float(gain.mean()), "standard_error": standard_error(gain.tolist()),
        "taken": {rule: chosen_share({s: of.tolist() for s, of in kept.items()}, rule) > 0
                  for rule in ("one_se", "mean")},
        "test": {},
    }  # fmt: skip
    for share, of in both(hour, run, data).items():
        step = (rounds[share] + 1) * hour.options.mindeye2.round_steps
        decoder = decoder_of(trained_until(of, hour.options, step), of, hour.options)
        each = evaluate_decoder(decoder, hour.dataset).each["measured_mean"]
        found["test"][f"{share:g}"] = {"step": step} | {m: np.asarray(each[m]).tolist() for m in METRICS}
    return found


def at_the_step_of(curve: Path, hour: Hour) -> dict[str, list[float]]:
    """Test scores of a decoder of all real images, none synthetic, at the step that a fifth chose."""
    cell = read_json(curve / "cells" / f"{Cell('none', 0, 0).name}.json")
    data = all_images(hour)
    method = trained_until(data, hour.options, cell["validation"]["best_step"])
    each = evaluate_decoder(decoder_of(method, data, hour.options), hour.dataset).each["measured_mean"]
    return {m: np.asarray(each[m]).tolist() for m in METRICS}


Scores = dict[str, Float64]  # metric -> (n_test_images,)
Place = tuple[str, int, int]  # recording, images, draw


@dataclass(frozen=True)
class Chosen:
    """Test scores of one place by one procedure: the decoder without, the other, and who takes the latter.

    ``margin`` is the gain that validation images tell, in standard errors.
    """

    place: Place
    without: Scores
    synthetic: Scores
    taken: dict[str, bool]
    margin: float

    def scores(self, rule: str) -> Scores:
        return self.synthetic if self.takes(rule) else self.without

    def takes(self, rule: str) -> bool:
        return rule == "always" or self.taken.get(rule, False)


def by_folds(file: Path) -> Chosen:
    found = read_json(file)
    without, synthetic = (
        {m: np.asarray(found["test"][share][m]) for m in METRICS} for share in ("0", f"{SHARE:g}")
    )
    place, margin = (
        (found["recording"], found["images"], found["draw"]),
        found["gain"] / found["standard_error"],
    )
    return Chosen(place, without, synthetic, found["taken"], margin)


def by_a_fifth(curve: Path, draw: int) -> Chosen:
    """Seed 0 of a finished curve."""
    about = read_json(curve / "curve.json")["about"]
    cells = Cell("none", 0, 0), Cell("calibrated", HOURS, 0, SHARE)
    results = {cell: read_json(curve / "cells" / f"{cell.name}.json") for cell in cells}
    taken = {}
    for rule in ("one_se", "mean"):
        options = CurveOptions.model_validate({"weights": [0, SHARE], "rule": rule})
        taken[rule] = choose_shares(results, options)[cells[1].whichever_weight]["weight"] > 0
    without, synthetic = ({m: np.asarray(results[cell]["each"][m]) for m in METRICS} for cell in cells)
    gain = np.subtract(*(results[cell]["validation_each"] for cell in cells))
    margin = float(gain.mean()) / standard_error(gain.tolist())
    return Chosen((about["dataset"], int(about["budget"]), draw), without, synthetic, taken, margin)


def table(ways: dict[str, list[Chosen]]) -> None:
    """One row a budget, way and rule, of places that every way has; then the first way minus the second."""
    shared = set.intersection(*({c.place for c in of} for of in ways.values()))
    print(f"| images | chosen by | taken | {' | '.join(METRICS)} | gain in each | worst two-way |")
    for images in sorted({place[1] for place in shared}):
        here = {way: {c.place: c for c in of if c.place in shared and c.place[1] == images}
                for way, of in ways.items()}  # fmt: skip
        for way, of_place in here.items():
            for rule in RULES:
                _row(f"{images} | {way}, {rule}", list(of_place.values()), rule)
        for rule in RULES if len(ways) == 2 else ():
            first, second = ({p: c.scores(rule) for p, c in of.items()} for of in here.values())
            apart = [_interval(_pooled([(p, first[p][m] - second[p][m]) for p in first])) for m in METRICS]
            print(f"| {images} | {' minus '.join(ways)}, {rule} | | {' | '.join(apart)} | | |")


def margins(ways: dict[str, list[Chosen]]) -> None:
    """What validation images tell of a place, and what it is on test images."""
    shared = sorted(set.intersection(*({c.place for c in of} for of in ways.values())))
    told, true = [], []
    for way, of in ways.items():
        here = {c.place: c for c in of}
        told.append([here[p].margin for p in shared])
        true.append(
            [float((here[p].synthetic["two_way"] - here[p].without["two_way"]).mean()) for p in shared]
        )
        for place, margin, change in zip(shared, told[-1], true[-1], strict=True):
            print(f"{way} {place}: gain {margin:+.1f} standard errors, two-way {change:+.3f}")
        correlation = np.corrcoef(told[-1], true[-1])[0, 1]
        print(
            f"{way}: mean {np.mean(told[-1]):.2f} standard errors, correlation with two-way {correlation:.2f}"
        )
    if len(ways) == 2:
        print(f"correlation of the two-way of both ways {np.corrcoef(true[0], true[1])[0, 1]:.2f}")


def data_and_step(ways: dict[str, list[Chosen]], between: dict[Place, Scores]) -> None:
    """Without synthetic trials: what is due to further images, and what to the step."""
    folds, fifth = ({c.place: c.without for c in of} for of in ways.values())
    for images in sorted({place[1] for place in between}):
        for name, end, start in (("all images", between, fifth), ("step by folds", folds, between)):
            apart = [
                _interval(_pooled([(p, end[p][m] - start[p][m]) for p in between if p[1] == images]))
                for m in METRICS
            ]
            print(f"| {images} | never: due to {name} | | {' | '.join(apart)} | | |")


def _row(start: str, chosen: Sequence[Chosen], rule: str) -> None:
    scores = [c.scores(rule) for c in chosen]
    means = [f"{np.mean([s[m].mean() for s in scores]):.3f}" for m in METRICS]
    gains = [
        _interval(_pooled([(c.place, s[m] - c.without[m]) for c, s in zip(chosen, scores, strict=True)]))
        for m in METRICS
    ]
    worst = min(
        float((s["two_way"] - c.without["two_way"]).mean()) for c, s in zip(chosen, scores, strict=True)
    )
    taken = sum(c.takes(rule) for c in chosen)
    print(
        f"| {start} | {taken} of {len(chosen)} | {' | '.join(means)} | {' / '.join(gains)} | {worst:+.3f} |"
    )


def _pooled(values: Sequence[tuple[Place, Float64]]) -> Float64:
    """Differences at all test images; a recording's draws are averaged first."""
    names = sorted({place[0] for place, _ in values})
    return np.concatenate([np.mean([v for place, v in values if place[0] == n], axis=0) for n in names])


def _interval(values: Float64) -> str:
    low, high = bootstrap_mean(values) if np.any(values) else (0.0, 0.0)
    return f"{values.mean():+.3f} [{low:+.3f}, {high:+.3f}]"


def places_parser(description: str | None, images: list[int], draws: list[int]) -> argparse.ArgumentParser:
    """What names the places to measure: a base run, recordings, numbers of images and draws."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("base", type=Path, help="run that generators are adapted from")
    parser.add_argument("datasets", type=Path, nargs="+")
    parser.add_argument("--images", type=int, nargs="+", default=images)
    parser.add_argument("--draws", type=int, nargs="+", default=draws)
    parser.add_argument("--out", type=Path, required=True, help="what is in it is not measured again")
    return parser


def hours_of(args: argparse.Namespace) -> Iterator[Hour]:
    """The places that :func:`places_parser` read."""
    base, datasets = SynBrain.from_pretrained(args.base), [load_dataset(path) for path in args.datasets]
    for draw, images, dataset in itertools.product(args.draws, args.images, datasets):
        yield Hour(base, dataset, images, draw)


def each_measured(hours: Iterable[Hour], out: Path, measure: Callable[[Hour], Any]) -> list[Path]:
    """A file for each place with what ``measure`` gives of it; those that stand there stay."""
    files = []
    for hour in hours:
        file = out / f"{hour.dataset.info.name}-{hour.images}-{hour.draw}.json"
        if not file.exists():
            started = time.process_time()
            write_json(file, measure(hour))
            print(f"{file}: {time.process_time() - started:.0f} CPU s", flush=True)
        files.append(file)
    return files


def main() -> None:
    parser = places_parser(__doc__, images=[25, 50, 100], draws=[0, 1, 2, 3])
    parser.add_argument("--curves", type=Path, nargs="*", default=[], help="folders named ...-DRAW")
    args = parser.parse_args()
    hours = list(hours_of(args))
    files = each_measured(hours, args.out, measured)
    ways = {"folds": [by_folds(file) for file in files]}
    if args.curves:
        ways["a fifth"] = [by_a_fifth(curve, int(curve.name.split("-")[-1])) for curve in args.curves]
    table(ways)
    margins(ways)
    between: dict[Place, Scores] = {}
    for curve, chosen in zip(args.curves, ways.get("a fifth", []), strict=True):
        recording, images, draw = chosen.place
        hour = next(h for h in hours if h.dataset.info.name == recording)
        file = args.out / f"{recording}-{images}-{draw}-step.json"
        if not file.exists():
            write_json(file, at_the_step_of(curve, replace(hour, images=images, draw=draw)))
        between[chosen.place] = {m: np.asarray(of) for m, of in read_json(file).items()}
    if between:
        data_and_step(ways, between)


if __name__ == "__main__":
    main()
