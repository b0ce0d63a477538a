from __future__ import annotations

import pytest

from synbrain.comparison.about import ComparisonAbout
from synbrain.comparison.compare import Comparison
from synbrain.comparison.table import cell, markdown
from synbrain.evaluation.scores import Score, Scores
from synbrain.figures.comparison import comparison_dots


def entry(difference: float, p_holm: float) -> dict[str, object]:
    return {
        "difference": difference,
        "interval": [difference - 1, difference + 1],
        "p": p_holm,
        "p_holm": p_holm,
    }


@pytest.fixture
def scores() -> Scores:
    rows = {
        "mean_map": {"mse": Score(3.0), "voxel_r": Score(0.0, (0.0, 0.0))},
        "ridge": {"mse": Score(2.0, (1.5, 2.5)), "voxel_r": Score(0.5, (0.4, 0.6))},
        "net": {"mse": Score(1.0), "voxel_r": Score(0.51, (0.4, 0.6)), "raw_retrieval": Score(0.2)},
        "ceiling": {"mse": Score(0.5), "voxel_r": Score(0.9), "crps": Score(None)},
    }
    differences = {
        "mean_map": {"mse": entry(1.0, 0.01), "voxel_r": entry(-0.5, 0.049)},
        "net": {"mse": entry(-1.0, 0.01), "voxel_r": entry(0.01, 0.05)},
    }
    gaussian = {"net": {"crps": entry(-0.25, 0.01)}}
    about = ComparisonAbout.model_validate({
        "dataset": "toy", "seeds": [0, 1], "skipped": {"oracle": "not simulated"}, 
        "command": "synbrain compare toy",
        "differences_from_ridge_gaussian": gaussian,
    })  # fmt: skip
    return Scores(rows, about=about, differences=differences)


@pytest.mark.parametrize(
    ("name", "metric", "text"),
    [
        ("mean_map", "mse", "**3.000** ▼"),
        ("mean_map", "voxel_r", "**0.000** ▼ [0.000, 0.000]"),
        ("ridge", "mse", "2.000 [1.500, 2.500]"),
        ("net", "mse", "**1.000** ▲"),
        ("net", "voxel_r", "0.510 [0.400, 0.600]"),
        ("net", "raw_retrieval", "0.200"),
        ("net", "crps", "-"),
        ("ceiling", "crps", "-"),
    ],
)
def test_bold_only_what_differs(scores, name, metric, text):
    assert cell(scores, name, metric) == text


def test_tables_are_rectangular_and_rows_keep_their_order(scores):
    words = markdown(Comparison(scores, {"other": "seed 0: ValueError: no"}))
    lines = [line for line in words.splitlines() if line.startswith("|")]
    mean = words.split("## Mean responses")[1].split("##")[0]
    names = [line.split("|")[1].strip() for line in mean.splitlines() if line.startswith("| ")]
    assert names == ["method", "mean_map", "ridge", "net", "ceiling"]
    for block in words.split("## ")[1:]:
        assert len({line.count("|") for line in block.splitlines() if line.startswith("|")}) <= 1
    assert len(lines) > 8
    assert "## Trials as a distribution" not in words  # no row has one of its scores
    assert "- other: seed 0: ValueError: no" in words
    assert "- oracle: not simulated" in words
    assert "synbrain compare toy" in words
    assert "2 seeds" in words
    assert "| net | **-0.2500** [-1.2500, +0.7500] | - |" in words


def test_dots_stand_at_the_values(scores):
    figure = comparison_dots(scores)
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title() for axes in shown] == ["voxel r"]
    dots = [line for line in shown[0].lines if line.get_marker() == "o"]
    assert [dot.get_xdata()[0] for dot in dots] == [0.51, 0.5, 0.0]
    assert [label.get_text() for label in shown[0].get_yticklabels()] == ["net", "ridge", "mean_map"]
