"""``synbrain completion``: completion of commands, options and files for a shell, by shtab."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Literal

from synbrain.errors import SynBrainError

Shell = Literal["bash", "zsh", "tcsh"]


def completion(shell: Shell) -> None:
    """Print a script that completes commands, options and files.

    Args:
        shell: bash, zsh or tcsh.
    """
    try:
        import shtab
    except ImportError as error:
        raise SynBrainError("completion needs shtab", "pip install 'synbrain[completion]'") from error
    print(shtab.complete(_parser(shtab), shell=shell))


def _parser(shtab: Any) -> argparse.ArgumentParser:
    """All commands as one plain parser: shtab reads names, choices and which words are files."""
    from synbrain.commands.parsing import parser_of
    from synbrain.commands.registry import COMMANDS
    from synbrain.commands.wording import choices_of

    root = argparse.ArgumentParser("synbrain", allow_abbrev=False)
    root.add_argument("--version", action="store_true", help="the version")
    first = root.add_subparsers()
    groups: dict[str, Any] = {}
    for name, command in COMMANDS.items():
        group, _, last = name.rpartition(" ")
        if group and group not in groups:
            groups[group] = first.add_parser(group, help=f"{group} ...").add_subparsers()
        leaf = groups.get(group, first).add_parser(last, help=command.help)
        for action in parser_of(command, name)._actions:
            if isinstance(action, argparse._HelpAction):
                continue
            hint = getattr(action, "_typehint", None)
            choices = choices_of(hint) or None
            flags = [option.replace("_", "-") for option in action.option_strings]
            names = {"nargs": action.nargs} if action.nargs not in (0, None) else {}
            if action.nargs == 0:
                leaf.add_argument(*flags, action="store_true", help=_line(action.help))
                continue
            added = leaf.add_argument(
                *(flags or [action.dest]), choices=choices, help=_line(action.help), **names
            )
            if hint in (Path, Path | None) or getattr(action, "type", None) is Path:
                added.complete = shtab.FILE
    return root


def _line(text: str | None) -> str:
    return " ".join((text or "").split()).replace("%%", "percent").replace("%", "percent")
