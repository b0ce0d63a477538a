"""How trials vary: repeats of one image, variance ratios, reliability curves, noise covariance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from synbrain.figures.style import COLOURS, DIVERGING, new_figure, tidy

LABEL_GAP = 0.045  # of the matrix: the height of a label


def trial_spread(
    measured: list[NDArray[Any]],
    synthetic: NDArray[Any],
    predictive: NDArray[Any],
    voxel_names: list[str],
    unit: str,
) -> Figure:
    """Measured repeats as dots on the spread of synthetic trials and of predictive draws, one panel a voxel.

    Args:
        measured: per image (n_repeats, n_shown_voxels), single trials.
        synthetic: (n_samples, n_images, n_shown_voxels), synthetic trials of the same images.
        predictive: the same for predictive draws.
        voxel_names: title of each panel.
        unit: unit of the responses.
    """
    n_shown = synthetic.shape[2]
    figure = new_figure(4.2 * n_shown, 3.2)
    panels = figure.subplots(1, n_shown, squeeze=False)[0]
    for v, axes in enumerate(panels):
        order = np.argsort(synthetic[:, :, v].mean(axis=0))
        for draws, alpha, what in (
            (predictive, 0.2, "predictive draws"),
            (synthetic, 0.35, "synthetic trials"),
        ):
            parts = axes.violinplot([draws[:, i, v] for i in order], showextrema=False, widths=0.9)
            for body in parts["bodies"]:
                body.set_facecolor(COLOURS["synbrain"])
                body.set_alpha(alpha)
            parts["bodies"][0].set_label(what)
        for place, i in enumerate(order, start=1):
            dots = measured[i][:, v]
            label = "measured repeats" if place == 1 else None
            axes.plot(np.full(len(dots), place), dots, ".", color=COLOURS["measured"], ms=5, label=label)
        axes.set_title(voxel_names[v], fontsize=10)
        axes.set_xlabel("test images, by predicted response")
        axes.set_xticks([])
        tidy(axes)
    panels[0].set_ylabel(f"response ({unit})")
    figure.legend(
        *panels[0].get_legend_handles_labels(), frameon=False, fontsize=8, ncols=3, loc="outside upper center"
    )
    return figure


def calibration(
    variance_ratio: dict[str, NDArray[Any]], nominal: NDArray[Any], covered: dict[str, NDArray[Any]]
) -> Figure:
    """Variance ratios by ROI and the reliability curve of central intervals.

    Args:
        variance_ratio: group (ROI or "all") -> per-voxel ratio, synthetic over measured.
        nominal: (n_levels,) nominal coverage of central intervals, 0 to 1.
        covered: group -> (n_levels,) fraction of measured trials inside.
    """
    figure = new_figure(9.5, 3.6)
    left, right = figure.subplots(1, 2, width_ratios=(1.6, 1))
    groups = list(variance_ratio)
    left.axhspan(0.9, 1.1, color="#e5e7eb")
    left.axhline(1.0, color=COLOURS["ceiling"], linewidth=0.8)
    left.boxplot([variance_ratio[g] for g in groups], showfliers=False, widths=0.6)
    left.set_xticks(range(1, len(groups) + 1), [g.split("/")[-1] for g in groups], rotation=45, ha="right")
    left.set_ylabel("trial variance, synthetic / measured")
    for group, values in covered.items():
        main = group == groups[0]
        colour = COLOURS["synbrain"] if main else "#d1d5db"
        right.plot(nominal, values, color=colour, linewidth=2 if main else 0.8, zorder=3 if main else 2)
    right.plot([0, 1], [0, 1], color=COLOURS["ceiling"], linewidth=0.8)
    right.set_xlabel("nominal coverage of the central interval")
    right.set_ylabel("measured trials inside")
    right.set_title(f"{groups[0]} (bold) and each ROI" if len(groups) > 1 else groups[0], fontsize=10)
    tidy(left)
    tidy(right)
    return figure


def noise_covariance(measured: NDArray[Any], synthetic: NDArray[Any], rois: Sequence[str] = ()) -> Figure:
    """Noise correlation matrices, measured beside synthetic, and their entries against each other.

    Args:
        measured, synthetic: (n, n) noise correlations of the same voxels in the same order.
        rois: (n,) ROI of each voxel, neighbours together; empty names are not written.
    """
    figure = new_figure(10.5, 3.5)
    panels = figure.subplots(1, 3)
    off = ~np.eye(len(measured), dtype=bool)
    limit = float(np.quantile(np.abs(measured[off]), 0.99)) or 1.0
    for axes, matrix, title in zip(panels, (measured, synthetic), ("measured", "synthetic"), strict=False):
        image = axes.imshow(np.where(off, matrix, 0), cmap=DIVERGING, vmin=-limit, vmax=limit)
        axes.set_title(f"noise correlations, {title}", fontsize=10)
        places = _label_places(rois)
        labels = [name.split("/")[-1] for name in places]
        axes.set_xticks(list(places.values()), labels, rotation=90, fontsize=7)
        axes.set_yticks(list(places.values()), labels, fontsize=7)
    figure.colorbar(image, ax=panels[1], fraction=0.046)
    upper = np.triu_indices(len(measured), 1)
    panels[2].plot(measured[upper], synthetic[upper], ".", ms=1.5, color=COLOURS["synbrain"], alpha=0.4)
    panels[2].plot([-limit, limit], [-limit, limit], color=COLOURS["ceiling"], linewidth=0.8)
    r = np.corrcoef(measured[upper], synthetic[upper])[0, 1]
    panels[2].set_title(f"entries, r = {r:.2f}", fontsize=10)
    panels[2].set_xlabel("measured")
    panels[2].set_ylabel("synthetic")
    tidy(panels[2])
    return figure


def _label_places(rois: Sequence[str]) -> dict[str, float]:
    """Middle of each ROI's rows; the smaller of two whose labels would lie on each other goes without."""
    named = np.array(rois)
    rows = {name: np.flatnonzero(named == name) for name in dict.fromkeys(rois) if name}
    places: dict[str, float] = {}
    for name in sorted(rows, key=lambda name: -len(rows[name])):
        middle = float(rows[name].mean())
        if all(abs(middle - other) > LABEL_GAP * len(named) for other in places.values()):
            places[name] = middle
    return places
