"""``synbrain decoder compare``: the decoders of the paper's table on one subject, with intervals.

Rows of the paper (table 2): MindEye2 with one hour, MindAligner with one hour, MindEye2 with one real and one
synthetic hour; beside them ridge, all the data, and how well measured repeats identify each other.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from synbrain.arrays import Float64
from synbrain.data.dataset import Dataset
from synbrain.decoding.adapt import adapt_to, adaptation_data
from synbrain.decoding.alignment import make_alignment
from synbrain.decoding.curve_arms import Arms, Cell
from synbrain.decoding.decoder import Decoder
from synbrain.decoding.evaluate import DecoderEvaluation, evaluate_decoder, identified
from synbrain.decoding.folder import decoder_digest
from synbrain.decoding.options import DecoderAdaptOptions
from synbrain.decoding.registry import fit_method
from synbrain.decoding.subjects import mean_and_sd, with_synthetic
from synbrain.decoding.train import decoder_of
from synbrain.errors import SynBrainError
from synbrain.features.store import open_tokens
from synbrain.features.tokens import pairs_of
from synbrain.files import digest_of, read_json, require_absent, write_json
from synbrain.markdown import markdown_table
from synbrain.metrics.intervals import bootstrap_mean
from synbrain.metrics.retrieval import cosine_matrix
from synbrain.model.synbrain import SynBrain
from synbrain.progress import track
from synbrain.training.networks import Workspace

AGAINST = "mindeye2"
Each = dict[str, Float64]


class DecoderComparison(DecoderAdaptOptions):
    """Which decoders are compared, beside the settings of each."""

    budget: int | str = Field("1h", description="real data of every decoder but `full`")
    systems: list[str] = Field(
        ["ridge", "mindeye2", "mindaligner", "mindeye2_da", "full", "repeats"],
        description="mindeye2_da adds synthetic hours, full takes all data, repeats is the ceiling",
    )
    hours: float = Field(1.0, gt=0, description="synthetic hours of mindeye2_da")
    seeds: int = Field(3, ge=1, description="number of repetitions")


AS_PUBLISHED = DecoderComparison()


@dataclass(frozen=True)
class Setting:
    """What every system is given."""

    base: Decoder
    dataset: Dataset
    known_data: Dataset
    arms: Arms
    options: DecoderComparison
    folder: Path


def compare_decoders(
    base: Path,
    dataset: Dataset,
    options: DecoderComparison = AS_PUBLISHED,
    *,
    run: SynBrain,
    known_data: Dataset,
    out: Path,
    overwrite: bool = False,
    show_progress: bool = False,
) -> dict[str, Any]:
    """Fit and score decoders of a new subject; run again to go on after an interruption.

    Every finished decoder lies under ``out/results`` at once; one that fails is named under "failed" and
    loses nothing. All are scored on the same measured test images, repeats averaged, among all of them.

    Args:
        base: folder of a MindEye2 decoder of other subjects.
        dataset: the new subject's, with tokens of the base's encoder.
        options: systems, budget, seeds and settings of training.
        run: a model of the new subject that saw the budget and no more; it makes the synthetic trials.
        known_data: the known subject's dataset, for MindAligner's pairs and the synthetic trials' images.
        out: folder to write.
        overwrite: start again.
        show_progress: a bar over the decoders.

    Returns:
        "rows": system -> metric -> value (mean over seeds), 95 % interval over test images, and the paired
        difference from ``mindeye2`` with its interval; "failed"; "about".

    Raises:
        SynBrainError: an unknown system or bad input, before anything is trained.
    """
    unknown = sorted(set(options.systems) - set(SYSTEMS))
    if unknown:
        raise SynBrainError(f"no decoders {unknown}", f"choose among {', '.join(SYSTEMS)}")
    require_absent(out / "table.json", overwrite)
    if overwrite:
        shutil.rmtree(out / "results", ignore_errors=True)
    arms = Arms(run, dataset, known_data)
    setting = Setting(Decoder.from_pretrained(base), dataset, known_data, arms, options, out / "results")
    adaptation_data(setting.base, dataset, options)  # what does not fit is refused here
    settings = options.model_dump(mode="json", exclude={"systems", "seeds", "device"})
    identity = digest_of([settings, run.digest, decoder_digest(base), dataset.info.name])
    results: dict[str, list[Each]] = {}
    failed: dict[str, str] = {}
    todo = [(seed, name) for seed in range(options.seeds) for name in options.systems]
    for seed, name in track(todo, "decoders", unit="decoder", show=show_progress):
        if name == "repeats" and seed:
            continue  # nothing in it is drawn
        try:
            results.setdefault(name, []).append(_finished(name, seed, setting, identity))
        except SynBrainError as error:
            failed[f"{name}-{seed}"] = str(error)
    rows = {name: _row(each, results.get(AGAINST, []), name) for name, each in results.items() if each}
    about = {
        "dataset": dataset.info.name, "run": run.digest, "base": decoder_digest(base), "seeds": options.seeds,
        "budget": str(options.budget), "synthetic_hours": options.hours, "against": AGAINST,
        "steps": options.mindeye2.steps, "n_test_images": len(dataset.image_rows("test")),
    }  # fmt: skip
    table = {"about": about, "rows": rows, "failed": failed}
    write_json(out / "table.json", table)
    return table


def table_of(comparison: dict[str, Any]) -> str:
    """Markdown: value and interval of every metric, a row a system."""
    metrics = max((list(row) for row in comparison["rows"].values()), key=len)  # `repeats` has no tokens
    lines = []
    for name, row in comparison["rows"].items():
        cells = [f"{e['value']:.3f} [{e['interval'][0]:.3f}, {e['interval'][1]:.3f}]" for e in row.values()]
        lines.append([name, *cells, *[""] * (len(metrics) - len(cells))])
    return "\n".join(markdown_table(["decoder", *metrics], lines, numbers=False))


def _finished(name: str, seed: int, setting: Setting, identity: str) -> Each:
    """The result of a system and seed, from its file where it stands there."""
    path = setting.folder / f"{name}-{seed}.json"
    if path.exists():
        stored = read_json(path)
        if stored["identity"] != identity:
            raise SynBrainError(f"{path} was made with other settings", "pass --overwrite, or another --out")
        return {metric: np.asarray(values) for metric, values in stored["each"].items()}
    each = SYSTEMS[name](setting, seed)
    kept = {metric: [float(value) for value in values] for metric, values in each.items()}
    write_json(path, {"identity": identity, "each": kept})
    return each


def _row(each: list[Each], against: list[Each], name: str) -> dict[str, dict[str, Any]]:
    row: dict[str, dict[str, Any]] = {}
    for metric in each[0]:
        values = np.mean([of[metric] for of in each], axis=0)
        row[metric] = {"value": float(values.mean()), "interval": list(bootstrap_mean(values))}
        if against and name != AGAINST and len(values) == len(against[0].get(metric, [])):
            apart = values - np.mean([of[metric] for of in against], axis=0)
            interval = list(bootstrap_mean(apart))
            row[metric] |= {"difference": float(apart.mean()), "difference_interval": interval}
    return row


def _ridge(setting: Setting, seed: int) -> Each:
    options = setting.options.model_copy(update={"method": "ridge", "seed": seed})
    data = adaptation_data(setting.base, setting.dataset, options)
    method = fit_method(data.subjects, options, Workspace(setting.folder / ".ridge"))
    return _scored(decoder_of(method, data, options), setting)


def _mindeye2(
    setting: Setting, seed: int, *, hours: float = 0.0, adaptation: str = "finetune", budget: str = ""
) -> Each:
    changes = {"seed": seed, "adaptation": adaptation} | ({"budget": budget} if budget else {})
    options = setting.options.model_copy(update=changes)
    data = adaptation_data(setting.base, setting.dataset, options)
    alignment = None
    if adaptation == "mindaligner":
        alignment = make_alignment(setting.base, data, setting.dataset, setting.known_data, options)
    if hours:
        trials, targets = setting.arms.trials(Cell("calibrated", hours, seed), data)
        data = with_synthetic(data, trials, targets, options.synthetic_weight)
    folder = setting.folder / f".{adaptation}-{hours:g}-{budget}-{seed}"
    try:
        workspace = Workspace(folder, device=options.device)
        return _scored(adapt_to(setting.base, data, options, workspace, alignment=alignment), setting)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _repeats(setting: Setting, seed: int) -> Each:
    """How well the first trial of an image identifies the mean of its other trials: no decoder sees more."""
    tokens = open_tokens(setting.dataset, setting.base.targets.source.encoder)
    test, train = (pairs_of(setting.dataset, tokens, split) for split in ("test", "train"))
    test = test.take(np.flatnonzero(test.repeats() > 1))
    if test.n_images < 2:
        raise SynBrainError("no test image was repeated", "leave `repeats` out of --systems")
    mean, sd = mean_and_sd(train)
    first = np.unique(test.image_of_trial, return_index=True)[1]
    one = (test.trial_responses(first) - mean) / sd
    n = test.repeats()[:, None]
    others = ((test.repeat_means() - mean) / sd * n - one) / (n - 1)
    similarity = cosine_matrix(one, others)
    right = np.diagonal(similarity)
    below = (similarity < right[:, None]).sum(axis=1) + ((similarity == right[:, None]).sum(axis=1) - 1) / 2
    return identified(similarity) | {"two_way": below / (test.n_images - 1)}


def _scored(decoder: Decoder, setting: Setting) -> Each:
    scores = evaluate_decoder(decoder, setting.dataset, DecoderEvaluation(n_way=1_000_000))
    return scores.each["measured_mean"]


SYSTEMS: dict[str, Callable[[Setting, int], Each]] = {
    "ridge": _ridge,
    "mindeye2": _mindeye2,
    "mindaligner": lambda setting, seed: _mindeye2(setting, seed, adaptation="mindaligner"),
    "mindeye2_da": lambda setting, seed: _mindeye2(setting, seed, hours=setting.options.hours),
    "full": lambda setting, seed: _mindeye2(setting, seed, budget="all"),
    "repeats": _repeats,
}
