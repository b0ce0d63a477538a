"""Leave sessions out: is an encoder that was tuned on other sessions better than the frozen one?

    python benchmarks/tuning.py BASE... --kept KEPT... --work FOLDER [--epochs 8] [--frozen-prior]

Datasets are those of `synbrain prepare`. The encoder is tuned on BASE; images that are test images of BASE or
KEPT are left out. On each kept-back session, for each number of training images: ridge and the linear path
on frozen layers (224 pixels), the linear path on the tuned layers, and that with the readouts of the tuned
subjects as its prior. `--frozen-prior` also fits the linear paths of BASE on frozen layers, as a prior. Test
images are looked at once, at the end. Whatever is done already in FOLDER is taken from there.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import ttest_1samp

from synbrain import SynBrain
from synbrain.baselines.ridge import Ridge
from synbrain.data.dataset import Dataset, load_dataset
from synbrain.errors import SynBrainError
from synbrain.features.options import FeatureOptions
from synbrain.features.store import make_tokens, open_tokens
from synbrain.features.tokens import Pairs, pairs_of, split_pairs
from synbrain.linear.config import LinearPathConfig
from synbrain.linear.fit import fit_linear_path
from synbrain.linear.prior import BasePath, ResponseSpace, fit_with_prior, response_space
from synbrain.metrics.intervals import image_weights, voxel_r_replicates
from synbrain.metrics.voxel import voxel_r
from synbrain.tuning.options import TuneOptions
from synbrain.tuning.tune import tune_encoder

FROZEN = "efficientnet-lite0"
LAYERS = ["block7", "block10", "block14"]
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
    encoder = typed.work / "encoder"
    if not (encoder / "checksums.json").exists():
        options = TuneOptions(epochs=typed.epochs, seed=typed.seed, **typed.options)
        started = cpu_seconds()
        tune_encoder(base, options, out=encoder, keep_out=kept, resume=True, show_progress=True)
        print(f"tuned in {cpu_seconds() - started:.0f} CPU seconds")
    readouts = SynBrain.from_pretrained(encoder / "readouts")
    spaces = {"tuned": response_space([p for s in readouts.subjects.values() if (p := s.as_base)])}
    if typed.frozen_prior:
        spaces["frozen"] = response_space([frozen_path(d, typed.seed) for d in base])
    rows = [
        row for d in kept for budget in typed.budgets for row in rows_of(d, encoder, budget, spaces, typed)
    ]
    table = [summary(rows, budget) for budget in typed.budgets]
    (typed.work / "table.json").write_text(json.dumps({"rows": rows, "table": table}, indent=1))
    print(as_markdown(rows))
    for line in table:
        print(line)


def cpu_seconds() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_utime


def tokens_of(dataset: Dataset, encoder: str, layers: list[str]) -> Any:
    """Stored tokens, made where they are missing."""
    try:
        return open_tokens(dataset, encoder, layers)
    except SynBrainError:
        make_tokens(dataset, FeatureOptions(encoder=encoder, layers=layers, device="cpu"), show_progress=True)
        return open_tokens(dataset, encoder, layers)


def frozen_path(dataset: Dataset, seed: int) -> BasePath:
    """The linear path of a base session on frozen layers."""
    pairs = pairs_of(dataset, tokens_of(dataset, FROZEN, [*LAYERS, "final"]), "train")
    path = fit_linear_path(pairs, LINEAR, seed=seed, show_progress=True).path
    return BasePath(path, pairs.repeat_means().std(axis=0))


def rows_of(
    dataset: Dataset, encoder: Path, budget: str, spaces: dict[str, ResponseSpace | None], typed: Any
) -> list[dict[str, Any]]:
    """Scores of every way to fit this session with ``budget`` training images; kept on disk."""
    file = typed.work / "rows" / f"{dataset.info.name}-{budget}.json"
    if file.exists():
        return json.loads(file.read_text())
    rows = []
    for kind, name, layers in (
        ("frozen", FROZEN, [*LAYERS, "final"]), ("tuned", str(encoder), [*LAYERS, "readout"])
    ):  # fmt: skip
        train, test = split_pairs(dataset, tokens_of(dataset, name, layers))
        train = drawn(train, budget, typed.seed)
        space, seed = spaces.get(kind), typed.seed
        ways: dict[str, Callable[[Pairs], Any]] = {
            "ridge": lambda pairs, seed=seed: Ridge().fit(pairs, seed=seed)
        }
        alone = fit_linear_path(train, LINEAR, seed=seed)
        ways["linear"] = lambda pairs, alone=alone: alone.path
        if space is not None:
            ways["prior"] = lambda pairs, space=space, alone=alone, seed=seed: (
                fit_with_prior(pairs, space, LINEAR, seed=seed, alone=alone).path
            )
        measured = test.repeat_means()
        weights = image_weights(test.n_images, 1000, seed)
        for way, fit in ways.items():
            started = time.process_time()
            predicted = fit(train).predict(test.tokens)
            replicates = voxel_r_replicates(weights, predicted, measured)
            rows.append({
                "session": dataset.info.name, "budget": budget, "way": f"{way} {kind}",
                "n_images": train.n_images, "r": voxel_r(predicted, measured).tolist(),
                "replicates": np.asarray(replicates).round(5).tolist(),
                "cpu_seconds": round(time.process_time() - started, 1),
            })  # fmt: skip
            print(
                rows[-1]["session"], budget, rows[-1]["way"], f"{np.nanmean(rows[-1]['r']):.4f}", flush=True
            )
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(rows))
    return rows


def drawn(train: Pairs, budget: str, seed: int) -> Pairs:
    """``budget`` training images, drawn by seed; a smaller budget is part of a larger one."""
    if budget == "all":
        return train
    order = np.random.default_rng(seed).permutation(train.n_images)
    return train.take(np.sort(order[: int(budget)]))


def summary(rows: list[dict[str, Any]], budget: str) -> str:
    """The best tuned way against the best frozen way, paired over units and over test images."""
    of = {(row["session"], row["way"]): row for row in rows if row["budget"] == budget}
    sessions = list(dict.fromkeys(session for session, _ in of))
    ways = {way for _, way in of}
    one = "prior tuned"
    lines = []
    for two in ("prior frozen", "linear frozen", "ridge frozen"):
        if two not in ways:
            continue
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


def as_markdown(rows: list[dict[str, Any]]) -> str:
    """voxel_r, a row for each way and a column for each session and budget."""
    columns = list(dict.fromkeys((row["session"], row["budget"]) for row in rows))
    ways = list(dict.fromkeys(row["way"] for row in rows))
    of = {(row["session"], row["budget"], row["way"]): f"{np.nanmean(row['r']):.3f}" for row in rows}
    head = "| | " + " | ".join(f"{session}, {budget}" for session, budget in columns) + " |"
    body = [f"| {way} | " + " | ".join(of.get((*c, way), "") for c in columns) + " |" for way in ways]
    return "\n".join([head, "|" + "---|" * (len(columns) + 1), *body])


if __name__ == "__main__":
    main()
