from __future__ import annotations

import json

import pytest

from synbrain.cli import main


@pytest.fixture
def words(toy, registry, tmp_path, monkeypatch):
    monkeypatch.setattr("synbrain.data.dataset.load_dataset", lambda path: toy.dataset)
    monkeypatch.setattr("synbrain.commands.parsing.require_tokens", lambda dataset, options: None)
    monkeypatch.setattr(
        "synbrain.comparison.compare.open_untuned", lambda dataset, *given: (dataset, toy.tokens)
    )
    monkeypatch.setattr("synbrain.comparison.compare.METHODS", registry)
    return ["compare", "toy", "--seeds", "1", "--out", str(tmp_path / "out"), "--methods"]


def test_the_command_writes_table_and_picture(words, tmp_path, capsys):
    assert main([*words, "good,ridge"]) == 0
    said = capsys.readouterr()
    assert "fit/s" in said.err or "s/fit" in said.err
    assert "| good |" in said.out
    table = json.loads((tmp_path / "out/table.json").read_text())
    assert list(table["scores"]) == ["mean_map", "ridge", "good", "ceiling"]
    assert (tmp_path / "out/table.md").read_text().startswith("# Comparison on toy")
    assert (tmp_path / "out/comparison.png").read_bytes().startswith(b"\x89PNG")


def test_the_page_shows_no_curves_of_an_earlier_comparison(words, tmp_path):
    assert main([*words, "good"]) == 0
    stale = tmp_path / "out/training_curves.png"
    stale.write_bytes((tmp_path / "out/comparison.png").read_bytes())
    assert main([*words, "good", "--overwrite"]) == 0
    assert not stale.exists()
    assert "Training curves" not in (tmp_path / "out/comparison.html").read_text()


def test_a_failure_is_exit_code_1_and_a_wrong_name_2(words, fakes, tmp_path, capsys):
    fakes["poor"].raises = ValueError("broken")
    assert main([*words, "good", "poor", "--samples", "5"]) == 1
    assert "poor failed: seed 0: ValueError: broken" in capsys.readouterr().out
    assert list((tmp_path / "out").rglob("*.error.txt"))
    assert main([*words, "nobody"]) == 2
    assert "exists already" in capsys.readouterr().err  # told before anything is opened
    assert main([*words, "nobody", "--out", str(tmp_path / "other")]) == 2
    assert "nobody" in capsys.readouterr().err


def test_options_of_trainings_are_passed_on(words, tmp_path):
    assert main([*words, "good", "--vae.epochs", "2", "--mapper.round-steps", "5"]) == 0
    table = json.loads((tmp_path / "out/table.json").read_text())
    assert table["changes"] == {"vae.epochs": 2, "mapper.round_steps": 5}
