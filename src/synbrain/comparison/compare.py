"""Every method on one dataset: trained, scored, kept as each finishes, and put into one table."""

from __future__ import annotations

import shutil
import time
import traceback
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from synbrain.comparison.combine import combined
from synbrain.comparison.methods import AGAINST, METHODS, Method, chosen_methods
from synbrain.comparison.results import (
    curves_path,
    finite,
    identity_of,
    load_result,
    result_path,
    save_result,
)
from synbrain.comparison.task import Task
from synbrain.data.dataset import Dataset
from synbrain.errors import SynBrainError
from synbrain.evaluation.differences import differences
from synbrain.evaluation.evaluate import describe
from synbrain.evaluation.measured import measure
from synbrain.evaluation.row import Row
from synbrain.evaluation.score_model import N_SAMPLES
from synbrain.evaluation.scores import Scores
from synbrain.features.store import open_tokens
from synbrain.features.tokens import TokenSet, split_pairs
from synbrain.files import require_absent, write_text
from synbrain.metrics.intervals import N_BOOTSTRAP, seed_interval
from synbrain.metrics.retrieval import N_SUBSETS, N_WAY
from synbrain.networks.presets import preset as checked_preset
from synbrain.progress import bar

GAUSSIAN, DISTRIBUTION = "ridge_gaussian", ("crps", "energy_score")
RESULTS, TRAINING = "results", "training"


@dataclass(frozen=True)
class Comparison:
    """What a comparison found.

    Attributes:
        scores: the table: means over seeds, intervals, paired differences; ``about`` says the rest.
        failed: method -> what was raised, for methods that lost at least one seed.
    """

    scores: Scores
    failed: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """Content of ``table.json``: that of ``scores.json`` with ``failed`` beside it."""
        return {**self.scores.to_json(), "failed": self.failed}


def compare(
    dataset: Dataset,
    methods: Iterable[str],
    out: Path,
    *,
    n_seeds: int = 3,
    preset: str = "tiny",
    encoder: str = "efficientnet-lite0",
    layers: list[str] | None = None,
    tokens: TokenSet | None = None,
    n_samples: int = N_SAMPLES,
    n_way: int = N_WAY,
    n_subsets: int = N_SUBSETS,
    n_bootstrap: int = N_BOOTSTRAP,
    changes: dict[str, Any] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    registry: dict[str, Method] | None = None,
    show_progress: bool = False,
) -> Comparison:
    """Fit and score methods, seed by seed; each result lies in ``out/results`` as soon as it is there.

    Test images, bootstrap draws and retrieval subsets are the same for all methods and seeds.

    Args:
        dataset: with training and test images and stored tokens.
        methods: names, groups or "all" (:func:`chosen_methods`).
        out: folder for results.
        n_seeds: seeds 0 .. n_seeds - 1; methods that do not depend on a seed are fitted once.
        preset: sizes of networks.
        encoder, layers: whose tokens; all stored layers if left out.
        tokens: of all ``dataset`` images, where they are not to be read from its store.
        n_samples: synthetic trials per test image.
        n_way, n_subsets: of raw and synthetic retrieval.
        n_bootstrap: draws of test images.
        changes: values of the training configuration that differ from every recipe, nested.
        resume: take finished results whose data and configuration are the same.
        overwrite: throw away what an earlier comparison left.
        registry: methods to choose from; ``METHODS`` if left out.
        show_progress: one bar over everything, and those of trainings.

    Raises:
        SynBrainError: for unknown methods, a taken ``out``, missing tokens or test images.
    """
    known = METHODS if registry is None else registry
    words = list(methods)
    names = chosen_methods(words, known)
    checked_preset(preset)
    if n_seeds < 1 or n_samples < 2 or n_way < 2:
        raise SynBrainError(
            f"{n_seeds} seeds, {n_samples} samples, {n_way} candidates",
            "give at least 1 seed, 2 samples and 2 candidates",
        )
    tokens = tokens or open_tokens(dataset, encoder, layers)
    train, test = split_pairs(dataset, tokens)
    _prepare(out, resume, overwrite)
    measured = measure(test, train, dataset.space, n_bootstrap=n_bootstrap)
    task = Task(
        dataset, tokens, measured, preset, out / TRAINING,
        n_samples=n_samples, n_way=n_way, n_subsets=n_subsets, changes=changes or {},
        show_progress=show_progress,
    )  # fmt: skip
    skipped = {name: reason for name in names if (reason := known[name].maker.why_not(task)) is not None}
    seeds = {name: range(n_seeds if known[name].seeded else 1) for name in names if name not in skipped}
    rows: dict[str, dict[int, Row]] = {name: {} for name in seeds}
    seconds: dict[str, float] = dict.fromkeys(seeds, 0.0)
    failed: dict[str, str] = {}
    progress = bar("compare", total=sum(map(len, seeds.values())), unit="fit", show=show_progress)
    # seed by seed, so that an interrupted comparison has every method first
    for seed in range(n_seeds):
        for name in (n for n in seeds if seed in seeds[n]):
            progress.set_description(f"compare: {name}, seed {seed}")
            try:
                row, took = _one(known[name], name, replace(task, seed=seed), out)
            except Exception as error:
                failed[name] = _told(failed.get(name), seed, error, out, name)
            else:
                rows[name][seed] = row
                seconds[name] += took
            progress.update(1)
    progress.close()
    shutil.rmtree(out / TRAINING, ignore_errors=True)
    made = {name: combined(list(found.values()), name) for name, found in rows.items() if found}
    about = describe(dataset, measured, n_samples=n_samples) | {
        "seeds": list(range(n_seeds)),
        "seeds_of": {name: sorted(found) for name, found in rows.items() if found},
        "seconds": {name: round(took, 1) for name, took in seconds.items() if name in made},
        "command": (
            f"synbrain compare {dataset.info.name} --methods {','.join(words)} --seeds {n_seeds}"
            f" --preset {preset} --encoder {tokens.encoder} --samples {n_samples}"
            + "".join(f" --{option} {value}" for option, value in _flat(changes or {}).items())
        ),
        "preset": preset,
        "changes": _flat(changes or {}),
        "encoder": tokens.encoder,
        "layers": list(tokens.layers),
        "n_way": min(n_way, test.n_images),
        "n_bootstrap": n_bootstrap,
        "against": AGAINST,
        "methods": {name: known[name].about for name in names},
        "groups": {name: known[name].group for name in names},
        "skipped": skipped,
        "over_seeds": _over_seeds(rows),
        "differences_from_ridge_gaussian": _against_gaussian(made),
        "differences_from_base": _against_base(made, {name: known[name].base for name in made}),
    }
    return Comparison(Scores.of_rows(made, about, differences(made, AGAINST)), failed)


