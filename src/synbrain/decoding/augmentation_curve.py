"""What synthetic hours are worth: decoders of the same real data with more and more synthetic trials.

Free of the published confound, in which the steps of training grow with the hours: every decoder takes the
same number of steps, and keeps the weights that do best on validation images.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from synbrain.arrays import Float64
from synbrain.data.budget import TRIALS_PER_HOUR
from synbrain.data.dataset import Dataset
from synbrain.data.marks import unpacked
from synbrain.decoding.adapt import adapt_to
from synbrain.decoding.curve_arms import Arms, Cell
from synbrain.decoding.decoder import Decoder
from synbrain.decoding.evaluate import evaluate_decoder
from synbrain.decoding.options import CurveOptions, DecoderEvaluation
from synbrain.decoding.registry import fit_method
from synbrain.decoding.subjects import DecodingData, decoding_data, with_synthetic
from synbrain.decoding.train import decoder_of
from synbrain.decoding.unseen import note_seen
from synbrain.decoding.worth import worth_in_real_hours
from synbrain.errors import SynBrainError
from synbrain.files import digest_of, read_json, require_absent, write_json
from synbrain.metrics.intervals import bootstrap_mean
from synbrain.model.synbrain import SynBrain
from synbrain.progress import track
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
    is named under "failed" and loses nothing.

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
    _check(options)
    if overwrite:
        shutil.rmtree(out / "cells", ignore_errors=True)
        (out / "curve.json").unlink(missing_ok=True)
    if not options.resume:
        require_absent(out / "curve.json", overwrite)
    opened = None if base is None else Decoder.from_pretrained(base)
    experiment = Experiment(Arms(run, dataset, images or dataset), opened, options, out)
    plain = _data(experiment, 0)
    note_seen(plain.n_validation_images, plain.seen)
    _ = experiment.arms.rows  # refuses images that are all test images
    cells = dict.fromkeys(_cells(options) + (_finished_before(out) if options.resume else []))
    results, failed = _finished_all(list(cells), experiment, show_progress)
    read = {"points": curve_points(results), "worth": curve_worth(results)}
    curve = {"about": _about(experiment, plain), **read, "failed": failed}
    write_json(out / "curve.json", curve)
    return curve


def _check(options: CurveOptions) -> None:
    """Refuse shares and hours that make no experiment."""
    if not options.weights or not all(0 <= weight < 1 for weight in options.weights):
        raise SynBrainError(
            f"shares {options.weights} of synthetic samples", "give numbers from 0 to below 1"
        )
    if not options.hours or min(options.hours) < 0 or 0 not in options.hours:
        raise SynBrainError(f"hours {options.hours}", "give 0, the decoder without, and positive numbers")


def _cells(options: CurveOptions) -> list[Cell]:
    """Decoders without synthetic trials first: the others are compared with them."""
    seeds, positive = range(options.seeds), [h for h in options.hours if h]
    without = [Cell("none", 0, seed) for seed in seeds]
    return without + [Cell(arm, h, seed) for seed in seeds for arm in options.arms for h in positive]


def _finished_before(out: Path) -> list[Cell]:
    """Decoders of earlier calls, which stay in the curve that is extended."""
    cells = []
    for path in sorted((out / "cells").glob("*.json")):
        arm, hours, seed = path.stem.rsplit("-", 2)
        cells.append(Cell(arm, float(hours.removesuffix("h")) if arm != "none" else 0, int(seed)))
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
        "seeds": options.seeds,
        "adapted": experiment.base is not None,
    }


def _finished_all(
    cells: list[Cell], experiment: Experiment, show_progress: bool
) -> tuple[dict[Cell, dict[str, Any]], dict[str, str]]:
    """Results of decoders, and what is wrong with those that failed.

    Raises:
        SynBrainError: where one was made with other settings, before anything is trained or written over.
    """
    for cell in cells:
        _stored(cell, experiment)
    results: dict[Cell, dict[str, Any]] = {}
    failed: dict[str, str] = {}
    for cell in track(cells, "decoders", unit="decoder", show=show_progress):
        try:
            results[cell] = _finished(cell, experiment)
        except SynBrainError as error:
            failed[cell.name] = str(error)
    return results, failed


def _finished(cell: Cell, experiment: Experiment) -> dict[str, Any]:
    stored = _stored(cell, experiment)
    if stored is not None:
        return stored
    result = _best_weight(cell, experiment) | {"identity": _identity(cell, experiment)}
    write_json(_path(cell, experiment), result)
    return result


def _stored(cell: Cell, experiment: Experiment) -> dict[str, Any] | None:
    """A decoder's result of an earlier call.

    Raises:
        SynBrainError: where it was made with other settings.
    """
    path = _path(cell, experiment)
    if not path.exists():
        return None
    stored: dict[str, Any] = read_json(path)
    if stored["identity"] != _identity(cell, experiment):
        raise SynBrainError(f"{path} was made with other settings", "pass --overwrite, or another --out")
    return stored


def _path(cell: Cell, experiment: Experiment) -> Path:
    return experiment.out / "cells" / f"{cell.name}.json"


def _identity(cell: Cell, experiment: Experiment) -> str:
    """Digest of all that a decoder depends on."""
    elsewhere = {"hours", "arms", "seeds", "device", "resume"}  # what does not change a decoder
    return digest_of(
        ["validation images unseen", experiment.options.model_dump(mode="json", exclude=elsewhere),
         experiment.arms.run.digest, experiment.arms.dataset.info.name, experiment.arms.images.info.name,
         vars(cell)]
    )  # fmt: skip


def _best_weight(cell: Cell, experiment: Experiment) -> dict[str, Any]:
    """Fit with each share of synthetic samples; validation images choose the one that is scored.

    A share of 0 is the decoder of the same seed without synthetic trials, which was fitted before.
    """
    data = _data(experiment, cell.seed)
    if cell.arm == "none":
        return _scored(_fitted(data, cell, experiment), experiment, 0.0)
    if cell.arm == "real":
        data = _data(experiment, cell.seed, further_hours(experiment.options.budget, cell.hours))
        return _scored(_fitted(data, cell, experiment), experiment, 0.0)
    synthetic, targets = experiment.arms.trials(cell, data)
    best: tuple[float, float, Decoder] | None = None
    tried: dict[str, float] = {}
    for weight in (w for w in experiment.options.weights if w):
        more = with_synthetic(data, synthetic, targets, weight)
        decoder = _fitted(more, cell, experiment, weight)
        score = _score(decoder.config.validation, experiment)
        tried[f"{weight:g}"] = score
        if best is None or score < best[0]:
            best = (score, weight, decoder)
    if 0 in experiment.options.weights:
        without = _finished(Cell("none", 0, cell.seed), experiment)
        tried["0"] = _score(without["validation"], experiment)
        if best is None or tried["0"] <= best[0]:
            return without | {"tried": tried}
    assert best is not None  # an empty list of weights was refused
    return _scored(best[2], experiment, best[1]) | {"tried": tried}


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


def _score(validation: dict[str, Any], experiment: Experiment) -> float:
    if "score" not in validation:
        raise SynBrainError(
            f"{experiment.options.method} has no score on validation images to choose the share by",
            "use mindeye2 or ridge",
        )
    return float(validation["score"])


def _data(experiment: Experiment, seed: int, budget: str | None = None) -> DecodingData:
    """The real trials of the budget, or of another one; the seed draws validation images, not the budget.

    With and without synthetic trials a decoder is chosen by the same images, which the run did not see.
    """
    options = experiment.options.model_copy(
        update={"seed": seed} | ({} if budget is None else {"budget": budget})
    )
    targets = None if experiment.base is None else experiment.base.targets
    run_images = experiment.arms.run.config.trained_images if budget is None else ""
    return decoding_data([experiment.arms.dataset], options, targets=targets, run_images=run_images)


def _fitted(data: DecodingData, cell: Cell, experiment: Experiment, weight: float = 0.0) -> Decoder:
    """One decoder; the number of steps does not depend on the cell, unless it is to grow as published."""
    training = experiment.options.mindeye2.model_copy(update={"patience": 1_000_000})
    if experiment.options.steps_grow:
        real = data.subjects[0].train.n_trials / TRIALS_PER_HOUR
        more = 0 if cell.arm in ("none", "real") else cell.hours
        training = training.model_copy(update={"steps": round(training.steps * (real + more))})
    options = experiment.options.model_copy(update={"seed": cell.seed, "mindeye2": training})
    workspace = Workspace(experiment.out / "cells" / f".{cell.name}-{weight:g}")
    try:
        if experiment.base is not None:
            return adapt_to(experiment.base, data, options, workspace)
        return decoder_of(fit_method(data.subjects, options, workspace), data, options)
    finally:
        shutil.rmtree(workspace.folder, ignore_errors=True)


def _scored(decoder: Decoder, experiment: Experiment, weight: float) -> dict[str, Any]:
    scores = evaluate_decoder(decoder, experiment.arms.dataset, DecoderEvaluation(n_way=10_000))
    each = scores.each["measured_mean"]
    return {
        "weight": weight,
        "validation": dict(decoder.config.validation),
        "each": {metric: [float(v) for v in each[metric]] for metric in METRICS},
        "training": {k: v for k, v in decoder.config.training.items() if k.startswith("n_")},
    }


def curve_points(results: dict[Cell, dict[str, Any]]) -> list[dict[str, Any]]:
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


def curve_worth(results: dict[Cell, dict[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    """Metric -> synthetic hours of the arm ``calibrated`` -> what they are worth (decoding/worth.py).

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
