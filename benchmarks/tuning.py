"""Leave sessions out: is an encoder that was tuned on other sessions better than the frozen one?

    python benchmarks/tuning.py BASE... --kept KEPT... --work FOLDER [--epochs 8] [--frozen-prior]
        [--options '{"encoder": "efficientnet-lite2"}'] [--beside FOLDER]

Datasets are those of `synbrain prepare`. The encoder is tuned on BASE; images that are test images of BASE or
KEPT are left out. On each kept-back session, for each number of training images: ridge and the linear path
on the layers of the same network, frozen (at its own size), and on the tuned layers, the latter also with the
readouts of the tuned subjects as its prior. `--frozen-prior` also fits the linear paths of BASE on frozen
layers, as a prior on those. Paths of both encoders are averaged voxel by voxel by their cross-validation:
"linear both" is `synbrain train --encoder A+B`, "prior both" is `synbrain adapt --also`, "all stacked"
averages all four. `--beside` names the folder of an earlier call for the same kept-back sessions, whose rows
are averaged with those of this one. The cross-validated r of the training images is printed as it comes and
in a table of its own; test images are looked at once, at the end. What is done in FOLDER is taken from there.
"""

from __future__ import annotations

import argparse
import json
import pickle
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import ttest_1samp

from synbrain import SynBrain
from synbrain.baselines.ridge import Ridge
from synbrain.data.dataset import Dataset, load_dataset
from synbrain.errors import SynBrainError
from synbrain.features.options import FeatureOptions
from synbrain.features.store import make_tokens, open_tokens, open_untuned
from synbrain.features.tokens import Pairs, pairs_of, split_pairs
from synbrain.files import read_json
from synbrain.linear.by_encoder import COMMON
from synbrain.linear.config import LinearPathConfig
from synbrain.linear.fit import LinearFit, fit_linear_path
from synbrain.linear.prior import BasePath, ResponseSpace, fit_with_prior, response_space
from synbrain.linear.stacking import stacked
from synbrain.metrics.intervals import image_weights, voxel_r_replicates
from synbrain.metrics.voxel import voxel_r
from synbrain.tuning.options import LAYERS, TuneOptions
from synbrain.tuning.tune import tune_encoder

AGAINST = ("prior frozen", "linear frozen", "ridge frozen")
LINEAR = LinearPathConfig()


def main() -> None:
    parser = session_parser(__doc__, ["50", "200", "all"])
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--frozen-prior", action="store_true")
    parser.add_argument("--options", type=json.loads, default={}, help="further TuneOptions, as JSON")
    parser.add_argument("--beside", type=Path, help="folder of an earlier call, averaged with this one")
    typed = parser.parse_args()
    base, kept = [load_dataset(p) for p in typed.base], [load_dataset(p) for p in typed.kept]
    options = TuneOptions(**{"epochs": typed.epochs, "seed": typed.seed, **typed.options})
    encoder = typed.work / f"encoder-{typed.work.name}"  # its tokens lie beside those of other works
    if not (encoder / "checksums.json").exists():
        started = cpu_seconds()
        tune_encoder(base, options, out=encoder, keep_out=kept, resume=True, show_progress=True)
        print(f"tuned in {cpu_seconds() - started:.0f} CPU seconds")
    tuned = readout_space(encoder)
    chosen = list(options.layers or LAYERS[options.encoder])
    frozen = Frozen(options.encoder, [*chosen, "final"], typed.work, typed.seed)
    kept = [unseen(dataset, str(encoder), [*chosen, "readout"]) for dataset in kept]
    kinds = [
        Kind("tuned", str(encoder), [*chosen, "readout"], ("ridge", "linear", "prior"), lambda: tuned),
        Kind("frozen", frozen.encoder, frozen.layers, ("ridge", "linear"), lambda: None),
    ]
    if typed.frozen_prior:
        space = cache(lambda: response_space([frozen.path(d) for d in base]))
        kinds.append(Kind("frozen", frozen.encoder, frozen.layers, ("prior",), space))
    cells = [Cell(d, budget, frozen) for budget in typed.budgets for d in kept]
    done = [rows_of(cell, kind) for kind in kinds for cell in cells]
    rows = [row for of_cell in done for row in of_cell]
    names = [f"{way} {kind.name}" for kind in kinds for way in kind.ways if way != "ridge"]
    for way, parts in averages(names, typed.work, typed.beside).items():
        rows += [stacked_row(cell, way, parts) for cell in cells]
    table = [summary(rows, budget) for budget in typed.budgets]
    (typed.work / "table.json").write_text(json.dumps({"rows": rows, "table": table}, indent=1))
    print(as_markdown(rows, "cross_validated_r"))
    print(as_markdown(rows, "r"))
    for line in table:
        print(line)


def session_parser(doc: str | None, budgets: list[str]) -> argparse.ArgumentParser:
    """Sessions tuned on, sessions kept back, a folder and numbers of training images."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("base", nargs="+", type=Path)
    parser.add_argument("--kept", nargs="+", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--budgets", nargs="+", default=budgets)
    return parser


def readout_space(encoder: Path) -> ResponseSpace:
    """What the readouts of a tuned encoder's subjects predict, as a prior."""
    readouts = SynBrain.from_pretrained(encoder / "readouts")
    space = response_space([p for part in readouts.subjects.values() if (p := part.as_base)])
    assert space is not None  # every subject of a tuning has readouts
    return space


