"""Decoders of an experiment on disk."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from synbrain.decoding.experiments.grid import Grid
from synbrain.decoding.train import training_folder
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
    with pytest.raises(
        SynBrainError, match=r"2-0\.json was made with other settings or data: pass --overwrite"
    ):
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


@pytest.fixture
def at_work(tmp_path: Path) -> Iterator[Path]:
    """Another process makes this folder."""
    out = tmp_path / "out"
    holding = (
        "import sys, pathlib, synbrain.files as f\nwith f.alone(pathlib.Path(sys.argv[1])): print(); input()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", holding, str(out)], text=True, **pipes) as other:
        assert other.stdout is not None
        other.stdout.readline()
        yield out
        other.communicate("\n")


def test_two_processes_do_not_share_the_checkpoints_of_a_decoder(
    at_work: Path, grid: Grid[Spot], fitted: list[int]
) -> None:
    with pytest.raises(SynBrainError, match="another process is making"), training_folder(at_work, "", False):
        pytest.fail("both would train in one folder")
    with pytest.raises(SynBrainError, match="another process is making"):
        replace(grid, folder=at_work).all([Spot(2)])
    assert fitted == []


def test_checkpoints_stay_where_a_training_ends_early(tmp_path: Path) -> None:
    folder = tmp_path / ".decoder.training"

    def stopped(overwrite: bool, begun: bool) -> None:
        with training_folder(tmp_path / "decoder", "these", overwrite) as made:
            assert made == folder
            assert (folder / "mindeye2").exists() == begun
            (folder / "mindeye2").mkdir(exist_ok=True)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped(overwrite=False, begun=False)
    for overwrite in (False, True):  # the same settings: it goes on
        with pytest.raises(KeyboardInterrupt):
            stopped(overwrite, begun=True)
    with training_folder(tmp_path / "decoder", "others", True) as anew:
        assert not (anew / "mindeye2").exists()
    assert not folder.exists()


def test_a_training_that_fails_before_its_first_checkpoint_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(SynBrainError), training_folder(tmp_path / "decoder", "these", False):
        raise SynBrainError("no", "none")
    assert not list(tmp_path.glob(".*.training"))
