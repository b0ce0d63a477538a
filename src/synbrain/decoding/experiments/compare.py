"""``synbrain decoder compare``: the decoders of the paper's table on one subject, with intervals.

Rows of the paper (table 2): MindEye2 with one hour, MindAligner with one hour, MindEye2 with one real and one
synthetic hour; beside them ridge, all the data, and how well measured repeats identify each other.

The ceiling of a column is what the measured data allow: the better of MindEye2 and ridge on all of them.
Repeats are no ceiling: nothing tells a trial which voxels to trust, and decoders know.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from synbrain.data.dataset import Dataset
from synbrain.decoding.adapt import adapt_to, adaptation_data
from synbrain.decoding.alignment import make_alignment
from synbrain.decoding.decoder import Decoder
from synbrain.decoding.evaluate import evaluate_decoder
from synbrain.decoding.experiments.arms import Arms, Cell
from synbrain.decoding.experiments.grid import Grid, Result, decoded_content, require_one_process
from synbrain.decoding.folder import decoder_digest
from synbrain.decoding.options import DecoderComparison, DecoderEvaluation
from synbrain.decoding.refit import fit_decoder, once_fitted
from synbrain.decoding.registry import fit_method
from synbrain.decoding.scores import Each, identified
from synbrain.decoding.subjects import DecodingData, mean_and_sd, with_synthetic
from synbrain.decoding.train import decoder_of
from synbrain.decoding.unseen import note_seen
from synbrain.decoding.unused import note_unused_in_adaptation
from synbrain.errors import SynBrainError
from synbrain.features.store import open_untuned
from synbrain.features.tokens import pairs_of
from synbrain.files import digest, digest_of, write_json, write_text
from synbrain.markdown import markdown_table
from synbrain.metrics.intervals import bootstrap_mean
from synbrain.metrics.retrieval import cosine_matrix
from synbrain.model.synbrain import SynBrain
from synbrain.training.networks import Workspace

AGAINST = "mindeye2"
OF_ALL_DATA = ("full", "full_ridge")
SMALL_IS_GOOD = ("correlation_distance",)


AS_PUBLISHED = DecoderComparison()


@dataclass(frozen=True)
class Setting:
    """What every system is given."""

    base: Decoder
    dataset: Dataset
    known_data: Dataset
    arms: Arms
    options: DecoderComparison
    out: Path
    base_digest: str

    @cached_property
    def tokens(self) -> list[str]:
        """Digests of the tokens that are decoded."""
        source = self.base.targets.source
        return decoded_content([self.dataset, self.known_data], source.encoder, source.layer)

    @property
    def grid(self) -> Grid[Row]:
        """The decoders on disk."""
        return Grid(self.out, Row, self._identity, lambda row: SYSTEMS[row.system](self, row))

    def _identity(self, row: Row) -> str:
        """Digest of all that a decoder depends on beside its place."""
        elsewhere = {"systems", "seeds", "hours", "device", "resume"}
        settings = self.options.model_dump(mode="json", exclude=elsewhere | once_fitted(self.options))
        data = [self.dataset.info.name, self.dataset.digest, self.known_data.digest]
        labels = [] if self.options.labels is None else [digest(self.options.labels)]
        return digest_of([settings, self.arms.run_digest, self.base_digest, *data, *self.tokens, *labels])


@dataclass(frozen=True)
class Row:
    """One decoder of the table: a system, its synthetic hours, and the seed."""

    system: str
    hours: float
    seed: int

    @property
    def name(self) -> str:
        """Of its file."""
        return f"{self.of_table}-{self.seed}"

    @property
    def of_table(self) -> str:
        """Name of the row that is a mean over seeds."""
        return f"{self.system}_{self.hours:g}h" if self.hours else self.system


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

    Every finished decoder lies under ``out/cells`` at once; one that fails is named under "failed" and
    loses nothing. All are scored on the same measured test images, repeats averaged, among all of them.
    One process: not with ``accelerate launch`` of several.

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
        difference from ``mindeye2`` with its interval; "ceiling": metric -> the row that is its ceiling;
        "validation": score on validation images (small is good); "failed"; "about".

    Raises:
        SynBrainError: an unknown system or bad input, before anything is trained.
    """
    require_one_process("synbrain decoder compare")
    unknown = sorted(set(options.systems) - set(SYSTEMS))
    if unknown:
        raise SynBrainError(f"no decoders {unknown}", f"choose among {', '.join(SYSTEMS)}")
    opened = Decoder.from_pretrained(base)
    note_unused_in_adaptation(opened, options)
    arms = Arms(run, dataset, known_data)
    setting = Setting(opened, dataset, known_data, arms, options, out, decoder_digest(base))
    first, _ = _data(setting, options), arms.part  # what does not fit is refused here
    grid = setting.grid
    grid.begin("table.json", overwrite=overwrite, resume=options.resume)
    note_seen(first.n_validation_images, first.seen)
    results, failed = grid.all(_rows_of(options), earlier=options.resume, show_progress=show_progress)
    about = {"run": run.digest, "base": setting.base_digest} | _about(setting, first, list(results))
    table = {"about": about, **_table(results), "failed": failed}
    write_json(out / "table.json", table)
    write_text(out / "table.md", table_of(table) + "\n")
    return table


