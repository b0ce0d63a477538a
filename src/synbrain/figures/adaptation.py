"""The adaptation curve as a picture."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from synbrain.figures.style import COLOURS, new_figure, tidy

SHOWN = {"adapted": COLOURS["synbrain"], "scratch": COLOURS["oracle"], "ridge": COLOURS["ridge"]}
LEVELS = {"full": ("all data, from scratch", "--"), "base": ("base as it is", ":")}


def curve_figure(curve: dict[str, Any]) -> Figure:
    """voxel_r against distinct training images, with intervals over draws (over test images where one).

    The axis follows the means: of a few draws, intervals may be wider than all correlations there are.

    Args:
        curve: what :func:`synbrain.comparison.adaptation_curve.adaptation_curve` gives.
    """
    figure = new_figure(5.5, 3.8)
    axes = figure.subplots()
    points = curve["curve"]
    images = [point["n_images"] for point in points]
    for name, colour in SHOWN.items():
        values = [point[name] for point in points]
        intervals = [p["intervals"][name]["draws"] or p["intervals"][name]["images"] for p in points]
        axes.plot(images, values, "o-", color=colour, label=name, markersize=4)
        for x, interval in zip(images, intervals, strict=True):
            if interval is not None:
                axes.plot([x, x], interval, color=colour, linewidth=1.2, alpha=0.6)
    for name, (label, style) in LEVELS.items():
        value = points[0][name] if points else None
        if value is not None:
            axes.axhline(value, color=COLOURS["measured"], linestyle=style, linewidth=0.9, label=label)
    axes.axhline(0, color=COLOURS["mean_map"], linewidth=0.9, label="mean map")
    means = [0.0, *(point[name] for point in points for name in (*SHOWN, *LEVELS) if point[name] is not None)]
    margin = max(max(means) - min(means), 0.05)
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, min(means) - margin), min(high, max(means) + margin))
    axes.set_xscale("log")
    axes.set_xticks(images, [str(n) for n in images])
    axes.minorticks_off()
    axes.set_xlabel("distinct training images of the new subject")
    axes.set_ylabel("voxel r on test images")
    axes.set_title(f"{curve['dataset']}, base: {', '.join(curve['base_subjects'])}", fontsize=9)
    axes.legend(fontsize=8, frameon=False)
    tidy(axes)
    return figure
