"""The command line: listing, unknown commands, typos, and user errors become exit codes."""

from __future__ import annotations

from importlib import import_module

import pytest

from synbrain.cli import COMMANDS, main


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in COMMANDS)


def test_unknown_command_exits_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trian"]) == 2
    assert "trian" in capsys.readouterr().err


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_exists_and_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    module, function, _ = COMMANDS[name]
    command = getattr(import_module(f"synbrain.commands.{module}"), function)
    assert command.__doc__
    with pytest.raises(SystemExit) as stopped:
        main([*name.split(), "--help"])
    assert stopped.value.code == 0
    assert f"synbrain {name}" in capsys.readouterr().out


def test_user_error_is_one_line_and_exit_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "no-such-folder"]) == 2
    message = capsys.readouterr().err
    assert "no-such-folder" in message
    assert "Traceback" not in message


def test_option_with_a_typo_exits_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["info", "somewhere", "--overwriet"])
    assert stopped.value.code == 2
    assert "overwriet" in capsys.readouterr().err
