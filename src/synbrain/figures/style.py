"""How all pictures look: sizes, colours, saving; figures are objects, no global pyplot state."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from synbrain.files import atomic_path

COLOURS = {
    "synbrain": "#c2410c",
    "measured": "#1f2937",
    "ridge": "#2563eb",
    "mean_map": "#9ca3af",
    "ceiling": "#111827",
    "oracle": "#15803d",
}
DIVERGING, SEQUENTIAL = "RdBu_r", "viridis"


def new_figure(width: float, height: float) -> Figure:
    """A figure of ``width`` x ``height`` inches with its own Agg canvas."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def tidy(axes: Any) -> None:
    """Drop the upper and right frame lines."""
    axes.spines["top"].set_visible(False)
    axes.spines["right"].set_visible(False)


def save_png(figure: Figure, path: Path, dpi: int = 110) -> None:
    """Write ``figure`` as PNG, whole or not at all."""
    with atomic_path(path) as partial:
        figure.savefig(partial, format="png", dpi=dpi)
