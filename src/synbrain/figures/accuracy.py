"""Voxel-wise accuracy beside the noise ceiling, and score bars by ROI."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from synbrain.figures.style import COLOURS, new_figure, tidy

DECADE = 10  # losses that fall by less are read more easily on a linear axis


def accuracy_against_ceiling(
    voxel_r: dict[str, NDArray[Any]], ceiling: NDArray[Any], unit_name: str = "voxel"
) -> Figure:
    """Scatter of each voxel's accuracy against its noise ceiling, one panel a model.

    Args:
        voxel_r: model name -> (n_voxels,), Pearson across test images.
        ceiling: (n_voxels,), correlation ceiling of the repeat mean; NaN where unknown.
        unit_name: "voxel", or "unit" for recordings without positions.
    """
    figure = new_figure(3.6 * len(voxel_r), 3.7)
    panels = figure.subplots(1, len(voxel_r), squeeze=False, sharex=True, sharey=True)[0]
    for axes, (name, values) in zip(panels, voxel_r.items(), strict=True):
        known = np.isfinite(ceiling) & np.isfinite(values)
        size = 4 if known.sum() > 300 else 14
        colour = COLOURS.get(name, "#7c3aed")
        axes.scatter(ceiling[known], values[known], s=size, color=colour, alpha=0.5, linewidths=0)
        axes.plot([0, 1], [0, 1], color=COLOURS["ceiling"], linewidth=0.8)
        axes.axhline(0, color="#9ca3af", linewidth=0.6)
        mean = float(values[known].mean()) if known.any() else float("nan")
        axes.set_title(f"{name}: mean {mean:.3f}", fontsize=10)
        axes.set_xlabel("noise ceiling (r)")
        tidy(axes)
    panels[0].set_ylabel(f"accuracy (r across images, per {unit_name})")
    return figure


def accuracy_by_roi(by_roi: dict[str, dict[str, float]], ceiling: dict[str, float] | None = None) -> Figure:
    """Grouped bars: ROI on the x axis, one bar a model, and a line at the noise ceiling.

    Args:
        by_roi: ROI -> model name -> mean score over the ROI's voxels.
        ceiling: ROI -> mean noise ceiling over its voxels, where it is known.
    """
    rois = list(by_roi)
    names = list(dict.fromkeys(name for values in by_roi.values() for name in values))
    figure = new_figure(max(5.0, 0.55 * len(rois) + 2), 3.4)
    axes = figure.subplots()
    width = 0.8 / max(len(names), 1)
    for k, name in enumerate(names):
        heights = [by_roi[roi].get(name, np.nan) for roi in rois]
        places = np.arange(len(rois)) + (k - (len(names) - 1) / 2) * width
        axes.bar(places, heights, width, label=name, color=COLOURS.get(name, "#7c3aed"))
    if ceiling:
        marks = np.array([ceiling.get(roi, np.nan) for roi in rois])
        centres = np.arange(len(rois))
        axes.hlines(
            marks, centres - 0.45, centres + 0.45, color=COLOURS["ceiling"], lw=1.5, label="noise ceiling"
        )
    axes.set_xticks(np.arange(len(rois)), [roi.split("/")[-1] for roi in rois], rotation=45, ha="right")
    axes.set_ylabel("mean voxel r")
    axes.legend(  # above the bars, which may be as high as the axes
        frameon=False, fontsize=8, ncols=len(names) + 1, loc="lower right", bbox_to_anchor=(1, 1)
    )
    tidy(axes)
    return figure


def training_curves(curves: dict[str, dict[str, NDArray[Any]]]) -> Figure:
    """Loss against step, one panel a stage.

    Args:
        curves: stage -> curve name -> (n_points, 2), columns step and value.
    """
    figure = new_figure(4.0 * max(len(curves), 1), 3.2)
    panels = figure.subplots(1, max(len(curves), 1), squeeze=False)[0]
    for axes, (stage, lines) in zip(panels, curves.items(), strict=False):
        for name, points in lines.items():
            axes.plot(points[:, 0], points[:, 1], label=name, linewidth=1.2)
        values = np.concatenate([points[:, 1] for points in lines.values()])
        if values.min() > 0 and values.max() > DECADE * values.min():
            axes.set_yscale("log")
        axes.set_title(stage, fontsize=10)
        axes.set_xlabel("step")
        axes.legend(frameon=False, fontsize=8)
        tidy(axes)
    panels[0].set_ylabel("loss")
    return figure
