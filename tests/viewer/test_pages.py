"""Pages of comparisons and of consistency: on the report's parts, readable on a phone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from synbrain.analysis.consistency_report import Consistency
from synbrain.comparison.about import ComparisonAbout
from synbrain.comparison.compare import Comparison
from synbrain.evaluation.scores import Score, Scores
from synbrain.viewer.comparison_page import sentences, write_comparison_page
from synbrain.viewer.consistency_page import write_consistency_page
from synbrain.viewer.sections import Cell, Section, Table, write_sections

METRICS = ("voxel_r", "voxel_r_fraction", "r2", "skill", "response_retrieval", "rdm_r")
METHODS = ("synbrain", "mean_map", "ridge", "ridge_gaussian", "mindsimulator_mean_of_5", "ceiling")


def difference_of(difference: float, p: float) -> dict[str, Any]:
    return {"difference": difference, "interval": [difference - 0.1, difference + 0.1], "p": p, "p_holm": p}


def comparison() -> Comparison:
    rows = {
        name: {metric: Score(0.1 * place, (0.1 * place - 0.05, 0.1 * place + 0.05)) for metric in METRICS}
        for place, name in enumerate(reversed(METHODS))
    }
    rows = {name: rows[name] for name in METHODS}
    differences = {
        "synbrain": {"voxel_r": difference_of(0.1, 0.01)},
        "mean_map": {"voxel_r": difference_of(-0.2, 0.01)},
    }
    about = ComparisonAbout.model_validate({
        "dataset": "toy <&>", "seeds": [0, 1], "command": "synbrain compare toy", "encoder": "pixels",
        "differences_from_ridge_gaussian": {"synbrain": {"crps": difference_of(-0.2, 0.01)}},
        "methods": {"synbrain": "ours"}, "skipped": {"oracle": "not simulated"},
    })  # fmt: skip
    return Comparison(Scores(rows, about=about, differences=differences), {"other": "seed 0: ValueError"})


def consistency(n_others: int = 6) -> Consistency:
    columns = ["adapted vs measured", *(f"adapted vs nsd-subj{i:02}" for i in range(n_others))]
    columns.append("adapted vs measured, shuffled (absolute r)")
    profiles: dict[str, dict[str, float | None]] = {
        roi: dict.fromkeys(columns, 0.5) for roi in ("V1", "VWFA", "OFA")
    }
    profiles["V1"]["adapted vs nsd-subj00"] = None
    trials: dict[str, dict[str, float | None]] = {
        roi: {"measured": 0.2, "synthetic": 0.3} for roi in ("V1", "VWFA")
    }
    return Consistency(
        "s", "d", [], n_test_images=9, n_test_trials=27, n_samples=3,
        profiles=profiles, selectivity={}, trials=trials,
    )  # fmt: skip


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    out = tmp_path_factory.mktemp("pages")
    for name in ("comparison.png", "training_curves.png", "consistency.png"):
        Image.fromarray(np.zeros((90, 1400, 3), dtype=np.uint8)).save(out / name)
    written = (write_comparison_page(out, comparison()), write_consistency_page(out, consistency()))
    return {page.stem: page for page in written}


def test_a_comparison_says_first_what_was_found(pages: dict[str, Path]) -> None:
    text = pages["comparison"].read_text()
    body = text.partition("<main>")[2]
    order = ["What was found", "synbrain is best with 0.500", "Mean responses", "ridge with Gaussian"]
    order += ["Training curves", "Methods", "Failed", "Left out", "Provenance"]
    places = [body.index(words) for words in order]
    assert places == sorted(places)
    assert "Clearly better than ridge (p &lt; 0.05, paired over images): 1 method; clearly worse: 1." in body
    assert "**" not in body
    assert "0.500 ▲<small>[0.450, 0.550]</small>" in body
    assert '<td class="ours">-0.2000' in body
    assert "toy &lt;&amp;&gt;" in text
    assert "://" not in text
    assert body.count("data:image/png;base64,") == 2
    assert sentences(Scores({"ridge": {}}), "ridge") == []


def test_consistency_has_every_number(pages: dict[str, Path]) -> None:
    body = pages["consistency"].read_text().partition("<main>")[2]
    assert body.count("0.500") == 3 * 8 - 1 + 8 + 8  # cells without the missing one, means, and the sentence
    assert "Category selectivity" not in body
    assert "9 test images, 27 test trials" in body


@pytest.mark.parametrize("name", ["comparison", "consistency"])
def test_pages_fit_a_phone_light_and_dark(
    watch: Callable[..., Any], pages: dict[str, Path], name: str
) -> None:
    for width, scheme in ((1280, "dark"), (390, "light")):
        shown = watch(pages[name].as_uri(), width=width, scheme=scheme, ready=False)
        assert shown.page.evaluate("document.documentElement.scrollWidth") <= width
        tables = shown.page.locator(".wide > table")
        assert tables.count() >= 2
        for place in range(tables.count()):
            wider = tables.nth(place).evaluate(
                "t => t.parentElement.scrollWidth - t.parentElement.clientWidth"
            )
            assert wider <= 0, (width, place)
        back = shown.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (int(back.split("(")[1].split(",")[0]) < 60) == (scheme == "dark")
        assert shown.errors == []
        assert shown.outside == []


def test_text_is_escaped(tmp_path: Path) -> None:
    table = Table(["row", "r"], [("a<b", [Cell("<i>", "<u>")])])
    section = Section("<h>", ["words & more"], table=table, items=[("k<", "v<")], folded=True)
    text = write_sections(tmp_path / "page.html", "<t>", "<l>", [section]).read_text()
    for raw in ("<i>", "<u>", "a<b", "<h>", "<t>", "<l>", "k<", "v<"):
        assert raw not in text.partition("<body")[2].replace("<title>", "")