def _prepare(out: Path, resume: bool, overwrite: bool) -> None:
    if resume and overwrite:
        raise SynBrainError("--resume and --overwrite contradict each other", "give one of them")
    if not resume:
        require_absent(out, overwrite)
        for left in (RESULTS, TRAINING):
            shutil.rmtree(out / left, ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)


def _one(method: Method, name: str, task: Task, out: Path) -> tuple[Row, float]:
    """A finished result where there is one, else a new one, kept at once."""
    path = result_path(out, name, task.seed)
    identity = identity_of(task, method.maker.identity(task))
    found = load_result(path, identity)
    if found is not None:
        return found
    # checkpoints of another configuration must not be met: the folder's name tells them apart
    folder = task.folder / name / f"seed{task.seed}-{identity[:12]}"
    task = replace(task, folder=folder, curves=curves_path(path))
    started = time.monotonic()
    row = method.maker.score(task)
    took = round(time.monotonic() - started, 2)
    save_result(path, row, identity=identity, seconds=took, seed=task.seed)
    shutil.rmtree(task.folder, ignore_errors=True)
    path.with_suffix(".error.txt").unlink(missing_ok=True)
    return row, took


def _told(before: str | None, seed: int, error: Exception, out: Path, name: str) -> str:
    """What goes into the table about a failure; its traceback lies beside where the result would."""
    path = result_path(out, name, seed).with_suffix(".error.txt")
    write_text(path, "".join(traceback.format_exception(error)))
    said = f"seed {seed}: {type(error).__name__}: {' '.join(str(error).split())}"
    return said if before is None else f"{before}; {said}"


def _flat(changes: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in changes.items():
        out |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return out


def _against_gaussian(rows: dict[str, Row]) -> dict[str, dict[str, dict[str, Any]]]:
    """Paired differences of the distribution scores from ridge with Gaussian residuals.

    Any trial distribution beats ridge, a point mass, in these scores; this is the one to beat.
    """
    found = differences(rows, GAUSSIAN)
    kept = {n: {m: said for m, said in row.items() if m in DISTRIBUTION} for n, row in found.items()}
    return {name: row for name, row in kept.items() if row}


def _against_base(rows: dict[str, Row], base: dict[str, str]) -> dict[str, dict[str, dict[str, Any]]]:
    """Paired differences of ablations from the row that each is a difference of, corrected among its kind."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for name in dict.fromkeys(base.values()):
        family = {n: row for n, row in rows.items() if n == name or base[n] == name}
        if name in rows and len(family) > 1:
            found |= differences(family, name)
    return found


def _over_seeds(rows: dict[str, dict[int, Row]]) -> dict[str, dict[str, dict[str, Any]]]:
    """method -> metric -> {"values", "sd", "interval" (t, over seeds alone)} for methods of several seeds."""
    out: dict[str, dict[str, dict[str, Any]]] = {}
    for name, found in rows.items():
        if len(found) < 2:
            continue
        for metric in next(iter(found.values())).values:
            values = [finite(row.values.get(metric)) for row in found.values()]
            entry: dict[str, Any] = {"values": values}
            known = np.array([value for value in values if value is not None], dtype=np.float64)
            if len(known) > 1:
                interval = seed_interval(known)
                entry |= {"sd": float(known.std(ddof=1)), "interval": list(interval) if interval else None}
            out.setdefault(name, {})[metric] = entry
    return out
