"""The command line: listing, mistakes in one line, completion, exit codes, speed of start."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import synbrain
from synbrain.cli import main
from synbrain.commands.registry import COMMANDS

LIGHT = """
import sys
from synbrain.cli import main
try:
    code = main(sys.argv[1:])
except SystemExit as stopped:
    code = stopped.code
heavy = sorted({"torch", "accelerate", "sklearn", "matplotlib", "transformers"} & set(sys.modules))
print(code, *heavy, file=sys.stderr)
"""


def test_help_lists_every_command_in_groups(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed and command.help in printed for name, command in COMMANDS.items())
    assert printed.index("data:") < printed.index("prepare table") < printed.index("models:")


def test_version_and_module(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"synbrain {synbrain.__version__}\n"
    done = subprocess.run([sys.executable, "-m", "synbrain", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"synbrain {synbrain.__version__}\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian"], "synbrain: there is no command 'trian' (did you mean train?)"),
        (["prepare", "tabel"], "there is no command 'prepare tabel' (did you mean prepare table?)"),
        (["fit", "data/me"], "there is no command 'fit' (did you mean train?)"),
        (["quux"], "synbrain: there is no command 'quux' (synbrain --help lists them)"),
        (["info", "x", "--overwriet"], "synbrain info: there is no option --overwriet"),
        (
            ["train", "x", "--out", "y", "--vae.epoch", "3"],
            "no option --vae.epoch (did you mean --vae.epochs?)",
        ),
        (
            ["train", "x", "--out", "y", "--vae.epochs", "many"],
            "--vae.epochs: expected a whole number, not many",
        ),
        (["prepare", "nsd", "x", "y", "--subjec", "1"], "no option --subjec (did you mean --subject?)"),
        (["prepare", "nsd", "x", "y"], "synbrain prepare nsd: missing: --subject"),
        (["decoder", "compare", "x", "y", "--out", "z"], "missing: --run, --known-data"),
        (["train"], "synbrain train: missing: datasets, --out"),
        (["prepare", "nsd", "x", "y", "--subject", "1", "--space", "z"], "--space: expected func1pt8mm or"),
        (["prepare", "bids", "x", "y", "--seed", "-1"], "--seed"),
        (["demo", "--size", "full"], "--size: expected tiny or demo or small, not full"),
    ],
)
def test_a_mistake_costs_one_line(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    try:
        code = main(words)
    except SystemExit as stopped:
        code = int(str(stopped.code))
    told = capsys.readouterr()
    assert code == 2
    assert message in told.err
    assert told.err.count("\n") == 1
    assert told.out == ""


def test_a_group_lists_its_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare", "--help"]) == 0
    assert main(["prepare"]) == 2
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("prepare table", "prepare nsd", "prepare bids"))
    assert "train" not in printed.replace("trained", "")


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A description, a sentence for every own option, and an example that its own parser takes."""
    with pytest.raises(SystemExit) as stopped:
        main([*name.split(), "--help"])
    assert stopped.value.code == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"usage: synbrain {name}")
    assert not re.search(r"--\w+_", printed)
    from synbrain.commands.parsing import CommandParser, parser_of

    command = COMMANDS[name]
    parser = parser_of(command, name)
    assert isinstance(parser, CommandParser)
    assert parser.description
    unexplained = [
        o.key
        for o in parser.options
        if not o.help and "Options" not in str(o.hint) and "Config" not in str(o.hint)
    ]
    assert unexplained == []
    if command.example:
        import shlex

        words = shlex.split(command.example.split(" > ")[0])
        assert " ".join(words[1:]).startswith(name)
        parser.parse(words[1 + len(name.split()) :])


@pytest.mark.parametrize(
    "words",
    [["--help"], ["prepare"], ["trian"], ["train", "--help"], ["train", "nowhere", "--out", "x"],
     ["adapt", "--help"], ["adapt", "nowhere", "nowhere", "--out", "x"], ["prepare", "nsd", "--help"],
     ["info", "nowhere"],
     ["features", "nowhere"], ["evaluate", "nowhere", "nowhere"], ["evaluate", "--help"],
     ["report", "--help"], ["compare", "--help"], ["synthesize", "--help"], ["predict", "--help"],
     ["synthesize", "nowhere", "nowhere", "--out", "x.npy"], ["calibrate", "--help"],
     ["import-reference", "--help"], ["consistency", "--help"], ["check", "nowhere"],
     ["adaptation-curve", "--help"], ["doctor", "--help"], ["demo", "--help"]],
    ids=" ".join,
)  # fmt: skip
def test_help_and_errors_need_no_heavy_import(words: list[str]) -> None:
    done = subprocess.run([sys.executable, "-c", LIGHT, *words], capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] in ("0", "2")


