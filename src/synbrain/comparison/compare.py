"""Every method on one dataset: trained, scored, kept as each finishes, and put into one table."""

from __future__ import annotations

import shutil
import time
import traceback
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from synbrain.comparison.about import ComparisonAbout
from synbrain.comparison.combine import combined
from synbrain.comparison.job import Job
from synbrain.comparison.methods import AGAINST, METHODS, Method, chosen_methods
from synbrain.comparison.options import CompareOptions
from synbrain.comparison.results import (
    curves_path,
    finite,
    identity_of,
    load_result,
    result_path,
    save_result,
)
from synbrain.data.dataset import Dataset
from synbrain.errors import SynBrainError
from synbrain.evaluation.differences import differences
from synbrain.evaluation.evaluate import describe
from synbrain.evaluation.measured import measure
from synbrain.evaluation.row import Row
from synbrain.evaluation.scores import Scores
from synbrain.features.encoder import pick_device
from synbrain.features.store import open_untuned
from synbrain.features.tokens import TokenSet, split_pairs
from synbrain.features.tuned_folder import PREFIX
from synbrain.files import alone, require_absent, write_text
from synbrain.metrics.intervals import seed_interval
from synbrain.networks.presets import preset as checked_preset
from synbrain.progress import bar

GAUSSIAN, DISTRIBUTION = "ridge_gaussian", ("crps", "energy_score")
RESULTS, TRAINING = "results", "training"
EVERY_SYSTEM = CompareOptions()


@dataclass(frozen=True)
class Comparison:
    """Scores of every method, and what failed.

    Attributes:
        scores: the table: means over seeds, intervals, paired differences; ``about`` says the rest.
        failed: method -> what was raised, for methods that lost at least one seed.
    """

    scores: Scores
    failed: dict[str, str]

    @property
    def about(self) -> ComparisonAbout:
        """How methods were fitted and compared."""
        about = self.scores.about
        return about if isinstance(about, ComparisonAbout) else ComparisonAbout(**about.model_dump())

    def to_json(self) -> dict[str, Any]:
        """Content of ``table.json``: that of ``scores.json`` with ``failed`` beside it."""
        return {**self.scores.to_json(), "failed": self.failed}


def compare(
    dataset: Dataset,
    options: CompareOptions = EVERY_SYSTEM,
    *,
    out: Path,
    tokens: TokenSet | None = None,
    registry: dict[str, Method] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    show_progress: bool = False,
) -> Comparison:
    """Fit and score methods, seed by seed; each result lies in ``out/results`` as soon as it is there.

    Test images, bootstrap draws and retrieval subsets are the same for all methods and seeds. Every finished
    fit is kept at once; the same call with ``resume`` goes on, and fits again only what changed. A method
    that fails is named in the result and does not stop the others.

    Args:
        dataset: with training and test images and stored tokens.
        options: methods, seeds and scoring.
        out: folder for results.
        tokens: of all ``dataset`` images, where they are not to be read from its store.
        registry: methods to choose from; ``METHODS`` if left out.
        resume: take finished results whose data and configuration are the same.
        overwrite: throw away what an earlier comparison left.
        show_progress: one bar over everything, and those of trainings.

    Raises:
        SynBrainError: for unknown methods, an ``out`` that is taken or being made, missing tokens, no test
            images.
    """
    known, out = METHODS if registry is None else registry, Path(out)
    names = chosen_methods(options.methods, known)
    checked_preset(options.preset)
    device = pick_device(options.device)
    if tokens is None:
        dataset, tokens = open_untuned(dataset, options.encoder, options.layers)
    train, test = split_pairs(dataset, tokens)
    with alone(out):  # the checkpoints of another would be removed at the end
        _prepare(out, resume, overwrite)
        measured = measure(test, train, dataset.space, n_bootstrap=options.n_bootstrap, device=device)
        job = Job(dataset, tokens, measured, options, out / TRAINING, show_progress=show_progress)
        chosen = {name: known[name] for name in names}
        skipped = {n: why for n, method in chosen.items() if (why := method.maker.why_not(job)) is not None}
        applying = {name: method for name, method in chosen.items() if name not in skipped}
        results = _all_results(applying, job, out)
        shutil.rmtree(out / TRAINING, ignore_errors=True)
        rows = {name: combined(list(of.values()), name) for name, of in results.rows.items() if of}
        about = _about(job, chosen, results, rows).model_copy(update={"skipped": skipped})
        apart = differences(rows, AGAINST, n_images=test.n_images)
        return Comparison(Scores.of_rows(rows, about, apart), results.failed)


