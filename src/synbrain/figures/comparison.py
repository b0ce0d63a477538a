"""Scores of many methods beside each other: dots with intervals, one panel a metric."""

from __future__ import annotations

from matplotlib.figure import Figure

from synbrain.evaluation.scores import Scores
from synbrain.figures.style import COLOURS, new_figure, tidy

# metric -> (title, value that is right where that is neither the largest nor the smallest)
PANELS: dict[str, tuple[str, float | None]] = {
    "voxel_r": ("voxel r", None),
    "skill": ("skill", None),
    "response_retrieval": ("response retrieval", None),
    "pearson": ("Pearson within a trial\n(published protocol)", None),
    "crps": ("CRPS (smaller is better)", None),
    "energy_score": ("energy score (smaller is better)", None),
    "variance_ratio": ("variance ratio", 1.0),
    "coverage_90": ("coverage of 90 % intervals", 0.9),
}
OTHER = "#7c3aed"


def comparison_dots(scores: Scores) -> Figure:
    """One dot a method and metric with its 95 % interval; lines at ridge and at the ceiling.

    Args:
        scores: of a comparison; metrics that no row has are left out.
    """
    names = [name for name in scores.rows if name != "ceiling"][::-1]
    shown = {m: v for m, v in PANELS.items() if any(scores.value(name, m) is not None for name in names)}
    n_columns = min(4, max(len(shown), 1))
    n_lines = -(-max(len(shown), 1) // n_columns)
    figure = new_figure(1.6 + 2.7 * n_columns, n_lines * (1.1 + 0.23 * len(names)))
    panels = figure.subplots(n_lines, n_columns, squeeze=False, sharey=True).ravel()
    for axes in panels[len(shown) :]:
        axes.set_visible(False)
    for axes, (metric, (title, right)) in zip(panels, shown.items(), strict=False):
        if "ridge" in scores.rows and (base := scores.value("ridge", metric)) is not None:
            axes.axvline(base, color=COLOURS["ridge"], linewidth=0.7, alpha=0.5)
        top = right
        if top is None and "ceiling" in scores.rows:
            top = scores.value("ceiling", metric)
        if top is not None:
            axes.axvline(top, color=COLOURS["ceiling"], linewidth=0.9, linestyle="--")
        for place, name in enumerate(names):
            score = scores.rows[name].get(metric)
            if score is None or score.value is None:
                continue
            colour = COLOURS.get(name, OTHER)
            if score.interval is not None:
                axes.plot(score.interval, (place, place), color=colour, linewidth=1.4, alpha=0.6)
            axes.plot(score.value, place, "o", color=colour, markersize=4.5)
        axes.set_yticks(range(len(names)), names, fontsize=8)
        axes.set_ylim(-0.6, len(names) - 0.4)
        axes.set_title(title, fontsize=9)
        axes.tick_params(axis="x", labelsize=8)
        axes.grid(axis="y", color="#f3f4f6")
        tidy(axes)
    return figure
