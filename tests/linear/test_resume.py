"""An interrupted fit goes on where it was: the same fit, and what was finished is not done again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fixtures.small_path import CONFIG, made
from synbrain.linear import candidates, fit, voxels
from synbrain.linear.fit import LinearFit, fit_linear_path
from synbrain.linear.meter import Meter


class InterruptedFitError(Exception):
    """As by a killed process."""


def broken_after(calls: int, function: Any) -> Any:
    """``function``, which is interrupted before call number ``calls``."""
    count = 0

    def call(*given: Any, **named: Any) -> Any:
        nonlocal count
        count += 1
        if count > calls:
            raise InterruptedFitError
        return function(*given, **named)

    return call


def same(a: LinearFit, b: LinearFit) -> bool:
    equal = np.array_equal(a.out_of_fold, b.out_of_fold) and np.array_equal(a.path.mixing, b.path.mixing)
    return equal and all(np.array_equal(p, b.path.projections[k]) for k, p in a.path.projections.items())


@pytest.mark.parametrize(
    ("module", "name", "calls"),
    [
        (candidates, "window_kernels", 1),
        (fit, "choose", 0),
        (voxels, "_predict", 3),
        (fit, "fold_patterns", 0),
        (fit, "fit_duals", 0),
    ],
)
def test_a_fit_goes_on_from_every_pass(
    module: Any, name: str, calls: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs, _ = made()
    whole = fit_linear_path(pairs, CONFIG, seed=3)
    monkeypatch.setattr(voxels, "KEEP_SECONDS", 0.0)
    with monkeypatch.context() as patch:
        patch.setattr(module, name, broken_after(calls, getattr(module, name)))
        with pytest.raises(InterruptedFitError):
            fit_linear_path(pairs, CONFIG, seed=3, folder=tmp_path / "passes")
    resumed = fit_linear_path(pairs, CONFIG, seed=3, folder=tmp_path / "passes")
    assert same(resumed, whole)
    assert resumed.gflop == pytest.approx(whole.gflop, rel=0.2), "what was done before is counted"


def test_finished_passes_are_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs, _ = made()
    first = fit_linear_path(pairs, CONFIG, seed=3, folder=tmp_path)
    for module, name in ((candidates, "window_kernels"), (fit, "choose"), (voxels, "_predict")):
        monkeypatch.setattr(module, name, broken_after(0, None))
    assert same(fit_linear_path(pairs, CONFIG, seed=3, folder=tmp_path), first)


def test_another_fit_begins_anew(tmp_path: Path) -> None:
    pairs, _ = made()
    fit_linear_path(pairs, CONFIG, seed=3, folder=tmp_path)
    other = CONFIG.model_copy(update={"temper": 0.1})
    again = fit_linear_path(pairs, other, seed=3, folder=tmp_path)
    assert same(again, fit_linear_path(pairs, other, seed=3))


@pytest.mark.parametrize("expected", [2.0, 50.0])
def test_the_bar_ends_at_all_that_was_done(expected: float, capsys: pytest.CaptureFixture[str]) -> None:
    """Whether more or less was done than was foretold."""
    meter = Meter(expected, show=True)
    for _ in range(10):
        meter.add(1e9)
    meter.close()
    last = capsys.readouterr().err.splitlines()[-1]
    assert "100%" in last
    assert "10/10" in last
