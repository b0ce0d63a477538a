"""Decoders of an experiment on disk."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from synbrain.decoding.grid import Grid
from synbrain.errors import SynBrainError


@dataclass(frozen=True)
class Spot:
    number: int
    seed: int = 0

    @property
    def name(self) -> str:
        return f"{self.number}-{self.seed}"


@pytest.fixture
def fitted() -> list[int]:
    return []


@pytest.fixture
def grid(tmp_path: Path, fitted: list[int]) -> Grid[Spot]:
    def fit(spot: Spot) -> dict[str, int]:
        fitted.append(spot.number)
        if spot.number == 13:
            raise SynBrainError("thirteen", "count on")
        return {"squared": spot.number**2}

    return Grid(tmp_path, Spot, lambda spot: f"settings of {spot.name}", fit)


def test_what_is_finished_is_not_fitted_again(grid: Grid[Spot], fitted: list[int]) -> None:
    results, failed = grid.all([Spot(2), Spot(13), Spot(3)])
    assert results == {Spot(2): {"squared": 4}, Spot(3): {"squared": 9}}
    assert list(failed) == ["13-0"]
    assert "thirteen" in failed["13-0"]
    assert grid.all([Spot(4)])[0] == {Spot(4): {"squared": 16}}
    results, _ = grid.all([Spot(4)], earlier=True)
    assert list(results) == [Spot(4), Spot(2), Spot(3)]
    assert fitted == [2, 13, 3, 4]


def test_other_settings_and_other_versions_are_refused_before_anything_is_fitted(
    grid: Grid[Spot], fitted: list[int], tmp_path: Path
) -> None:
    grid.all([Spot(2)])
    other = Grid(tmp_path, Spot, lambda spot: "other settings", grid.fit)
    with pytest.raises(SynBrainError, match=r"2-0\.json was made with other settings: pass --overwrite"):
        other.all([Spot(1), Spot(2)])
    (tmp_path / "cells" / "old-0.json").write_text(json.dumps({"identity": "x", "squared": 1}))
    with pytest.raises(SynBrainError, match=r"old-0\.json was made by another version: pass --overwrite"):
        grid.all([Spot(1)], earlier=True)
    assert fitted == [2]


def test_a_finished_experiment_is_kept_or_forgotten(grid: Grid[Spot], tmp_path: Path) -> None:
    grid.all([Spot(2)])
    (tmp_path / "table.json").write_text("{}")
    with pytest.raises(SynBrainError, match="exists already"):
        grid.begin("table.json", overwrite=False, resume=False)
    grid.begin("table.json", overwrite=False, resume=True)
    assert grid.stored(Spot(2)) == {"squared": 4}
    grid.begin("table.json", overwrite=True, resume=False)
    assert grid.stored(Spot(2)) is None
    assert not (tmp_path / "table.json").exists()


def test_checkpoints_go_with_a_failure(grid: Grid[Spot], tmp_path: Path) -> None:
    def interrupted() -> None:
        with grid.workspace(Spot(2)) as folder:
            folder.mkdir(parents=True)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not list((tmp_path / "cells").iterdir())
