"""Two augmentation curves of the same seeds and test images: scores of the second minus those of the first.

    python benchmarks/curves_apart.py CURVE CURVE

One row an arm and amount that both have: the mean over seeds and its 95 % interval over test images. Shares
of synthetic trials are those that either curve chose; nothing is trained. The last line is the mean of both
directions of retrieval over all rows.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from synbrain.decoding.experiments.arms import Cell
from synbrain.decoding.experiments.curve import METRICS, choose_shares
from synbrain.decoding.experiments.grid import Result
from synbrain.decoding.options import CurveOptions
from synbrain.files import read_json
from synbrain.metrics.intervals import bootstrap_mean


def chosen(curve: Path) -> dict[Cell, Result]:
    """The decoders of a curve, by the better mean on validation images among the shares that it tried."""
    files = [read_json(path) for path in sorted((curve / "cells").glob("*.json"))]
    results = {Cell(**file["place"]): file for file in files}
    shares = sorted({0.0, *(cell.weight for cell in results)})
    return choose_shares(results, CurveOptions.model_validate({"weights": shares, "rule": "mean"}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("curves", type=Path, nargs=2)
    first, second = (chosen(curve) for curve in parser.parse_args().curves)
    cells = [cell for cell in first if cell in second]
    print(f"| arm | hours | seeds | {' | '.join(METRICS)} |")
    for arm, hours in dict.fromkeys((cell.arm, cell.hours) for cell in cells):
        of = [cell for cell in cells if (cell.arm, cell.hours) == (arm, hours)]
        row = []
        for metric in METRICS:
            apart = np.mean([np.subtract(second[c]["each"][metric], first[c]["each"][metric]) for c in of], 0)
            low, high = bootstrap_mean(apart)
            row.append(f"{apart.mean():+.4f} [{low:+.4f}, {high:+.4f}]")
        print(f"| {arm} | {hours:g} | {len(of)} | {' | '.join(row)} |")
    retrieval = [np.subtract(second[c]["each"][m], first[c]["each"][m]) for c in cells for m in METRICS[:2]]
    low, high = bootstrap_mean(np.mean(retrieval, axis=0))
    print(f"retrieval in all: {np.mean(retrieval):+.4f} [{low:+.4f}, {high:+.4f}]")


if __name__ == "__main__":
    main()
