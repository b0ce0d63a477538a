"""The tables of docs/research/tuning.md: every session left out, from several calls of `tuning.py`.

    python benchmarks/tuning_table.py WORK... [--before WORK...]

WORK: folders of ``tuning.py`` with ``--frozen-prior`` that left out different sessions. ``--before``: folders
that left out the same ones with other encoders; what "prior both" gains over theirs is printed too.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import ttest_1samp

from tuning_figure import BUDGETS, Rows, rows_of

WAYS = ("ridge", "linear", "prior")
PAIRS = [
    ("prior both", "prior frozen"),
    ("prior tuned", "prior frozen"),
    ("prior both", "ridge frozen"),
]


def reached(rows: Rows, sessions: list[str], budget: str, way: str) -> NDArray[np.float64]:
    """(n_sessions,) voxel_r on test images."""
    return np.array([np.nanmean(rows[session, budget, way]["r"]) for session in sessions])


def resampled(rows: Rows, sessions: list[str], budget: str, way: str) -> NDArray[np.float64]:
    """(n_resamples,) the same for resampled test images, mean over sessions."""
    return np.asarray(np.mean([rows[session, budget, way]["replicates"] for session in sessions], axis=0))


def of_budget(rows: Rows, sessions: list[str], budget: str) -> str:
    """A row for each way, a column for each session and their mean."""
    names = [session.removeprefix("v4_") for session in sessions]
    head = f"| {BUDGETS[budget]} | " + " | ".join(names) + " | mean |"
    ways = [f"{way} {kind}" for kind in ("frozen", "tuned") for way in WAYS] + ["prior both"]
    lines = [head, "|" + "---|" * (len(names) + 2)]
    for way in ways:
        values = reached(rows, sessions, budget, way)
        cells = " | ".join(f"{value:.3f}".lstrip("0") for value in [*values, values.mean()])
        lines.append(f"| {way} | {cells} |")
    return "\n".join(lines)


def difference(one: tuple[Rows, str], two: tuple[Rows, str], sessions: list[str], budget: str) -> str:
    """Of two ways: mean over sessions, interval over test images, lowest and highest session, t test."""
    (rows, way), (others, other) = one, two
    each = reached(rows, sessions, budget, way) - reached(others, sessions, budget, other)
    spread = resampled(rows, sessions, budget, way) - resampled(others, sessions, budget, other)
    low, high = np.quantile(spread, [0.025, 0.975])
    p = ttest_1samp(each, 0).pvalue
    return (
        f"{each.mean():+.3f} [{low:+.3f}, {high:+.3f}]; {each.min():+.3f} to {each.max():+.3f}; p = {p:.0e}"
    )


def of_pairs(rows: Rows, sessions: list[str], before: Rows) -> str:
    """Differences: mean over sessions with its interval over test images, lowest and highest session."""
    lines = ["| mean over sessions | " + " | ".join(BUDGETS.values()) + " |", "|---|---|---|---|"]
    for one, two in PAIRS:
        cells = [difference((rows, one), (rows, two), sessions, budget) for budget in BUDGETS]
        lines.append(f"| {one} - {two} | " + " | ".join(cells) + " |")
    if before:
        way = "prior both"
        cells = [difference((rows, way), (before, way), sessions, budget) for budget in BUDGETS]
        lines.append(f"| {way} - {way} before | " + " | ".join(cells) + " |")
    cells = []
    for budget in BUDGETS:
        ridge = reached(rows, sessions, budget, "ridge frozen")
        ratio = reached(rows, sessions, budget, "prior both") / ridge
        cells.append(f"{ratio.mean():.2f} ({ratio.min():.2f} to {ratio.max():.2f})")
    lines.append("| prior both over ridge frozen, ratio | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("work", nargs="+", type=Path)
    parser.add_argument("--before", nargs="+", type=Path, default=[])
    typed = parser.parse_args()
    rows = rows_of(typed.work)
    sessions = list(dict.fromkeys(session for session, _, _ in rows))
    for budget in BUDGETS:
        print(of_budget(rows, sessions, budget), end="\n\n")
    print(of_pairs(rows, sessions, rows_of(typed.before)))
    for animal in ("v4_19", "v4_2"):
        some = [session for session in sessions if session.startswith(animal)]
        gains = [
            reached(rows, some, budget, "prior both") - reached(rows, some, budget, "prior frozen")
            for budget in BUDGETS
        ]
        print(animal, len(some), "sessions:", *(f"{gain.mean():+.3f}" for gain in gains))


if __name__ == "__main__":
    main()
