from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from synbrain.errors import SynBrainError
from synbrain.evaluation.about import About
from synbrain.evaluation.ceiling_row import ceiling_row
from synbrain.evaluation.differences import differences
from synbrain.evaluation.row import Row
from synbrain.evaluation.score_model import score_arrays
from synbrain.evaluation.scores import Scores
from synbrain.evaluation.table import cells, explanations, header, markdown, terminal


@pytest.fixture
def scores(brain) -> Scores:
    m = brain.measured()
    rows = {
        "synbrain": score_arrays(brain.truth, brain.draw, m),
        "ridge": score_arrays(brain.truth + 0.5 * m.repeat_means[::-1], None, m),
        "ceiling": ceiling_row(m),
    }
    rows["synbrain"].values["r2"] = float("nan")
    about = About(n_test_images=m.test.n_images, n_test_trials=m.test.n_trials, target="trial")
    return Scores.of_rows(rows, about, differences(rows))


def test_json_holds_what_it_should_and_never_nan(scores: Scores, tmp_path: Path) -> None:
    path = tmp_path / "scores.json"
    scores.save(path)
    said = json.loads(path.read_text(), parse_constant=lambda word: pytest.fail(f"{word} in JSON"))
    assert said["n_test_images"] == 40
    assert said["target"] == "trial"
    assert said["targets"]["voxel_r"] == "repeat_mean"
    assert set(said["scores"]) == {"synbrain", "ridge", "ceiling"}
    expected = {
        "mse",
        "pearson",
        "cosine",
        "voxel_r",
        "voxel_r_trial",
        "voxel_r_fraction",
        "crps",
        "energy_score",
    }
    expected |= {"variance_ratio", "coverage_90", "coverage_50", "response_retrieval"}
    assert expected <= set(said["scores"]["synbrain"])
    assert said["scores"]["synbrain"]["r2"] is None
    low, high = said["intervals"]["synbrain"]["voxel_r"]
    assert low < said["scores"]["synbrain"]["voxel_r"] < high
    assert said["rois"]["synbrain"]["toy/one"]["n_voxels"] == 8
    with pytest.raises(SynBrainError, match="overwrite"):
        scores.save(path)
    scores.save(path, overwrite=True)


def test_scores_come_back_from_json(scores: Scores, tmp_path: Path) -> None:
    scores.save(tmp_path / "scores.json")
    assert Scores.load(tmp_path / "scores.json") == scores
    (tmp_path / "other.json").write_text("[1]")
    with pytest.raises(SynBrainError, match="no scores"):
        Scores.load(tmp_path / "other.json")


def test_every_score_says_its_target_and_ceiling(scores: Scores) -> None:
    score = scores["synbrain"]["voxel_r"]
    assert score.target == "repeat_mean"
    assert score.ceiling == scores.value("ceiling", "voxel_r")
    assert scores.value("ridge", "crps") is None


def test_differences_are_paired(brain) -> None:
    m = brain.measured()
    rng = np.random.default_rng(0)
    noisy = brain.truth + rng.normal(0, 1.5, brain.truth.shape).astype(np.float32)
    rows = {
        "ridge": score_arrays(noisy, None, m),
        "same": score_arrays(noisy, None, m),
        "better": score_arrays(brain.truth, None, m),
    }
    found = differences(rows)
    assert found["same"]["voxel_r"] == {"difference": 0, "interval": [0, 0], "p": 1, "p_holm": 1}
    better = found["better"]["voxel_r"]
    low, high = better["interval"]
    assert 0 < low < better["difference"] < high
    assert better["p"] < better["p_holm"] == pytest.approx(2 * better["p"])  # Holm over two rows
    own = rows["better"].interval("voxel_r")
    assert high - low < own[1] - own[0] + 0.2
    assert differences({"better": rows["better"]}) == {}


def test_a_table_counts_what_the_dataset_has() -> None:
    about = About(dataset="left", n_voxels=20, voxels_are="vertices", unit="z")
    assert "20 vertices, unit z" in header(Scores({}, {}, about, {}))
    older = About(dataset="left", n_voxels=20, unit="z")
    assert "20 voxels, unit z" in header(Scores({}, {}, older, {}))


def test_tables_name_every_column_and_what_is_missing(scores: Scores) -> None:
    head, body = cells(scores)
    assert head[0] == "row"
    assert [row[0] for row in body] == ["synbrain", "ridge", "ceiling"]
    assert len({len(row) for row in body} | {len(head)}) == 1
    text = markdown(scores)
    assert text.count("\n|") == len(body) + 2
    assert f"{scores.value('synbrain', 'voxel_r'):.3f}" in text
    assert f"ceiling of the repeat mean {scores.value('ceiling', 'voxel_r'):.3f}" in text
    printed = terminal(scores, width=60)
    assert all(word in printed for word in head)
    table = printed.split("\n\nvoxel r:")[0].splitlines()[2:]
    assert max(map(len, table)) <= 60
    row = Row({"voxel_r": 0.1, "crps": None}, notes={"crps": "one response"})
    left_out = Scores.of_rows({"a": row}, About())
    assert "left out: one response" in explanations(left_out)
    assert "CRPS" not in cells(left_out)[0]


def test_scores_become_a_table_of_pandas(scores: Scores) -> None:
    table = scores.to_dataframe().set_index(["row", "metric"])
    mine = scores["synbrain"]["voxel_r"]
    line = table.loc[("synbrain", "voxel_r")]
    assert (line["value"], line["ceiling"]) == (mine.value, mine.ceiling)
    assert (line["low"], line["high"]) == mine.interval
    assert line["difference"] == scores.differences["synbrain"]["voxel_r"]["difference"]
    assert np.isnan(table.loc[("synbrain", "r2"), "value"])
    assert list(scores.to_dataframe(rois=True)) == ["row", "roi", "metric", "value"]
    assert f"voxel r of synbrain: {mine.value:.3f} [" in repr(scores)
