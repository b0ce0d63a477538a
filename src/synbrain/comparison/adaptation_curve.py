"""Scores of an adapted model against the number of training images, beside its baselines."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from synbrain.arrays import Float32, Float64
from synbrain.baselines.ridge import Ridge
from synbrain.comparison.options import AdaptationCurveOptions
from synbrain.data.budget import parse_budget
from synbrain.data.dataset import Dataset
from synbrain.errors import SynBrainError
from synbrain.features.store import open_untuned
from synbrain.features.tokens import Pairs, TokenSet, split_pairs
from synbrain.files import require_absent, write_json, write_text
from synbrain.linear.by_encoder import fit_each_encoder
from synbrain.linear.config import LinearPathConfig
from synbrain.linear.fit import LinearFit, fit_linear_path
from synbrain.markdown import markdown_table
from synbrain.metrics.intervals import image_weights, percentile_interval, seed_interval, voxel_r_replicates
from synbrain.metrics.voxel import mean_defined, voxel_r
from synbrain.model.subject import part_of, require_recorded, require_unseen
from synbrain.model.synbrain import SynBrain
from synbrain.progress import track
from synbrain.training.adapt import adapt_to, adaptation_config, layers_read, new_subject
from synbrain.training.config import TrainConfig
from synbrain.training.options import AdaptOptions
from synbrain.training.subjects import TrainingSubject, check_subjects

AS_USUAL = AdaptationCurveOptions()
FITTED = ("adapted", "ridge", "scratch")


def adaptation_curve(
    base: SynBrain,
    dataset: Dataset,
    options: AdaptationCurveOptions = AS_USUAL,
    *,
    full_run: SynBrain | None = None,
    out: Path | None = None,
    overwrite: bool = False,
    show_progress: bool = False,
) -> dict[str, Any]:
    """Score adaptation on several numbers of training images, beside its baselines.

    The baselines are ridge and a calibrated linear path from scratch on the same images, the base as it is,
    the mean map and the full-data model. Writes OUT/curve.json and OUT/table.md.

    Args:
        base: the run to adapt.
        dataset: the new subject's, with training and test images, and tokens of the run's encoder.
        options: budgets, draws (a smaller budget is part of a larger one), settings of the adaptation.
        full_run: a run of this subject with all its data; the linear path is fitted to them if left out.
        out: folder to write; nothing is written if left out.
        overwrite: replace what stands at out.
        show_progress: a bar over the fits.

    Returns:
        "curve" is a list of points: "budget", "n_images", "n_trials", voxel_r (repeat means) of "adapted",
        "ridge", "scratch", "base", "mean_map" and "full", averaged over draws, "draws", "intervals" (95 %,
        over draws and over test images) and "differences" of "adapted", paired in both ways.

    Raises:
        SynBrainError: as :func:`synbrain.training.adapt.adapt`.
    """
    if out is not None:
        require_absent(out, overwrite)
    dataset, tokens = open_untuned(dataset, base.config.encoder, layers_read(base, options))
    base.config.require_encoder_of(tokens)
    _, test = split_pairs(dataset, tokens)
    if test.n_images < 2:
        raise SynBrainError(
            f"{dataset.info.name} has one test image, and a correlation across images needs two",
            "prepare it with more test images",
        )
    jobs = _jobs(base, dataset, tokens, options)
    constant = _unadapted(base, full_run, dataset, tokens, test, options)
    weights = image_weights(test.n_images, options.n_bootstrap, options.seed)
    by_budget: dict[str, list[Draw]] = {b: [] for b in options.budgets}
    for drawn, subject in track(jobs, "adaptation curve", unit="fit", show=show_progress):
        by_budget[str(drawn.budget)].append(_one_draw(base, subject, drawn, test, weights))
    curve = {
        "curve": [_entry(budget, scored, constant) for budget, scored in by_budget.items()],
        "metric": "voxel_r on the repeat means of the test images",
        "dataset": dataset.info.name,
        "base_subjects": list(base.subjects),
        "n_test_images": test.n_images,
        **options.model_dump(include={"networks", "update", "seed"}),
    }
    if out is not None:
        write_json(out / "curve.json", curve)
        write_text(out / "table.md", curve_table(curve))
    return curve


def _jobs(
    base: SynBrain, dataset: Dataset, tokens: TokenSet, options: AdaptationCurveOptions
) -> list[tuple[AdaptationCurveOptions, TrainingSubject]]:
    """Options and training images of every fit.

    All are drawn before the first fit: a budget larger than the dataset, or one of two images, would
    otherwise end the curve after hours, with nothing written.
    """
    jobs = []
    n_all = len(dataset.image_rows("train"))
    for budget in dict.fromkeys(options.budgets):
        asked = parse_budget(budget, by="images")
        of_all = asked.by == "all" or asked.amount == n_all  # which there is one way to draw
        n_draws = 1 if of_all else options.draws
        for seed in range(options.seed, options.seed + n_draws):
            drawn = options.model_copy(
                update={"budget": budget, "by": "images", "budget_seed": seed, "seed": seed}
            )
            subject = new_subject(base, dataset, tokens, drawn)
            check_subjects([subject], adaptation_config(base, drawn))
            jobs.append((drawn, subject))
    return jobs


def _unadapted(
    base: SynBrain, full: SynBrain | None, dataset: Dataset, tokens: TokenSet, test: Pairs,
    options: AdaptOptions,
) -> dict[str, float | None]:  # fmt: skip
    """Scores that no budget changes: of the base as it is, and of a model with all the data."""
    if full is not None:
        require_unseen(full, dataset)
        part = part_of(full, dataset)
        require_recorded(part, dataset, chosen=False)
        everything = full.predict(test.tokens, subject=part.name)
    else:
        subject = new_subject(base, dataset, tokens, options.model_copy(update={"budget": "all"}))
        everything = _from_scratch(subject, adaptation_config(base, options)).path.predict(test.tokens)
    measured = test.repeat_means()
    return {
        "base": _score(_base_prediction(base, dataset, test.tokens), measured),
        "full": _score(everything, measured),
    }


@dataclass(frozen=True)
class Draw:
    """What one draw of a budget's images scored.

    Attributes:
        scores: row -> voxel_r.
        replicates: row -> (n_bootstrap,) the same over bootstrap samples of test images.
        n_images, n_trials: trained on.
        seconds: that the adaptation took, the linear path from scratch included where it is part of it.
    """

    scores: dict[str, float | None]
    replicates: dict[str, Float64]
    n_images: int
    n_trials: int
    seconds: float


def _one_draw(
    base: SynBrain, subject: TrainingSubject, options: AdaptOptions, test: Pairs, weights: Float64
) -> Draw:
    """Adapt to one draw's images, beside a linear path from scratch and ridge on the same images."""
    config = adaptation_config(base, options)
    started = time.monotonic()
    scratch = _from_scratch(subject, config)
    if not config.linear_path:  # then it is the control's alone, and no part of the adaptation
        started = time.monotonic()
    adapted = adapt_to(base, replace(subject, linear_fit=scratch), options)
    seconds = time.monotonic() - started
    predictions = {
        "adapted": adapted.predict(test.tokens),
        "ridge": Ridge().fit(subject.pairs, seed=options.seed).predict(test.tokens),
        "scratch": scratch.path.predict(test.tokens),
    }
    measured = test.repeat_means()
    return Draw(
        scores={name: _score(prediction, measured) for name, prediction in predictions.items()},
        replicates={name: voxel_r_replicates(weights, p, measured) for name, p in predictions.items()},
        n_images=subject.pairs.n_images,
        n_trials=subject.pairs.n_trials,
        seconds=seconds,
    )


