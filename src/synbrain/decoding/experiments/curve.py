"""What synthetic hours are worth: decoders of the same real data with more and more synthetic trials.

Free of the published confound, in which the steps of training grow with the hours: every decoder takes the
same number of steps, and keeps the weights that do best on validation images.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from synbrain.arrays import Float64
from synbrain.data.budget import TRIALS_PER_HOUR
from synbrain.data.dataset import Dataset
from synbrain.data.marks import unpacked
from synbrain.decoding.adapt import adapt_to, adaptation_data
from synbrain.decoding.choice import chosen_share
from synbrain.decoding.decoder import Decoder
from synbrain.decoding.evaluate import evaluate_decoder
from synbrain.decoding.experiments.arms import Arms, Cell
from synbrain.decoding.experiments.grid import Grid, Result, decoded_content, require_one_process
from synbrain.decoding.experiments.worth import worth_in_real_hours
from synbrain.decoding.folder import decoder_digest
from synbrain.decoding.options import CurveOptions, DecoderEvaluation
from synbrain.decoding.refit import on_all_images, once_fitted, refitted
from synbrain.decoding.registry import fit_method
from synbrain.decoding.subjects import DecodingData, decoding_data, with_synthetic
from synbrain.decoding.train import decoder_of
from synbrain.decoding.unseen import note_seen
from synbrain.decoding.unused import note_unused_in_adaptation
from synbrain.errors import SynBrainError
from synbrain.files import digest_of, write_json
from synbrain.metrics.intervals import bootstrap_mean
from synbrain.model.synbrain import SynBrain
from synbrain.training.networks import Workspace

METRICS = ("images_ranked", "brains_ranked", "two_way")


AS_ASKED = CurveOptions()


@dataclass(frozen=True)
class Experiment:
    """What all cells share."""

    arms: Arms
    base: Decoder | None
    options: CurveOptions
    out: Path
    base_digest: str = ""

    @cached_property
    def tokens(self) -> list[str]:
        """Digests of the tokens that are decoded: pictures and encoders change under their names."""
        decoded = self.options if self.base is None else self.base.targets.source
        return decoded_content([self.arms.dataset, self.arms.images], decoded.encoder, decoded.layer)

    @property
    def grid(self) -> Grid[Cell]:
        """Its decoders on disk."""
        return Grid(self.out, Cell, partial(_identity, experiment=self), partial(_fit, experiment=self))


def augmentation_curve(
    run: SynBrain,
    dataset: Dataset,
    options: CurveOptions = AS_ASKED,
    *,
    out: Path,
    base: Path | None = None,
    images: Dataset | None = None,
    overwrite: bool = False,
    show_progress: bool = False,
) -> dict[str, Any]:
    """Train decoders with and without synthetic trials, and score each on the measured test responses.

    Run again to go on after an interruption; finished decoders are not trained again. A decoder that fails
    is named under "failed" and loses nothing. One process: not with ``accelerate launch`` of several.

    Args:
        run: of the subject; it should have seen the real data of the budget and no more, and "about" says
            where it did not.
        dataset: the subject's, with tokens of the decoder's encoder.
        options: arms, hours, weights and seeds; settings of the decoders.
        out: folder for one JSON file a decoder and ``curve.json``.
        base: a decoder to adapt, as published; new decoders where left out.
        images: whose images the synthetic trials show; those of ``dataset`` where left out.
        overwrite: start again.
        show_progress: a bar over the decoders.

    Returns:
        "points": arm, hours, metric means, paired differences against no synthetic trials with 95 %
        intervals over test images; "worth": further real hours that give the same score; "failed".

    Raises:
        SynBrainError: bad input, before anything is trained.
    """
    require_one_process("synbrain augmentation-curve")
    _check(options)
    opened = None if base is None else Decoder.from_pretrained(base)
    if opened is not None:
        note_unused_in_adaptation(opened, options)
    digest = "" if base is None else decoder_digest(base)
    experiment = Experiment(Arms(run, dataset, images or dataset), opened, options, out, digest)
    plain = _data(experiment, 0)  # what does not fit is refused here
    _ = experiment.arms.part, experiment.arms.rows  # and another's run, images that are all test images
    grid = experiment.grid
    grid.begin("curve.json", overwrite=overwrite, resume=options.resume)
    note_seen(plain.n_validation_images, plain.seen)
    results, failed = grid.all(_cells(options), earlier=options.resume, show_progress=show_progress)
    chosen = choose_shares(results, options)
    read = {"points": curve_points(chosen), "worth": curve_worth(chosen)}
    curve = {"about": _about(experiment, plain), **read, "failed": failed}
    write_json(out / "curve.json", curve)
    return curve


def _check(options: CurveOptions) -> None:
    """Refuse shares, hours and budgets that make no experiment."""
    if not options.weights or not all(0 <= weight < 1 for weight in options.weights):
        raise SynBrainError(
            f"shares {options.weights} of synthetic samples", "give numbers from 0 to below 1"
        )
    if not options.hours or min(options.hours) < 0 or 0 not in options.hours:
        raise SynBrainError(f"hours {options.hours}", "give 0, the decoder without, and positive numbers")
    if "real" in options.arms:
        for hours in filter(None, options.hours):
            further_hours(options.budget, hours)


def _cells(options: CurveOptions) -> list[Cell]:
    """Decoders without synthetic trials first: the others are compared with them."""
    seeds, positive = range(options.seeds), [h for h in options.hours if h]
    shares = [weight for weight in options.weights if weight]
    cells = [Cell("none", 0, seed) for seed in seeds]
    for seed in seeds:
        for arm in options.arms:
            weights = [0.0] if arm == "real" else shares
            cells += [Cell(arm, hours, seed, weight) for hours in positive for weight in weights]
    return cells


def _about(experiment: Experiment, plain: DecodingData) -> dict[str, Any]:
    """What ``curve.json`` says the curve was measured on."""
    options, arms = experiment.options, experiment.arms
    more = unpacked(arms.run.config.trained_images) - unpacked(plain.trained_images)
    return {
        "dataset": arms.dataset.info.name,
        "budget": str(options.budget),
        "method": options.method,
        "run": arms.run.digest,
        "images_the_run_saw_beyond_the_budget": len(more),
        "validation_images": plain.n_validation_images,
        "validation_images_the_run_saw": None if plain.seen is None else list(plain.seen),
        "steps": options.mindeye2.steps,
        "steps_grow": options.steps_grow,
        "refit": options.refit,
        "seeds": options.seeds,
        "adapted": experiment.base is not None,
    }


def _identity(cell: Cell, experiment: Experiment) -> str:
    """Digest of all that a decoder depends on."""
    options = experiment.options
    elsewhere = {"hours", "arms", "weights", "seeds", "device", "resume", "rule"}  # what does not change it
    return digest_of(
        ["one share a file", options.model_dump(mode="json", exclude=elsewhere | once_fitted(options)),
         experiment.arms.run_digest, experiment.base_digest, experiment.tokens,
         *((data.info.name, data.digest) for data in (experiment.arms.dataset, experiment.arms.images)),
         vars(cell)]
    )  # fmt: skip


def _fit(cell: Cell, experiment: Experiment) -> Result:
    """Fit a decoder, again where there is to be a last fit, and score it."""
    more = further_hours(experiment.options.budget, cell.hours) if cell.arm == "real" else None
    data = _data(experiment, cell.seed, more)
    if cell.arm not in ("none", "real"):
        data = with_synthetic(data, *experiment.arms.trials(cell, data), cell.weight)
    return _scored(*_fitted(data, cell, experiment), experiment)


def choose_shares(results: dict[Cell, Result], options: CurveOptions) -> dict[Cell, Result]:
    """One decoder for each arm, amount and seed: the share that validation images chose.

    What is chosen is filed under share 0, and says its "weight". Without the decoder of the seed that has no
    synthetic trials (it failed) nothing can be chosen, unless share 0 was not to be tried.
    """
    chosen: dict[Cell, Result] = {}
    for place in dict.fromkeys(cell.whichever_weight for cell in results):
        if place.arm in ("none", "real"):
            chosen[place] = results[place] | {"weight": 0.0}
            continue
        tried = {weight: results.get(replace(place, weight=weight)) for weight in options.weights if weight}
        if 0 in options.weights:
            tried[0.0] = results.get(Cell("none", 0, place.seed))
            if tried[0.0] is None:
                continue
        scores = {weight: result["validation_each"] for weight, result in tried.items() if result is not None}
        if scores:
            weight = chosen_share(scores, options.rule)
            means = {f"{share:g}": float(np.mean(of)) for share, of in scores.items()}
            chosen[place] = (tried[weight] or {}) | {"weight": weight, "tried": means}
    return chosen


def further_hours(budget: int | str, hours: float) -> str:
    """The budget of the arm ``real``: so many hours more.

    >>> further_hours("1h", 4.0)
    '5h'

    Raises:
        SynBrainError: for a budget in images or sessions, to which hours cannot be added, or part of an hour.
    """
    match = re.fullmatch(r"(\d+)h", str(budget).strip())
    if match is None or hours != int(hours):
        raise SynBrainError(
            f"{hours:g} further real hours to a budget of {budget}",
            "give --budget in hours (1h) and whole --hours, or leave `real` out of --arms",
        )
    return f"{int(match[1]) + int(hours)}h"


def _data(experiment: Experiment, seed: int, budget: str | None = None) -> DecodingData:
    """The real trials of the budget, or of another one; the seed draws validation images, not the budget.

    With and without synthetic trials a decoder is chosen by the same images, which the run did not see.
    """
    options = experiment.options.model_copy(
        update={"seed": seed} | ({} if budget is None else {"budget": budget})
    )
    dataset = experiment.arms.dataset
    run_images = experiment.arms.run.config.trained_images if budget is None else ""
    if experiment.base is not None:
        return adaptation_data(experiment.base, dataset, options, run_images=run_images)
    return decoding_data([dataset], options, run_images=run_images)


def _fitted(data: DecodingData, cell: Cell, experiment: Experiment) -> tuple[Decoder, list[float]]:
    """One decoder, and the score of each image that chose its step.

    The number of steps does not depend on the cell, unless it is to grow as published.
    """
    base = experiment.base
    training = experiment.options.mindeye2.model_copy(update={"patience": 1_000_000})
    if experiment.options.steps_grow:
        real = data.subjects[0].train.n_trials / TRIALS_PER_HOUR
        more = 0 if cell.arm in ("none", "real") else cell.hours
        training = training.model_copy(update={"steps": round(training.steps * (real + more))})
    options = experiment.options.model_copy(update={"seed": cell.seed, "mindeye2": training})

    def fit(data: DecodingData, workspace: Workspace, until: int | None) -> Decoder:
        if base is not None:
            return adapt_to(base, data, options, workspace, until=until)
        return decoder_of(fit_method(data.subjects, options, workspace, until), data, options)

    with experiment.grid.workspace(cell) as folder:
        workspace = Workspace(folder, device=options.device)
        decoder = fit(data, workspace, None)
        each = list(getattr(decoder.method, "validation_each", []))
        if options.refit:
            whole = on_all_images(data, options, None if base is None else base.targets)
            if cell.arm == "repeated":  # all of the real trials
                whole = with_synthetic(whole, *experiment.arms.trials(cell, whole), cell.weight)
            decoder = refitted(decoder, fit, whole, workspace)
    return decoder, each


def _scored(decoder: Decoder, validation_each: list[float], experiment: Experiment) -> Result:
    scores = evaluate_decoder(decoder, experiment.arms.dataset, DecoderEvaluation())
    each = scores.each["measured_mean"]
    return {
        "validation": dict(decoder.config.validation),
        "validation_each": validation_each,
        "last_fit": decoder.config.last_fit,
        "each": {metric: [float(v) for v in each[metric]] for metric in METRICS},
        "training": {k: v for k, v in decoder.config.training.items() if k.startswith("n_")},
    }


def curve_points(results: dict[Cell, Result]) -> list[dict[str, Any]]:
    """Arm and hours -> means over seeds, and paired differences against the decoder of the same seed without.

    Intervals (95 %) are over test images, of differences averaged over seeds.
    """
    points = []
    arms = list(dict.fromkeys(cell.arm for cell in results))
    shown = {(cell.arm, cell.hours) for cell in results}
    for arm, hours in sorted(shown, key=lambda point: (arms.index(point[0]), point[1])):
        cells = [cell for cell in results if (cell.arm, cell.hours) == (arm, hours)]
        point: dict[str, Any] = {"arm": arm, "hours": hours, "seeds": [cell.seed for cell in cells],
                                 "weights": [results[cell]["weight"] for cell in cells]}  # fmt: skip
        for metric in METRICS:
            values = np.array([results[cell]["each"][metric] for cell in cells])
            point[metric] = float(values.mean())
            plain = [results.get(Cell("none", 0, cell.seed)) for cell in cells]
            if arm != "none" and all(p is not None for p in plain):
                without: Float64 = np.array([p["each"][metric] for p in plain if p is not None])
                gain = (values - without).mean(axis=0)
                point[f"{metric}_gain"] = float(gain.mean())
                point[f"{metric}_gain_interval"] = list(bootstrap_mean(gain))
        points.append(point)
    return points


def curve_worth(results: dict[Cell, Result]) -> dict[str, dict[str, dict[str, Any]]]:
    """Metric -> synthetic hours of the arm ``calibrated`` -> what they are worth (``worth.py``).

    Empty without the arms ``none`` and ``real``.
    """
    worth: dict[str, dict[str, dict[str, Any]]] = {}
    for metric in METRICS:
        arms: dict[str, dict[float, Float64]] = {"none": {}, "real": {}, "calibrated": {}}
        for arm, hours in {(cell.arm, cell.hours) for cell in results if cell.arm in arms}:
            cells = [r for cell, r in results.items() if (cell.arm, cell.hours) == (arm, hours)]
            arms[arm][hours] = np.mean([r["each"][metric] for r in cells], axis=0)
        without = arms["none"].get(0)
        worth[metric] = (
            {} if without is None else worth_in_real_hours(without, arms["real"], arms["calibrated"])
        )
    return worth
