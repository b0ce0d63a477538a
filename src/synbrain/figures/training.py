"""Training curves of the MLP systems, which show or refute that one of them is unstable."""

from __future__ import annotations

import math

from matplotlib.figure import Figure

from synbrain.figures.style import new_figure, tidy

Curves = dict[str, list[dict[str, float]]]
PANELS = [  # network, figure, title
    ("autoencoder", "train", "autoencoder: training loss"),
    ("autoencoder", "mse", "held out: squared error, z"),
    ("autoencoder", "soft_clip", "held out: SoftCLIP"),
    ("autoencoder", "images_ranked_for_responses", "held out: retrieval of images"),
    ("autoencoder", "responses_ranked_for_images", "held out: retrieval of responses"),
    ("second", "validation", "mapper or prior: held-out loss"),
]
PALETTE = ["#2563eb", "#c2410c", "#15803d", "#7c3aed"]
STYLES = ["-", (0, (4, 2)), (0, (1, 1.5)), (0, (6, 1, 1, 1))]


def autoencoder_curves(curves: dict[str, dict[str, Curves]]) -> Figure:
    """One panel a figure of training, one line a seed, one colour a method; a dot at the epoch kept.

    Methods whose curves are the same (MindSimulator and ``mlp_ae`` share their autoencoder) share a colour.

    Args:
        curves: method -> seed -> {"autoencoder", "second"} -> one dict of figures per epoch; see
            :func:`synbrain.comparison.results.stored_curves`.
    """
    figure = new_figure(10.5, 5.6)
    panels = figure.subplots(2, 3).ravel()
    for axes, (network, key, title) in zip(panels, PANELS, strict=True):
        drawn: list[tuple[list[str], dict[str, Curves]]] = []
        for method, seeds in curves.items():
            same = next((n for n, other in drawn if _equal(other, seeds, network)), None)
            if same is None:
                drawn.append(([method], seeds))
            else:
                same.append(method)
        for names, seeds in drawn:
            number = list(curves).index(names[0])
            colour, style = PALETTE[number % len(PALETTE)], STYLES[number % len(STYLES)]
            for place, epochs in enumerate(seed[network] for seed in seeds.values()):
                values = [epoch.get(key, math.nan) for epoch in epochs]
                label = ", ".join(names) if place == 0 else None
                axes.plot(range(1, len(values) + 1), values, color=colour, ls=style, lw=1.1, label=label)
                kept = min(range(len(epochs)), key=lambda k: epochs[k]["validation"], default=None)
                if kept is not None:
                    axes.plot(kept + 1, values[kept], "o", color=colour, markersize=4)
        axes.set_title(title, fontsize=9)
        axes.set_xlabel("epoch", fontsize=8)
        axes.tick_params(labelsize=8)
        axes.legend(frameon=False, fontsize=7)
        tidy(axes)
    return figure


def _equal(one: dict[str, Curves], other: dict[str, Curves], network: str) -> bool:
    return {seed: c[network] for seed, c in one.items()} == {seed: c[network] for seed, c in other.items()}