@dataclass(frozen=True)
class _Results:
    """Rows of every method and seed, and what did not come to be.

    Attributes:
        rows: method -> seed -> row.
        seconds: method -> time that its fits took, over seeds.
        failed: method -> what was raised.
    """

    rows: dict[str, dict[int, Row]]
    seconds: dict[str, float]
    failed: dict[str, str]


def _all_results(methods: dict[str, Method], job: Job, out: Path) -> _Results:
    """Every method with every seed; seed by seed, so that an interrupted comparison has all methods."""
    n_seeds = job.options.seeds
    seeds = {name: range(n_seeds if method.seeded else 1) for name, method in methods.items()}
    results = _Results({name: {} for name in seeds}, dict.fromkeys(seeds, 0.0), {})
    progress = bar("compare", total=sum(map(len, seeds.values())), unit="fit", show=job.show_progress)
    for seed in range(n_seeds):
        for name in (n for n in seeds if seed in seeds[n]):
            progress.set_description(f"compare: {name}, seed {seed}")
            try:
                row, seconds = _one(methods[name], name, replace(job, seed=seed), out)
            except Exception as error:
                results.failed[name] = _failure(results.failed.get(name), seed, error, out, name)
            else:
                results.rows[name][seed] = row
                results.seconds[name] += seconds
            progress.update(1)
    progress.close()
    return results


def _about(job: Job, methods: dict[str, Method], results: _Results, rows: dict[str, Row]) -> ComparisonAbout:
    """What the table says about itself: data, settings, and comparisons beside those with ridge."""
    options = job.options
    n_images = job.measured.test.n_images
    data = describe(job.dataset, job.measured, n_samples=options.samples).model_copy(
        update={
            "encoder": job.tokens.encoder,
            "layers": list(job.tokens.layers),
            "n_way": min(options.n_way, job.measured.test.n_images),
        }
    )
    return ComparisonAbout(
        **(data.model_dump() | {"n_bootstrap": options.n_bootstrap}),
        seeds=list(range(options.seeds)),
        seeds_of={name: sorted(of) for name, of in results.rows.items() if of},
        seconds={name: round(took, 1) for name, took in results.seconds.items() if name in rows},
        command=_command(job),
        preset=options.preset,
        changes=_flat(options.changes),
        against=AGAINST,
        methods={name: method.about for name, method in methods.items()},
        groups={name: method.group for name, method in methods.items()},
        over_seeds=_over_seeds(results.rows),
        differences_from_ridge_gaussian=_against_gaussian(rows, n_images),
        differences_from_base=_against_base(rows, {name: methods[name].base for name in rows}, n_images),
    )


def _command(job: Job) -> str:
    """What makes the table again: every option that is not the default, and a few that always are told."""
    options = job.options
    told = {"methods", "seeds", "preset", "encoder", "samples"}
    rest = {"layers", "n_way", "n_subsets", "n_bootstrap"}
    given = options.model_dump(include=told) | options.model_dump(include=rest, exclude_defaults=True)
    # a tuned encoder is found by its folder, which its tokens do not know
    given["encoder"] = options.encoder if PREFIX in job.tokens.encoder else job.tokens.encoder
    words = [f"synbrain compare {job.dataset.path.name}"]
    for name, value in (given | _flat(options.changes)).items():
        said = " ".join(map(str, value)) if isinstance(value, list) else value
        words.append(f"--{name.replace('_', '-')} {said}")
    return " ".join(words)


