"""Consistency of synthetic brains: one panel each for profiles, selectivity and trial patterns."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from synbrain.analysis.consistency_report import Consistency
from synbrain.figures.style import new_figure, tidy

PALETTE = ("#c2410c", "#15803d", "#2563eb", "#7c3aed", "#0891b2", "#a16207")
SHUFFLED = ("#9ca3af", "#d1d5db")  # controls
CHARACTERS = 90  # of tick labels that fit side by side


def consistency_figure(report: Consistency) -> Figure:
    """Grouped bars of profiles by ROI, selectivity by category and trial patterns by ROI."""
    selectivity: dict[str, dict[str, Any]] = {}
    for comparison, row in report.selectivity.items():
        for category, value in row.items():
            selectivity.setdefault(category, {})[comparison] = value
    panels = [
        ("ROI profiles over test images", report.profiles),
        ("category selectivity", selectivity),
        ("patterns over trials of one image", report.trials),
    ]
    shown = [(title, table) for title, table in panels if table]
    figure = new_figure(9, 2.7 * len(shown))
    for axes, (title, table) in zip(
        figure.subplots(len(shown), 1, squeeze=False).ravel(), shown, strict=True
    ):
        names = list(dict.fromkeys(name for row in table.values() for name in row))
        width = 0.8 / max(len(names), 1)
        colours = _colours(names)
        for i, name in enumerate(names):
            values = [row.get(name) for row in table.values()]
            places = [place + (i - (len(names) - 1) / 2) * width for place in range(len(values))]
            kept = [(x, v) for x, v in zip(places, values, strict=True) if v is not None]
            axes.bar([x for x, _ in kept], [v for _, v in kept], width, label=name, color=colours[name])
        axes.axhline(0, color="black", linewidth=0.6)
        crowded = len(table) * (max(map(len, table)) + 1) > CHARACTERS
        axes.set_xticks(
            range(len(table)),
            list(table),
            fontsize=8,
            rotation=45 if crowded else 0,
            ha="right" if crowded else "center",
        )
        axes.set_ylabel("Pearson r", fontsize=8)
        axes.set_title(title, fontsize=9)
        axes.legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
        tidy(axes)
    return figure


def _colours(names: list[str]) -> dict[str, str]:
    """Greys for the shuffled controls, the palette in order for the others."""
    controls = [name for name in names if "shuffled" in name]
    others = [name for name in names if name not in controls]
    return {name: PALETTE[i % len(PALETTE)] for i, name in enumerate(others)} | {
        name: SHUFFLED[i % len(SHUFFLED)] for i, name in enumerate(controls)
    }