DEMO = Path(synbrain.__file__).parent / "demo"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["predict", str(DEMO / "run"), "nowhere.png", "--out", "x.npy"], "nowhere.png is missing"),
        (["view", "demo", "--decoder", str(DEMO / "run"), "--export", "x.html"], "is not a decoder"),
    ],
    ids=["picture", "decoder"],
)
def test_what_is_not_there_is_told_before_torch(words: list[str], message: str) -> None:
    done = subprocess.run([sys.executable, "-c", LIGHT, *words], capture_output=True, text=True)
    assert message in done.stderr
    assert done.stderr.splitlines()[-1] == "2"


def test_user_error_is_one_line_and_exit_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "no-such-folder"]) == 2
    message = capsys.readouterr().err
    assert "no-such-folder" in message
    assert message.count("\n") == 1


def test_info_of_a_folder_says_what_is_inside(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = {"n_trials": 12, "n_voxels": 3, "subject": "me"}
    for name, content in {
        "data/dataset.json": dataset,
        "data/space/space.json": {"kind": "surface"},
        "run/config.json": {"recipe": "calibrated", "subjects": ["me"]},
        "run/checksums.json": {},
        "scores.json": {"scores": {"synbrain": {"voxel_r": 0.5}}},
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(json.dumps(content))
    assert main(["info", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "12 trials x 3 vertices, subject me" in printed
    assert "recipe calibrated, subjects me" in printed
    assert "synbrain: voxel_r 0.500" in printed


def test_error_of_the_system_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["simulate", str(tmp_path / "file" / "tree"), "--size", "tiny"]) == 2
    message = capsys.readouterr().err
    assert "synbrain simulate: " in message
    assert "Traceback" not in message


def test_completion_knows_commands_options_and_values(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("shtab")
    assert main(["completion", "bash"]) == 0
    script = capsys.readouterr().out
    assert "session-zscore" in script
    assert "--n-way" in script
    ask = "source /dev/stdin; COMP_WORDS=(synbrain prepare n); COMP_CWORD=2; _shtab_synbrain"
    done = subprocess.run(
        ["bash", "-c", ask + "; echo ${COMPREPLY[@]}"], input=script, capture_output=True, text=True
    )
    assert done.stdout.split() == ["nsd"]


def test_doctor_says_what_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    printed = capsys.readouterr().out
    for word in (
        f"synbrain   {synbrain.__version__}",
        "torch",
        "device     ",
        "threads",
        "GB free",
        "weights",
    ):
        assert word in printed
    assert "Traceback" not in printed


def test_broken_pipe_ends_quietly() -> None:
    command = f"{sys.executable} -m synbrain train --help | head -n 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.stderr == ""
    assert done.stdout.count("\n") == 1


# Ctrl-C at the moment when torch is looked for: after so many seconds it would be another moment on
# every machine, and before `main` runs Python itself answers.
INTERRUPTED = """
import os, runpy, signal, sys

class Ctrl_C:
    def find_spec(name, path, target=None):
        if name == "torch":
            os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
sys.meta_path.insert(0, Ctrl_C)
sys.argv = ["synbrain", "doctor"]
runpy.run_module("synbrain", run_name="__main__")
"""


def test_ctrl_c_while_modules_are_imported_is_one_line() -> None:
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True)
    assert done.returncode == 130
    assert done.stderr == "synbrain doctor: interrupted; finished parts are kept\n"


def test_help_lists_the_words_that_an_option_takes(capsys: pytest.CaptureFixture[str]) -> None:
    """Also where leaving it out means something else, as in a recipe's options."""
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    printed = capsys.readouterr().out
    assert "--shrink {none,subject,voxel}" in printed
    assert "--vae.schedule {constant,cosine}" in printed
    assert "--preset PRESET" in printed


def test_help_says_percent_as_it_is_read_and_nothing_of_leaving_out_what_must_be_given(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for command in ("evaluate", "train"):
        with pytest.raises(SystemExit):
            main([command, "--help"])
    printed = capsys.readouterr().out
    assert "for 90 %" in printed
    assert "%%" not in printed
    assert "the run folder to write" in printed
    assert "without it nothing" not in printed