def _from_scratch(subject: TrainingSubject, config: TrainConfig) -> LinearFit:
    def of_encoder(pairs: Pairs, linear: LinearPathConfig, _: int) -> LinearFit:
        return fit_linear_path(pairs, linear, seed=config.seed)

    return fit_each_encoder(subject.pairs, config.linear, of_encoder)


def _base_prediction(base: SynBrain, dataset: Dataset, tokens: TokenSet) -> Float32 | None:
    """Mean over the base subjects that have as many voxels; None where none has."""
    fitting = [name for name, part in base.subjects.items() if part.n_voxels == dataset.n_voxels]
    if not fitting:
        return None
    return np.asarray(np.mean([base.predict(tokens, subject=name) for name in fitting], axis=0))


def _score(predicted: Float32 | None, measured: Float32) -> float | None:
    return None if predicted is None else mean_defined(voxel_r(predicted, measured))[0]


def _entry(budget: str, drawn: list[Draw], constant: dict[str, float | None]) -> dict[str, Any]:
    """One point of the curve from its draws."""
    values = {name: np.array([draw.scores[name] for draw in drawn], dtype=float) for name in FITTED}
    replicates = {name: np.mean([draw.replicates[name] for draw in drawn], axis=0) for name in FITTED}
    entry: dict[str, Any] = {
        "budget": int(budget) if budget.isdecimal() else budget,
        "n_images": int(np.mean([draw.n_images for draw in drawn])),
        "n_trials": float(np.mean([draw.n_trials for draw in drawn])),
        **{name: float(np.mean(values[name])) for name in FITTED},
        "base": constant["base"],
        "mean_map": 0.0,  # a constant prediction correlates with nothing: 0 by definition
        "full": constant["full"],
        "seconds": float(np.mean([draw.seconds for draw in drawn])),
        "draws": [draw.scores for draw in drawn],
        "intervals": {
            name: {"draws": seed_interval(values[name]), "images": percentile_interval(replicates[name])}
            for name in FITTED
        },
        "differences": {},
    }
    for name in ("ridge", "scratch"):
        apart = values["adapted"] - values[name]
        entry["differences"][f"adapted - {name}"] = {
            "difference": float(apart.mean()),
            "draws": seed_interval(apart),
            "images": percentile_interval(replicates["adapted"] - replicates[name]),
        }
    return entry


def curve_table(curve: dict[str, Any]) -> str:
    """The curve as Markdown."""
    columns = ("images", "trials", "adapted", "scratch", "ridge", "base", "mean map", "full",
               "adapted - ridge", "adapted - scratch")  # fmt: skip
    rows = []
    for point in curve["curve"]:
        scores = [_number(point[k]) for k in ("adapted", "scratch", "ridge", "base", "mean_map", "full")]
        apart = [_difference(point["differences"][f"adapted - {name}"]) for name in ("ridge", "scratch")]
        rows.append([str(point["n_images"]), f"{point['n_trials']:.0f}", *scores, *apart])
    return "\n".join(markdown_table(columns, rows, numbers=False)) + "\n"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _difference(entry: dict[str, Any]) -> str:
    over, interval = ("draws", entry["draws"]) if entry["draws"] else ("images", entry["images"])
    between = "" if interval is None else f" [{interval[0]:+.3f}, {interval[1]:+.3f}] ({over})"
    return f"{entry['difference']:+.3f}{between}"