Parts = list[tuple[Path, str]]  # folder of a call and name of a row in it


def averages(names: list[str], work: Path, beside: Path | None) -> dict[str, Parts]:
    """What is averaged with what, by the name of the average."""
    ways = {"linear both": ["linear frozen", "linear tuned"], "all stacked": names}
    if "prior frozen" in names:
        ways["prior both"] = ["prior frozen", "prior tuned"]
    parts: dict[str, Parts] = {way: [(work, name) for name in of] for way, of in ways.items()}
    if beside is not None:
        there = [(beside, name) for name in ("prior frozen", "prior tuned")]
        parts["prior both beside"] = there
        parts["prior tuned of both folders"] = [(work, "prior tuned"), there[1]]
        parts["prior tuned, frozen beside"] = [(work, "prior tuned"), there[0]]
        parts["prior tuned and prior both beside"] = [(work, "prior tuned"), *there]
        if "prior frozen" in names:
            parts["prior frozen of both folders"] = [(work, "prior frozen"), there[0]]
            parts["prior both of both folders"] = [*parts["prior both"], *there]
    return parts


@dataclass(frozen=True)
class Kind:
    """Layers of one encoder, and what is fitted on them."""

    name: str
    encoder: str
    layers: list[str]
    ways: tuple[str, ...]
    space: Callable[[], ResponseSpace | None]


def cpu_seconds() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_utime


def tokens_of(dataset: Dataset, encoder: str, layers: list[str]) -> Any:
    """Stored tokens, made where they are missing."""
    try:
        return open_tokens(dataset, encoder, layers)
    except SynBrainError:
        make_tokens(dataset, FeatureOptions(encoder=encoder, layers=layers, device="cpu"), show_progress=True)
        return open_tokens(dataset, encoder, layers)


def unseen(dataset: Dataset, encoder: str, layers: list[str]) -> Dataset:
    """A kept-back session without training images that the encoder was tuned on in another file."""
    tokens_of(dataset, encoder, layers)
    return open_untuned(dataset, encoder, layers)[0]


@dataclass(frozen=True)
class Frozen:
    """The network before it was tuned, its layers, and the linear paths of base sessions on them."""

    encoder: str
    layers: list[str]
    work: Path
    seed: int

    def path(self, dataset: Dataset) -> BasePath:
        """The linear path of a base session; kept on disk."""
        file = self.work / "frozen" / f"{dataset.info.name}.pickle"
        if not file.exists():
            pairs = pairs_of(dataset, tokens_of(dataset, self.encoder, self.layers), "train")
            path = fit_linear_path(pairs, LINEAR, seed=self.seed, show_progress=True).path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(pickle.dumps(BasePath(path, pairs.repeat_means().std(axis=0))))
        base: BasePath = pickle.loads(file.read_bytes())  # of this script's own making
        return base