def _table(results: dict[Row, Result]) -> dict[str, Any]:
    """Means over seeds, on test images and on validation images; rows in the order of ``SYSTEMS``."""
    by_name: dict[str, list[Result]] = {}
    for row in sorted(results, key=lambda row: (list(SYSTEMS).index(row.system), row.hours, row.seed)):
        by_name.setdefault(row.of_table, []).append(results[row])
    each = {name: [_arrays(result) for result in of] for name, of in by_name.items()}
    rows = {name: _row(of, each.get(AGAINST, []), name) for name, of in each.items()}
    scores = {name: [r["validation"]["score"] for r in of if r["validation"]] for name, of in by_name.items()}
    validation = {n: float(np.mean(values)) for n, values in scores.items() if values}
    return {"rows": rows, "ceiling": ceiling_of(rows), "validation": validation}


def ceiling_of(rows: dict[str, dict[str, dict[str, Any]]]) -> dict[str, str]:
    """Metric -> the row of a decoder of all measured data that is best in it; empty where there is none."""
    known = {name: rows[name] for name in OF_ALL_DATA if name in rows}
    best: dict[str, str] = {}
    for metric in next(iter(known.values()), {}):
        values = {name: row[metric]["value"] for name, row in known.items()}
        best[metric] = (min if metric in SMALL_IS_GOOD else max)(values, key=values.__getitem__)
    return best


def _about(setting: Setting, first: DecodingData, rows: list[Row]) -> dict[str, Any]:
    """What ``table.json`` says the table was measured on."""
    dataset, options = setting.dataset, setting.options
    return {
        "dataset": dataset.info.name,
        "seeds": 1 + max((row.seed for row in rows), default=0),
        "budget": str(options.budget),
        "synthetic_hours": sorted({row.hours for row in rows if row.hours}),
        "against": AGAINST,
        "steps": options.mindeye2.steps,
        "refit": options.refit,
        "n_test_images": len(dataset.image_rows("test")),
        "validation_images": first.n_validation_images,
        "validation_images_the_run_saw": None if first.seen is None else list(first.seen),
    }


def table_of(comparison: dict[str, Any]) -> str:
    """Markdown: value and interval of every metric, the ceiling of each, and the paired differences."""
    rows = comparison["rows"]
    metrics = max((list(row) for row in rows.values()), key=len)  # `repeats` has no tokens
    values = [[name, *(_cell(row.get(m, {}), "") for m in metrics)] for name, row in rows.items()]
    apart = [
        [name, *(_cell(row.get(m, {}), "difference") for m in metrics)]
        for name, row in rows.items()
        if any("difference" in entry for entry in row.values())
    ]
    if ceiling := comparison["ceiling"]:
        values.append(["ceiling", *(ceiling.get(m, "") for m in metrics)])
    lines = markdown_table(["decoder", *metrics], values, numbers=False)
    if apart:
        head = [f"minus {comparison['about']['against']}", *metrics]
        lines += ["", *markdown_table(head, apart, numbers=False)]
    return "\n".join(lines)


