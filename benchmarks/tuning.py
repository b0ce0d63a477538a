"""Leave sessions out: is an encoder that was tuned on other sessions better than the frozen one?

    python benchmarks/tuning.py BASE... --kept KEPT... --work FOLDER [--epochs 8] [--frozen-prior]

Datasets are those of `synbrain prepare`. The encoder is tuned on BASE; images that are test images of BASE or
KEPT are left out. On each kept-back session, for each number of training images: ridge and the linear path
on frozen layers (224 pixels) and on the tuned layers, the latter also with the readouts of the tuned subjects
as its prior. `--frozen-prior` also fits the linear paths of BASE on frozen layers, as a prior on those. Paths
of both encoders are averaged voxel by voxel by their cross-validation: "linear both" is
`synbrain train --encoder A+B`, "prior both" is `synbrain adapt --also`, "all stacked" averages all four. Test
images are looked at once, at the end; the cross-validated r of the training images stands beside. What is
done in FOLDER is taken from there.
"""

from __future__ import annotations

import argparse
import json
import pickle
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
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
from synbrain.features.store import make_tokens, open_tokens
from synbrain.features.tokens import Pairs, pairs_of, split_pairs
from synbrain.linear.config import LinearPathConfig
from synbrain.linear.fit import LinearFit, fit_linear_path
from synbrain.linear.prior import BasePath, ResponseSpace, fit_with_prior, response_space
from synbrain.linear.stacking import stacked
from synbrain.metrics.intervals import image_weights, voxel_r_replicates
from synbrain.metrics.voxel import voxel_r
from synbrain.tuning.options import TuneOptions
from synbrain.tuning.tune import tune_encoder

