"""Signatures to options: positional words, lists, flags, nested configs, files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict

from synbrain.cli import main
from synbrain.commands.parsing import run_function


class Stage(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    lr: float = 1e-4
    widths: tuple[int, ...] = (1, 2)


DEFAULT = Stage()


def command(
    datasets: list[Path],
    *,
    out: Path,
    vae: Stage = DEFAULT,
    rois: list[str] = [],
    dry_run: bool = False,
) -> dict[str, Any]:
    """Do it.

    Args:
        datasets: folders.
        out: where to.
    """
    return {"datasets": datasets, "out": out, "vae": vae, "rois": rois, "dry_run": dry_run}


def run(words: str) -> dict[str, Any]:
    result: dict[str, Any] = run_function(command, "do", words.split())
    return result


def test_positional_list_flag_and_nested_option() -> None:
    got = run("A B --out R --vae.lr 0.5 --dry-run --rois V1 V2")
    assert got["datasets"] == [Path("A"), Path("B")]
    assert got["out"] == Path("R")
    assert got["vae"] == Stage(lr=0.5)
    assert got["rois"] == ["V1", "V2"]
    assert got["dry_run"] is True


def test_config_file_gives_values_and_options_win(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("vae:\n  lr: 0.25\n  widths: [3]\n")
    got = run(f"A --out R --config {tmp_path / 'c.yaml'} --vae.lr 0.75")
    assert got["vae"] == Stage(lr=0.75, widths=(3,))
    assert got["dry_run"] is False


def test_config_key_with_a_typo_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "c.yaml").write_text("vae:\n  lrr: 0.25\n")
    with pytest.raises(SystemExit) as stopped:
        run(f"A --out R --config {tmp_path / 'c.yaml'}")
    assert stopped.value.code == 2
    assert "lrr" in capsys.readouterr().err


def test_missing_output_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        run("A")
    assert stopped.value.code == 2
    assert "out" in capsys.readouterr().err


def test_help_writes_options_with_dashes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["evaluate", "--help"])
    told = capsys.readouterr().out
    assert "--n-way" in told
    assert "--n_way" not in told