def _cell(entry: dict[str, Any], kind: str) -> str:
    """A value with its interval; empty where there is none."""
    name, interval = (kind, f"{kind}_interval") if kind else ("value", "interval")
    if name not in entry:
        return ""
    low, high = entry[interval]
    sign = "+" if kind else ""
    return f"{entry[name]:{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]"


def _rows_of(options: DecoderComparison) -> list[Row]:
    """All decoders to fit; nothing is drawn in ``repeats``, so that one seed is enough."""
    rows = [(s, h) for s in options.systems for h in (options.hours if s == "mindeye2_da" else [0.0])]
    return [Row(s, h, n) for n in range(options.seeds) for s, h in rows if s != "repeats" or n == 0]


def _data(setting: Setting, options: DecoderComparison) -> DecodingData:
    """The real trials; decoders of the budget are chosen by the same images, which the run did not see."""
    of_budget = options.budget == setting.options.budget
    run_images = setting.arms.run.config.trained_images if of_budget else ""
    return adaptation_data(setting.base, setting.dataset, options, run_images=run_images)


def _arrays(result: Result) -> Each:
    """Metric -> (n_test_images,) values."""
    return {metric: np.asarray(values) for metric, values in result["each"].items()}


def _result(each: Each, validation: dict[str, Any]) -> Result:
    """What is kept of a decoder: values of test images, and scores on validation images."""
    values = {metric: [float(value) for value in of] for metric, of in each.items()}
    return {"each": values, "validation": validation}


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


def _ridge(setting: Setting, row: Row, *, budget: str = "") -> Result:
    changes = {"method": "ridge", "seed": row.seed} | ({"budget": budget} if budget else {})
    options = setting.options.model_copy(update=changes)
    data = _data(setting, options)
    with setting.grid.workspace(row) as folder:
        method = fit_method(data.subjects, options, Workspace(folder))
    return _scored(decoder_of(method, data, options), setting)


def _mindeye2(setting: Setting, row: Row, *, adaptation: str = "finetune", budget: str = "") -> Result:
    changes = {"seed": row.seed, "adaptation": adaptation} | ({"budget": budget} if budget else {})
    options = setting.options.model_copy(update=changes)
    data = _data(setting, options)
    if row.hours:
        trials, targets = setting.arms.trials(Cell("calibrated", row.hours, row.seed), data)
        data = with_synthetic(data, trials, targets, options.synthetic_weight)

    def fit(data: DecodingData, workspace: Workspace, until: int | None) -> Decoder:
        alignment = None
        if adaptation == "mindaligner":
            alignment = make_alignment(setting.base, data, setting.dataset, setting.known_data, options)
        return adapt_to(setting.base, data, options, workspace, alignment=alignment, until=until)

    with setting.grid.workspace(row) as folder:
        workspace = Workspace(folder, device=options.device)
        return _scored(fit_decoder(fit, data, options, workspace, setting.base.targets), setting)


def _repeats(setting: Setting, row: Row) -> Result:
    """How well the first trial of an image identifies the mean of its other trials, by cosine of z-scores.

    It says how noisy a trial is. It is no bound on decoders, which read the mean of all repeats and know
    which voxels to trust.
    """
    dataset, tokens = open_untuned(setting.dataset, setting.base.targets.source.encoder)
    test, train = (pairs_of(dataset, tokens, split) for split in ("test", "train"))
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
    return _result(identified(similarity) | {"two_way": below / (test.n_images - 1)}, {})


def _scored(decoder: Decoder, setting: Setting) -> Result:
    scores = evaluate_decoder(decoder, setting.dataset, DecoderEvaluation())
    return _result(scores.each["measured_mean"], dict(decoder.config.validation))


SYSTEMS: dict[str, Callable[[Setting, Row], Result]] = {
    "ridge": _ridge,
    "mindeye2": _mindeye2,
    "mindaligner": partial(_mindeye2, adaptation="mindaligner"),
    "mindeye2_da": _mindeye2,
    "full": partial(_mindeye2, budget="all"),
    "full_ridge": partial(_ridge, budget="all"),
    "repeats": _repeats,
}
