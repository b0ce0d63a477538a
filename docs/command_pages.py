"""The page of all commands, from the parser that the command line uses."""

from __future__ import annotations

from pathlib import Path

from synbrain.commands.parsing import REQUIRED, Option, parser_of
from synbrain.commands.registry import COMMANDS, Command


def write_command_page(path: Path) -> None:
    """Every command with its words and options, in the groups of ``synbrain --help``."""
    parts = [
        "# Commands",
        "`synbrain COMMAND --help` prints the same. Options that take a dot (`--vae.lr`) are settings of one part; "
        "`--config FILE.yaml` reads any of them, and `--print-config` writes such a file. A command ends with exit "
        "code 0, 1 (it found something wrong), 2 (bad input: one line says what and how to mend it), 130 (Ctrl-C).",
    ]
    for group in dict.fromkeys(command.group for command in COMMANDS.values()):
        parts.append(f"## {group[0].upper()}{group[1:]}")
        parts += [_section(name, command) for name, command in COMMANDS.items() if command.group == group]
    path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _section(name: str, command: Command) -> str:
    parser = parser_of(command, name)
    lines = [f"### {name}", "", f"```text\n{parser.usage}\n```", "", parser.description or ""]
    if command.example:
        lines += ["", f"```bash\n{command.example}\n```"]
    lines += ["", "| | | default |", "|---|---|---|"]
    lines += [_row(option) for option in parser.options]
    return "\n".join(lines)


def _row(option: Option) -> str:
    name = option.key.upper() if option.is_word else "--" + option.key.replace("_", "-")
    nested = hasattr(option.hint, "model_fields")
    default = "required" if option.default is REQUIRED else option.default
    if nested:
        keys = ", ".join(f"`.{key.replace('_', '-')}`" for key in option.hint.model_fields)
        return f"| `{name}` | {_cell(option.help)}: {keys} | |"
    if isinstance(default, (list, tuple)):
        default = " ".join(map(str, default))
    shown = "" if default in (None, False) else f"`{default}`" if default != "required" else "required"
    return f"| `{name}` | {_cell(option.help)} | {shown} |"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("*_", "\\*_").replace("``", "`")