def _prepare(out: Path, resume: bool, overwrite: bool) -> None:
    if resume and overwrite:
        raise SynBrainError("--resume and --overwrite contradict each other", "give one of them")
    if not resume:
        require_absent(out, overwrite)
        for left in (RESULTS, TRAINING):
            shutil.rmtree(out / left, ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)


def _one(method: Method, name: str, job: Job, out: Path) -> tuple[Row, float]:
    """A finished result where there is one, else a new one, kept at once."""
    path = result_path(out, name, job.seed)
    identity = identity_of(job, method.maker.identity(job))
    finished = load_result(path, identity)
    if finished is not None:
        return finished
    # checkpoints of another configuration must not be met: the folder's name tells them apart
    folder = job.folder / name / f"seed{job.seed}-{identity[:12]}"
    job = replace(job, folder=folder, curves=curves_path(path))
    started = time.monotonic()
    row = method.maker.score(job)
    took = round(time.monotonic() - started, 2)
    save_result(path, row, identity=identity, seconds=took, seed=job.seed)
    shutil.rmtree(job.folder, ignore_errors=True)
    path.with_suffix(".error.txt").unlink(missing_ok=True)
    return row, took


def _failure(before: str | None, seed: int, error: Exception, out: Path, name: str) -> str:
    """What goes into the table about a failure; its traceback lies beside where the result would."""
    path = result_path(out, name, seed).with_suffix(".error.txt")
    write_text(path, "".join(traceback.format_exception(error)))
    problem = f"seed {seed}: {type(error).__name__}: {' '.join(str(error).split())}"
    return problem if before is None else f"{before}; {problem}"


def _flat(changes: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in changes.items():
        out |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return out


def _against_gaussian(rows: dict[str, Row], n_images: int) -> dict[str, dict[str, dict[str, Any]]]:
    """Paired differences of the distribution scores from ridge with Gaussian residuals.

    Any trial distribution beats ridge, a point mass, in these scores; this is the one to beat.
    """
    of_distribution = {
        name: {metric: entry for metric, entry in row.items() if metric in DISTRIBUTION}
        for name, row in differences(rows, GAUSSIAN, n_images=n_images).items()
    }
    return {name: row for name, row in of_distribution.items() if row}


def _against_base(
    rows: dict[str, Row], base: dict[str, str], n_images: int
) -> dict[str, dict[str, dict[str, Any]]]:
    """Paired differences of ablations from the row that each is a difference of, corrected among its kind."""
    apart: dict[str, dict[str, dict[str, Any]]] = {}
    for name in dict.fromkeys(base.values()):
        family = {n: row for n, row in rows.items() if n == name or base[n] == name}
        if name in rows and len(family) > 1:
            apart |= differences(family, name, n_images=n_images)
    return apart


def _over_seeds(rows: dict[str, dict[int, Row]]) -> dict[str, dict[str, dict[str, Any]]]:
    """method -> metric -> {"values", "sd", "interval" (t, over seeds alone)} for methods of several seeds."""
    out: dict[str, dict[str, dict[str, Any]]] = {}
    for name, of_seeds in rows.items():
        if len(of_seeds) < 2:
            continue
        for metric in next(iter(of_seeds.values())).values:
            values = [finite(row.values.get(metric)) for row in of_seeds.values()]
            entry: dict[str, Any] = {"values": values}
            known = np.array([value for value in values if value is not None], dtype=np.float64)
            if len(known) > 1:
                interval = seed_interval(known)
                entry |= {"sd": float(known.std(ddof=1)), "interval": list(interval) if interval else None}
            out.setdefault(name, {})[metric] = entry
    return out
