"""The picture of docs/research/tuning.md: every session left out, and the gain by sessions tuned on.

    python benchmarks/tuning_figure.py WORK... [--law WORK_3 WORK] --out FIGURE.png

WORK: folders of ``tuning.py`` with ``--frozen-prior`` that left out different sessions. ``--law``: folders
that left out the same sessions, with encoders tuned on more and more of the others; without it there is no
panel of them.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from synbrain.figures.style import COLOURS, new_figure, save_png, tidy
from synbrain.files import read_json
from tuning_law import Call

BUDGETS = {"50": "50 images", "200": "200 images", "all": "all images"}
WAYS = {  # row of tuning.py -> label, colour, marker
    "ridge frozen": ("ridge, frozen encoder", COLOURS["ridge"], "s"),
    "prior frozen": ("linear prior, frozen encoder", COLOURS["mean_map"], "o"),
    "prior both": ("linear prior, both encoders", COLOURS["synbrain"], "o"),
}
Rows = dict[tuple[str, str, str], dict[str, Any]]  # (session, budget, way) -> row


def rows_of(folders: list[Path]) -> Rows:
    """Rows of all folders; a session that is in two of them is an error."""
    found: Rows = {}
    for folder in folders:
        for row in read_json(folder / "table.json")["rows"]:
            key = row["session"], row["budget"], row["way"]
            assert key not in found, f"{key} is in two folders"
            found[key] = row
    return found


def show_sessions(axes: Any, rows: Rows, budget: str) -> None:
    """A column for each session, by animal and then by what the frozen prior reaches with all images."""
    names = {session for session, _, _ in rows}
    height = {name: np.mean(rows[name, "all", "prior frozen"]["r"]) for name in names}
    order = sorted(names, key=lambda name: (not name.startswith("v4_19"), height[name]))
    for x, name in enumerate(order):
        reached = [float(np.mean(rows[name, budget, way]["r"])) for way in WAYS]
        axes.plot([x, x], [min(reached), max(reached)], color="0.85", linewidth=3, zorder=1)
        for y, (label, colour, marker) in zip(reached, WAYS.values(), strict=True):
            axes.plot(
                x, y, marker, color=colour, markersize=5, zorder=2, linestyle="", label=None if x else label
            )
    axes.set_xticks(range(len(order)), [name.removeprefix("v4_") for name in order], rotation=90, fontsize=7)
    axes.axvline(
        sum(name.startswith("v4_19") for name in order) - 0.5, color="0.7", linewidth=0.8, linestyle=":"
    )
    axes.set_title(BUDGETS[budget], fontsize=9)
    tidy(axes)


def show_law(axes: Any, calls: list[Call]) -> None:
    """Gain over the frozen prior, mean of the sessions left out, 95 % over test images."""
    for place, budget in enumerate(BUDGETS):
        for call in calls:
            gains = call.resampled(budget, "prior both") - call.resampled(budget, "prior frozen")
            x, first = call.sessions * 1.04 ** (place - 1), call is calls[0]
            axes.plot([x, x], np.percentile(gains, [2.5, 97.5]), color=f"C{place}", linewidth=1)
            label = BUDGETS[budget] if first else None
            axes.plot(x, call.gain(budget), "o", color=f"C{place}", markersize=5, label=label)
    axes.set_xscale("log")
    axes.set_xticks([call.sessions for call in calls], [str(call.sessions) for call in calls])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set_xlabel("sessions tuned on")
    axes.set_title("both encoders over the frozen one", fontsize=9)
    axes.legend(fontsize=7, frameon=False, loc="lower right")
    tidy(axes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("work", nargs="+", type=Path)
    parser.add_argument("--law", nargs="+", default=[], type=Path, metavar="WORK")
    parser.add_argument("--out", type=Path, required=True)
    typed = parser.parse_args()
    widths = [1.0, 1.0, 0.8] if typed.law else [1.0, 1.0]
    figure = new_figure(10.5 if typed.law else 8.2, 3.6)
    few, every, *law = figure.subplots(1, len(widths), width_ratios=widths)
    rows = rows_of(typed.work)
    every.sharey(few)
    show_sessions(few, rows, "50")
    show_sessions(every, rows, "all")
    few.set_ylabel("voxel r on test images")
    every.legend(fontsize=7, frameon=False, loc="lower right")
    for axes in law:
        show_law(axes, [Call.of(work) for work in typed.law])
    save_png(figure, typed.out, dpi=130)


if __name__ == "__main__":
    main()
