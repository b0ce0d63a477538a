"""Outputs that stand there, and names of no known format, are told before torch is imported."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from synbrain.commands.outputs import require_outputs
from synbrain.commands.registry import COMMANDS
from synbrain.commands.signatures import signature_of
from synbrain.commands.telling import decoders_compared
from synbrain.errors import SynBrainError
from synbrain.model.folder import demo_dataset

RUN, DATA = demo_dataset().with_name("run"), demo_dataset()
# command -> words before the output; TAKEN is a folder that holds what every command would write there
WORDS = {
    "demo": ["--out", "TAKEN"],
    "simulate": ["TAKEN"],
    "prepare table": [DATA, "TAKEN"],
    "prepare nsd": [DATA, "TAKEN", "--subject", "1"],
    "prepare bids": [DATA, "TAKEN", "--subject", "1", "--images", DATA],
    "check": [DATA, "--out", "TAKEN/taken.json"],
    "tune-encoder": [DATA, "--out", "TAKEN"],
    "train": [DATA, "--out", "TAKEN"],
    "adapt": [RUN, DATA, "--out", "TAKEN"],
    "adaptation-curve": [RUN, DATA, "--out", "TAKEN"],
    "calibrate": [RUN, DATA, "--out", "TAKEN"],
    "import-reference": ["--vae", "a", "--mapper", "b", "--out", "TAKEN"],
    "import-mindeye2": ["a", "--out", "TAKEN"],
    "predict": [RUN, DATA / "images", "--out", "TAKEN/taken.npy"],
    "synthesize": [RUN, DATA / "images", "--out", "TAKEN/taken.npy"],
    "decoder train": [DATA, "--out", "TAKEN"],
    "decoder adapt": ["d", DATA, "--out", "TAKEN"],
    "decoder reconstruct": ["d", DATA, "--out", "TAKEN"],
    "decoder evaluate": ["d", DATA, "--out", "TAKEN/taken.json"],
    "decoder compare": ["d", DATA, "--run", RUN, "--known-data", DATA, "--out", "TAKEN"],
    "augment": [RUN, DATA, "--hours", "1", "--out", "TAKEN"],
    "augmentation-curve": [RUN, DATA, "--out", "TAKEN"],
    "evaluate": [RUN, DATA, "--out", "TAKEN/taken.json"],
    "report": [RUN, DATA, "--out", "TAKEN"],
    "compare": [DATA, "--out", "TAKEN"],
    "consistency": [RUN, DATA, "--out", "TAKEN"],
    "view": ["demo", "--export", "TAKEN/taken.html"],
}
SCRIPT = """
import json, sys
from synbrain.cli import main
told = {}
for words in json.load(sys.stdin):
    code = main(words)
    told[" ".join(words)] = [code, sorted({"torch", "accelerate", "nibabel", "pandas"} & set(sys.modules))]
print(json.dumps(told))
"""


@pytest.fixture
def taken(tmp_path: Path) -> Path:
    folder = tmp_path / "taken"
    folder.mkdir()
    for name in ("taken.json", "taken.npy", "taken.html", "report.html", "table.json", "curve.json"):
        (folder / name).write_text("{}")
    return folder


def words_of(name: str, taken: Path) -> list[str]:
    return [*name.split(), *(str(word).replace("TAKEN", str(taken)) for word in WORDS[name])]


def test_every_command_that_writes_is_tried() -> None:
    writes = {
        name
        for name, command in COMMANDS.items()
        if "overwrite" in (parameters := signature_of(command.home, command.hidden)[0].parameters)
        and {"out", "export"} & set(parameters)
    }
    assert writes == set(WORDS)


def test_a_taken_output_is_told_before_anything_is_imported(taken: Path) -> None:
    asked = [words_of(name, taken) for name in WORDS]
    asked += [
        ["predict", str(RUN), str(DATA / "images"), "--out", str(taken / "new.foo")],
        ["synthesize", str(RUN), str(DATA / "images"), "--out", str(taken / "new.npy"), "--format", "csv"],
        ["view", "demo", "--export", str(taken / "new.txt")],
    ]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], input=json.dumps(asked), capture_output=True, text=True, check=True
    )
    told = json.loads(done.stdout)
    # pandas comes with the options of some commands, never torch
    assert {words: code for words, (code, _) in told.items() if code != 2} == {}
    assert [words for words, (_, heavy) in told.items() if {"torch", "accelerate"} & set(heavy)] == []
    lines = done.stderr.splitlines()
    assert len(lines) == len(asked)
    assert sum("exists already: pass --overwrite" in line for line in lines) == len(WORDS)
    assert "no format that is known" in lines[-3]
    assert "contradicts the name" in lines[-2]
    assert "no name of a page" in lines[-1]


def test_what_may_go_on_or_be_replaced_is_left_to_the_command(taken: Path, tmp_path: Path) -> None:
    for name in ("train", "compare"):
        require_outputs(name, {"out": taken, "overwrite": False, "resume": True})
    require_outputs("report", {"out": taken, "overwrite": True})
    require_outputs("evaluate", {"out": None, "overwrite": False})
    (tmp_path / "scores-decoding.json").write_text("{}")
    with pytest.raises(SynBrainError, match="exists already"):
        require_outputs("evaluate", {"out": tmp_path / "scores.json", "overwrite": False, "decoder": "d"})
    # an interrupted training: `train` itself says how to go on
    unfinished = tmp_path / "unfinished"
    (unfinished / "training").mkdir(parents=True)
    (unfinished / "training" / "config.json").write_text("{}")
    require_outputs("train", {"out": unfinished, "overwrite": False, "resume": False})
    shutil.copy(RUN / "config.json", unfinished)
    with pytest.raises(SynBrainError, match="exists already"):
        require_outputs("train", {"out": unfinished, "overwrite": False, "resume": False})


def test_one_process_of_several_speaks(taken: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "RANK", "1")
    require_outputs("train", {"out": taken, "overwrite": False})


def test_missing_tokens_are_told_before_torch_is_imported(tmp_path: Path) -> None:
    asked = [
        [name, str(DATA), "--encoder", "clip", "--out", str(tmp_path / "new")]
        for name in ("train", "compare")
    ]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], input=json.dumps(asked), capture_output=True, text=True, check=True
    )
    assert done.stderr.count("has no tokens of clip: run `synbrain features") == 2
    for code, heavy in json.loads(done.stdout).values():
        assert code == 2
        assert not {"torch", "accelerate"} & set(heavy)


def test_a_decoder_that_failed_is_an_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("synbrain.decoding.experiments.compare.table_of", lambda table: "| decoder |")
    for failed, code in (({}, 0), ({"full-0": "no memory"}, 1)):
        assert decoders_compared({"failed": failed}, {"out": tmp_path}) == code
    assert "full-0 failed: no memory" in capsys.readouterr().out
