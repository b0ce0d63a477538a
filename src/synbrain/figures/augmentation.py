"""The augmentation curve, and what a synthetic hour is worth, as pictures."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from synbrain.figures.style import new_figure, tidy

ARMS = {
    "calibrated": ("tab:blue", "-"), "expected": ("tab:orange", "-"), "isotropic": ("tab:purple", "-"),
    "ridge_gaussian": ("tab:green", "-"), "real": ("black", "-"), "repeated": ("grey", "--"),
}  # fmt: skip
TITLES = {
    "images_ranked": "images ranked, top 1",
    "brains_ranked": "brains ranked, top 1",
    "two_way": "two-way",
}


def augmentation_figure(curve: dict[str, Any]) -> Figure:
    """Scores against added hours, one panel a metric; the dotted line is the decoder without.

    Args:
        curve: what :func:`synbrain.decoding.experiments.curve.augmentation_curve` gives.
    """
    figure = new_figure(10.5, 3.4)
    without = next((p for p in curve["points"] if p["arm"] == "none"), None)
    for axes, (metric, title) in zip(figure.subplots(1, 3), TITLES.items(), strict=True):
        for arm, (colour, style) in ARMS.items():
            points = sorted((p for p in curve["points"] if p["arm"] == arm), key=lambda p: p["hours"])
            if not points:
                continue
            hours = [p["hours"] for p in points]
            axes.plot(
                hours, [p[metric] for p in points], style, color=colour, marker="o", markersize=3, label=arm
            )
            for p in points:
                if without is not None and f"{metric}_gain_interval" in p:
                    low, high = (without[metric] + end for end in p[f"{metric}_gain_interval"])
                    axes.plot([p["hours"]] * 2, [low, high], color=colour, linewidth=0.8, alpha=0.5)
        if without is not None:
            axes.axhline(without[metric], color="black", linestyle=":", linewidth=0.9)
        axes.set_xscale("log", base=2)
        shown = sorted({p["hours"] for p in curve["points"] if p["hours"]})
        axes.set_xticks(shown, [f"{h:g}" for h in shown])
        axes.set_xlabel("added hours")
        axes.set_title(title, fontsize=9)
        tidy(axes)
    if axes.get_legend_handles_labels()[0]:  # none where nothing was added
        axes.legend(fontsize=7, frameon=False)
    return figure


def worth_figure(curve: dict[str, Any]) -> Figure | None:
    """Further real hours with the same score, against synthetic hours; None where no real hours were added.

    Bars are 95 % intervals over test images. A triangle lies beyond the last real hour that was measured.

    Args:
        curve: what :func:`synbrain.decoding.experiments.curve.augmentation_curve` gives.
    """
    last = max((p["hours"] for p in curve["points"] if p["arm"] == "real"), default=None)
    if last is None or not any(curve["worth"].values()):
        return None
    figure = new_figure(4.6, 3.4)
    axes = figure.subplots()
    for place, (metric, title) in enumerate(TITLES.items()):
        colour, worth = f"C{place}", curve["worth"][metric]
        # side by side, so that bars of one amount do not lie on each other
        hours = [float(h) * 2 ** (0.12 * (place - 1)) for h in worth]
        read = [last if w["hours"] is None else w["hours"] for w in worth.values()]
        axes.plot(hours, read, color=colour, linewidth=1, label=title)
        for x, y, w in zip(hours, read, worth.values(), strict=True):
            low, high = (last if end is None else end for end in w["interval"])
            axes.plot([x, x], [low, high], color=colour, linewidth=0.8, alpha=0.5)
            axes.plot([x], [y], color=colour, marker="o" if w["hours"] is not None else "^", markersize=4)
    shown = sorted({float(h) for worth in curve["worth"].values() for h in worth})
    axes.axhline(last, color="black", linestyle=":", linewidth=0.9)
    axes.set_xscale("log", base=2)
    axes.set_xticks(shown, [f"{h:g}" for h in shown])
    axes.set_xlabel("synthetic hours added")
    axes.set_ylabel("real hours with the same gain")
    axes.legend(fontsize=7, frameon=False)
    tidy(axes)
    return figure
