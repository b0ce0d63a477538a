"""``synbrain report``: one page, and nothing is fitted twice for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from synbrain.baselines.ridge import Ridge
from synbrain.cli import main
from synbrain.errors import SynBrainError
from synbrain.evaluation.scores import Scores


def test_ridge_is_fitted_once_for_table_and_pictures(
    run: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit, fits = Ridge.fit, []

    def counted(self: Ridge, *given: Any, **options: Any) -> Ridge:
        fits.append(self)
        return fit(self, *given, **options)

    monkeypatch.setattr(Ridge, "fit", counted)
    out = tmp_path / "page"
    assert main(["report", str(run), str(dataset), "--out", str(out), "--samples", "3"]) == 0
    assert len(fits) == 1
    assert "ridge" in (out / "report.html").read_text()
    assert (out / "figures/accuracy.png").exists()


def test_an_interrupted_report_goes_on(
    run: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*given: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "page"
    command = ["report", str(run), str(dataset), "--out", str(out), "--samples", "3"]
    with monkeypatch.context() as patch:
        patch.setattr("synbrain.viewer.report.write_report", stopped)
        assert main(command) != 0
    assert (out / "scores.json").exists()
    assert not (out / "report.html").exists()
    assert main(command) == 0
    assert sorted(path.name for path in out.iterdir()) == ["figures", "report.html", "scores.json"]
    assert main(command) == 2  # finished now
    (out / "report.html").unlink()
    assert main(command) == 2  # scores that are not of an interrupted report stay


def test_scores_are_seen_where_they_cannot_be_written(
    run: Path,
    dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def full(*given: Any, **options: Any) -> None:
        raise SynBrainError("the disk is full", "free some space")

    monkeypatch.setattr(Scores, "save", full)
    assert main(["report", str(run), str(dataset), "--out", str(tmp_path / "page"), "--samples", "3"]) == 2
    printed = capsys.readouterr()
    assert "synbrain" in printed.out
    assert "voxel r" in printed.out
    assert "the disk is full" in printed.err
