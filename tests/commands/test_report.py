"""``synbrain report``: one page, and nothing is fitted twice for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from synbrain.baselines.ridge import Ridge
from synbrain.cli import main


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
