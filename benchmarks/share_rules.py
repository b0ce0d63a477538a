"""Augmentation curves under each rule that chooses the share of synthetic trials, pooled by budget.

    python benchmarks/share_rules.py CURVE...

Reads finished curves with the arm ``calibrated``; nothing is trained. One row a budget and rule: how many of
the decoders took synthetic trials, the mean difference of test scores from the decoders without, its 95 %
interval over test images (a recording's draws and seeds are averaged first), the worst decoder's, and the sd
of one decoder's difference in two-way over test images.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np

from synbrain.arrays import Float64
from synbrain.decoding.experiments.arms import Cell
from synbrain.decoding.experiments.curve import METRICS, choose_shares
from synbrain.decoding.options import CurveOptions
from synbrain.files import read_json
from synbrain.metrics.intervals import bootstrap_mean

RULES = {"better mean": {"rule": "mean"}, "one standard error": {"rule": "one_se"}, "always": {}}
Differences = dict[str, Float64]  # metric -> (n_test_images,)


def differences(curve: Path, rule: str) -> list[tuple[bool, Differences]]:
    """Of each synthetic amount and seed: whether trials were taken, and test scores minus those without."""
    files = [read_json(path) for path in sorted((curve / "cells").glob("*.json"))]
    results = {Cell(**file["place"]): file for file in files}
    shares = sorted({cell.weight for cell in results if cell.arm == "calibrated"})
    if rule != "always":
        shares = [0.0, *shares]
    chosen = choose_shares(results, CurveOptions.model_validate({"weights": shares} | RULES[rule]))
    found = []
    for cell, result in chosen.items():
        if cell.arm == "calibrated":
            plain = chosen[Cell("none", 0, cell.seed)]["each"]
            apart = {m: np.subtract(result["each"][m], plain[m]) for m in METRICS}
            found.append((result["weight"] > 0, apart))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("curves", type=Path, nargs="+")
    args = parser.parse_args()
    groups: dict[str, dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for curve in args.curves:
        about = read_json(curve / "curve.json")["about"]
        groups[about["budget"]][about["dataset"]].append(curve)
    print(
        "| budget | rule | taken | "
        + " | ".join(METRICS)
        + " | worst two-way | its sd |\n"
        + "|---" * 8
        + "|"
    )
    for budget in sorted(groups, key=lambda text: (len(text), text)):
        for rule in RULES:
            by_dataset = {name: [entry for c in curves for entry in differences(c, rule)]
                          for name, curves in groups[budget].items()}  # fmt: skip
            every = [entry for entries in by_dataset.values() for entry in entries]
            cells = []
            for metric in METRICS:
                pooled = [np.mean([d[metric] for _, d in entries], axis=0) for entries in by_dataset.values()]
                values = np.concatenate(pooled)
                low, high = bootstrap_mean(values)
                cells.append(f"{values.mean():+.3f} [{low:+.3f}, {high:+.3f}]")
            worst = min(float(d["two_way"].mean()) for _, d in every)
            sd = np.mean([d["two_way"].std(ddof=1) for _, d in every])
            taken = f"{sum(took for took, _ in every)} of {len(every)}"
            print(f"| {budget} | {rule} | {taken} | " + " | ".join(cells) + f" | {worst:+.3f} | {sd:.3f} |")


if __name__ == "__main__":
    main()
