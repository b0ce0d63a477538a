"""Scores that a run keeps: those of another measurement are told, or kept."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from synbrain.files import read_json, write_json
from synbrain.model.folder import demo_dataset, refresh_card


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return Path(shutil.copytree(demo_dataset().with_name("run"), tmp_path / "run"))


CHANGES = [{"seed": 5}, {"n_samples": 200}, {"dataset": "other"}, {"scores": {"synbrain": {"mse": 1.0}}}]


@pytest.mark.parametrize("change", CHANGES)
def test_scores_of_another_measurement_are_not_lost(run: Path, change: dict[str, Any]) -> None:
    kept = read_json(run / "scores.json")
    other = kept | change
    told = refresh_card(run, other, replace=False)
    assert "keeps the scores of 60 test images of nsd-subj01 with 20 trials an image, seed 0, rows s" in told
    assert "`synbrain evaluate` replaces them" in told
    assert read_json(run / "scores.json") == kept
    told = refresh_card(run, other)
    assert "before: the scores of 60 test images of nsd-subj01" in told
    assert read_json(run / "scores.json") == other


def test_the_same_measurement_and_a_first_one_are_written(run: Path) -> None:
    again = read_json(run / "scores.json") | {"run_digest": "0123"}  # which earlier versions did not write
    again["scores"]["synbrain"]["mse"] = 0.25
    told = refresh_card(run, again, replace=False)
    assert told.startswith("scores and card ->")
    assert "before" not in told
    assert read_json(run / "scores.json") == again
    assert "60 test images of nsd-subj01, 20 trials an image, seed 0" in (run / "README.md").read_text()
    stale = again | {"run_digest": "4567", "seed": 5}  # of a run that stood here before
    write_json(run / "scores.json", stale)
    assert refresh_card(run, again, replace=False).startswith("scores and card ->")
    assert read_json(run / "scores.json") == again
    for nothing in ("[]", "{", "{}"):
        (run / "scores.json").write_text(nothing)
        assert "before" not in refresh_card(run, again, replace=False)
        assert read_json(run / "scores.json") == again