FROZEN = "efficientnet-lite0"
LAYERS = ["block7", "block10", "block14"]
FROZEN_LAYERS = [*LAYERS, "final"]
AGAINST = ("prior frozen", "linear frozen", "ridge frozen")
LINEAR = LinearPathConfig()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("base", nargs="+", type=Path)
    parser.add_argument("--kept", nargs="+", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--budgets", nargs="+", default=["50", "200", "all"])
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--frozen-prior", action="store_true")
    parser.add_argument("--options", type=json.loads, default={}, help="further TuneOptions, as JSON")
    typed = parser.parse_args()
    base, kept = [load_dataset(p) for p in typed.base], [load_dataset(p) for p in typed.kept]
    encoder = typed.work / f"encoder-{typed.work.name}"  # its tokens lie beside those of other works
    if not (encoder / "checksums.json").exists():
        options = TuneOptions(epochs=typed.epochs, seed=typed.seed, **typed.options)
        started = cpu_seconds()
        tune_encoder(base, options, out=encoder, keep_out=kept, resume=True, show_progress=True)
        print(f"tuned in {cpu_seconds() - started:.0f} CPU seconds")
    readouts = SynBrain.from_pretrained(encoder / "readouts")
    tuned = response_space([p for part in readouts.subjects.values() if (p := part.as_base)])
    kinds = [
        Kind("tuned", str(encoder), [*LAYERS, "readout"], ("ridge", "linear", "prior"), lambda: tuned),
        Kind("frozen", FROZEN, FROZEN_LAYERS, ("ridge", "linear"), lambda: None),
    ]
    if typed.frozen_prior:
        space = cache(lambda: response_space([frozen_path(d, typed.work, typed.seed) for d in base]))
        kinds.append(Kind("frozen", FROZEN, FROZEN_LAYERS, ("prior",), space))
    cells = [(d, budget) for budget in typed.budgets for d in kept]
    done = [rows_of(d, budget, kind, typed) for kind in kinds for d, budget in cells]
    rows = [row for of_cell in done for row in of_cell]
    names = [f"{way} {kind.name}" for kind in kinds for way in kind.ways if way != "ridge"]
    averages = {"linear both": ["linear frozen", "linear tuned"], "all stacked": names}
    if typed.frozen_prior:
        averages["prior both"] = ["prior frozen", "prior tuned"]
    for way, of in averages.items():
        rows += [stacked_row(d, budget, way, of, typed) for d, budget in cells]
    table = [summary(rows, budget) for budget in typed.budgets]
    (typed.work / "table.json").write_text(json.dumps({"rows": rows, "table": table}, indent=1))
    print(as_markdown(rows, "r"))
    print(as_markdown(rows, "cross_validated_r"))
    for line in table:
        print(line)


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


def frozen_path(dataset: Dataset, work: Path, seed: int) -> BasePath:
    """The linear path of a base session on frozen layers; kept on disk."""
    file = work / "frozen" / f"{dataset.info.name}.pickle"
    if not file.exists():
        pairs = pairs_of(dataset, tokens_of(dataset, FROZEN, FROZEN_LAYERS), "train")
        path = fit_linear_path(pairs, LINEAR, seed=seed, show_progress=True).path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(pickle.dumps(BasePath(path, pairs.repeat_means().std(axis=0))))
    base: BasePath = pickle.loads(file.read_bytes())  # of this script's own making
    return base


def rows_of(dataset: Dataset, budget: str, kind: Kind, typed: Any) -> list[dict[str, Any]]:
    """Scores of what is fitted on layers of one kind to ``budget`` training images; kept on disk."""
    ways = {way: f"{way} {kind.name}" for way in kind.ways}
    files = {way: cell_file(typed.work, dataset, budget, name) for way, name in ways.items()}
    if not all(file.exists() for file in files.values()):
        train, test = split_pairs(dataset, tokens_of(dataset, kind.encoder, kind.layers))
        train = drawn(train, budget, typed.seed)
        alone: LinearFit | None = None
        for way, name in ways.items():
            started = time.process_time()
            if way == "ridge":
                row = row_of(dataset, budget, name, Ridge().fit(train, seed=typed.seed).predict(test.tokens))
            else:
                alone = fit = alone or fit_linear_path(train, LINEAR, seed=typed.seed)
                space = kind.space() if way == "prior" else None
                if space is not None:
                    fit = fit_with_prior(train, space, LINEAR, seed=typed.seed, alone=alone)
                predicted = fit.path.predict(test.tokens)
                row = row_of(dataset, budget, name, predicted, train, fit.out_of_fold)
                kept = files[way].with_suffix(".npz")
                np.savez(kept, test=predicted, out_of_fold=fit.out_of_fold, folds=fit.folds)
            write_cell(files[way], row | {"cpu_seconds": round(time.process_time() - started, 1)})
    return [json.loads(file.read_text()) for file in files.values()]


def stacked_row(dataset: Dataset, budget: str, way: str, names: list[str], typed: Any) -> dict[str, Any]:
    """Linear paths ``names``, averaged by voxel as their cross-validation says."""
    fits = [np.load(cell_file(typed.work, dataset, budget, name).with_suffix(".npz")) for name in names]
    tokens = tokens_of(dataset, FROZEN, FROZEN_LAYERS)
    train = drawn(pairs_of(dataset, tokens, "train"), budget, typed.seed)
    predictions = [fit["out_of_fold"] for fit in fits]
    shares, average = stacked(predictions, train.repeat_means(), fits[0]["folds"])
    predicted = sum(share * fit["test"] for share, fit in zip(shares, fits, strict=True))
    row = row_of(dataset, budget, way, np.asarray(predicted), train, average)
    return row | {"shares": dict(zip(names, shares.mean(axis=1).round(3).tolist(), strict=True))}


def row_of(
    dataset: Dataset, budget: str, way: str, predicted: NDArray[Any], train: Pairs | None = None,
    out_of_fold: NDArray[Any] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Scores of a prediction of the test images, and of the training images where those are given."""
    test = pairs_of(dataset, tokens_of(dataset, FROZEN, FROZEN_LAYERS), "test")
    measured = test.repeat_means()
    replicates = voxel_r_replicates(image_weights(test.n_images, 1000, 0), predicted, measured)
    row: dict[str, Any] = {
        "session": dataset.info.name, "budget": budget, "way": way,
        "r": voxel_r(predicted, measured).tolist(), "replicates": np.asarray(replicates).round(5).tolist(),
    }  # fmt: skip
    if train is not None and out_of_fold is not None:
        row["cross_validated_r"] = voxel_r(out_of_fold, train.repeat_means()).tolist()
    return row


def cell_file(work: Path, dataset: Dataset, budget: str, way: str) -> Path:
    return work / "rows" / f"{dataset.info.name}-{budget}-{way.replace(' ', '-')}.json"


def write_cell(file: Path, row: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(row))
    print(row["session"], row["budget"], row["way"], f"{np.nanmean(row['r']):.4f}", flush=True)


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
    lines = []
    pairs = [
        (one, two)
        for one in ("prior tuned", "prior both", "linear both", "all stacked")
        if one in ways
        for two in AGAINST
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