@dataclass(frozen=True)
class Cell:
    """A kept-back session with so many training images."""

    dataset: Dataset
    budget: str
    frozen: Frozen

    def file(self, way: str, work: Path | None = None) -> Path:
        name = f"{self.dataset.info.name}-{self.budget}-{way.replace(' ', '-')}.json"
        return (work or self.frozen.work) / "rows" / name

    def pairs(self, encoder: str, layers: list[str]) -> tuple[Pairs, Pairs]:
        """The training images drawn, in the families that the frozen layers tell, and the test images."""
        train, test = split_pairs(self.dataset, tokens_of(self.dataset, encoder, layers))
        train = drawn(train, self.budget, self.frozen.seed)
        told = tokens_of(self.dataset, self.frozen.encoder, self.frozen.layers).take(train.tokens.rows)
        return replace(train, tokens=replace(train.tokens, settled=told.families)), test

    def row(
        self, way: str, predicted: NDArray[Any], test: Pairs, train: Pairs,
        out_of_fold: NDArray[Any] | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """Scores of a prediction of the test images, and of the training images where those are given."""
        measured = test.repeat_means()
        replicates = voxel_r_replicates(image_weights(test.n_images, 1000, 0), predicted, measured)
        row: dict[str, Any] = {
            "session": self.dataset.info.name, "budget": self.budget, "way": way,
            "r": voxel_r(predicted, measured).tolist(),
            "replicates": np.asarray(replicates).round(5).tolist(),
        }  # fmt: skip
        if out_of_fold is not None:
            row["cross_validated_r"] = voxel_r(out_of_fold, train.repeat_means()).tolist()
        return row


def rows_of(cell: Cell, kind: Kind) -> list[dict[str, Any]]:
    """Scores of what is fitted on layers of one kind; kept on disk."""
    ways = {way: f"{way} {kind.name}" for way in kind.ways}
    files = {way: cell.file(name) for way, name in ways.items()}
    if not all(file.exists() for file in files.values()):
        train, test = cell.pairs(kind.encoder, kind.layers)
        seed = cell.frozen.seed
        next(iter(files.values())).parent.mkdir(parents=True, exist_ok=True)
        alone: LinearFit | None = None
        for way, name in ways.items():
            started = time.process_time()
            if way == "ridge":
                row = cell.row(name, Ridge().fit(train, seed=seed).predict(test.tokens), test, train)
            else:
                alone = fit = alone or fit_linear_path(train, LINEAR, seed=seed)
                space = kind.space() if way == "prior" else None
                if space is not None:
                    fit = fit_with_prior(train, space, LINEAR, seed=seed, alone=alone)
                predicted = fit.path.predict(test.tokens)
                row = cell.row(name, predicted, test, train, fit.out_of_fold)
                kept = files[way].with_suffix(".npz")
                np.savez(kept, test=predicted, out_of_fold=fit.out_of_fold, folds=fit.folds)
            write_cell(files[way], row | {"cpu_seconds": round(time.process_time() - started, 1)})
    return [read_json(file) for file in files.values()]


def stacked_row(cell: Cell, way: str, parts: Parts) -> dict[str, Any]:
    """Linear paths, averaged by voxel as their cross-validation says."""
    fits = [np.load(cell.file(name, work).with_suffix(".npz")) for work, name in parts]
    train, test = cell.pairs(cell.frozen.encoder, cell.frozen.layers)
    predictions = [fit["out_of_fold"] for fit in fits]
    shares, average = stacked(predictions, train.repeat_means(), fits[0]["folds"], COMMON)
    predicted = sum(share * fit["test"] for share, fit in zip(shares, fits, strict=True))
    row = cell.row(way, np.asarray(predicted), test, train, average)
    names = [f"{name} ({work.name})" for work, name in parts]
    return row | {"shares": dict(zip(names, shares.mean(axis=1).round(3).tolist(), strict=True))}


def write_cell(file: Path, row: dict[str, Any]) -> None:
    file.write_text(json.dumps(row))
    unseen = row.get("cross_validated_r")  # test scores are told at the end, when nothing is left to choose
    r = "" if unseen is None else f"cross-validated {np.nanmean(unseen):.4f}, "
    print(row["session"], row["budget"], row["way"], f"{r}{row['cpu_seconds']} CPU seconds", flush=True)


def drawn(train: Pairs, budget: str, seed: int) -> Pairs:
    """``budget`` training images, drawn by seed; a smaller budget is part of a larger one."""
    if budget == "all":
        return train
    order = np.random.default_rng(seed).permutation(train.n_images)
    return train.take(np.sort(order[: int(budget)]))


def summary(rows: list[dict[str, Any]], budget: str) -> str:
    """Ways on tuned layers against those on frozen ones, paired over units and over test images."""
    of = {(row["session"], row["way"]): row for row in rows if row["budget"] == budget}
    sessions = list(dict.fromkeys(session for session, _ in of))
    ways = {way for _, way in of}
    beside = sorted((way for way in ways if "folders" in way or "beside" in way), key=len)
    lines = []
    pairs = [
        (one, two)
        for one in ("prior tuned", "prior both", "linear both", "all stacked", *beside)
        if one in ways
        for two in (*AGAINST, *beside[:1])
        if one != two
        if two in ways
    ]
    for one, two in pairs:
        differences = [np.array(of[s, one]["r"]) - np.array(of[s, two]["r"]) for s in sessions]
        units = np.concatenate(differences)
        images = np.mean(
            [np.array(of[s, one]["replicates"]) - np.array(of[s, two]["replicates"]) for s in sessions],
            axis=0,
        )
        low, high = np.quantile(images, [0.025, 0.975])
        ratio = [np.nanmean(of[s, one]["r"]) / np.nanmean(of[s, two]["r"]) for s in sessions]
        lines.append(
            f"{budget} images, {one} - {two}: {np.nanmean([np.nanmean(d) for d in differences]):+.4f} over "
            f"sessions; units: p = {ttest_1samp(units[np.isfinite(units)], 0).pvalue:.1e}; test images "
            f"(bootstrap): 95 % {low:+.4f} to {high:+.4f}; by session "
            f"{', '.join(f'{np.nanmean(d):+.3f}' for d in differences)}; ratio {min(ratio):.2f} at least"
        )
    return "\n".join(lines)


def as_markdown(rows: list[dict[str, Any]], what: str) -> str:
    """Mean over voxels of ``what``, a row for each way and a column for each session and budget."""
    rows = [row for row in rows if what in row]
    columns = list(dict.fromkeys((row["session"], row["budget"]) for row in rows))
    ways = list(dict.fromkeys(row["way"] for row in rows))
    of = {(row["session"], row["budget"], row["way"]): f"{np.nanmean(row[what]):.3f}" for row in rows}
    head = f"| {what} | " + " | ".join(f"{session}, {budget}" for session, budget in columns) + " |"
    body = [f"| {way} | " + " | ".join(of.get((*c, way), "") for c in columns) + " |" for way in ways]
    return "\n".join([head, "|" + "---|" * (len(columns) + 1), *body])


if __name__ == "__main__":
    main()
