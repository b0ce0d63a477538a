"""The documentation keeps step: links lead somewhere, commands and their options exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from synbrain.commands.parsing import parser_of
from synbrain.commands.registry import COMMANDS

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    path
    for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").glob("*.md"))
    if "_build" not in path.parts and path != ROOT / "docs/reference/commands.md"
)
LINK = re.compile(r"\]\(([^)\s#]+)(?:#[^)\s]*)?\)")
MADE = ROOT / "docs/examples"  # by the gallery
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]


@pytest.mark.parametrize("name", NAMES)
def test_links_between_pages_lead_somewhere(name: str) -> None:
    page = ROOT / name
    lost = []
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if target.startswith(("http:", "https:", "mailto:")):
            continue
        path = (page.parent / target).resolve()
        if path.is_relative_to(MADE):
            path = ROOT / "examples" / path.with_suffix(".py").name
            if path.name == "index.py":
                continue
        if not path.exists():
            lost.append(target)
    assert lost == []


def slug(heading: str) -> str:
    """The anchor of a heading, as GitHub and MyST make it."""
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
    return re.sub(r"[^\w\- ]", "", plain.lower()).strip().replace(" ", "-")


@pytest.mark.parametrize("name", NAMES)
def test_anchors_of_links_are_headings(name: str) -> None:
    page = ROOT / name
    lost = []
    for target, anchor in re.findall(r"\]\(([^)\s#:]*)#([^)\s]+)\)", page.read_text(encoding="utf-8")):
        path = page.parent / target if target else page
        if path.suffix == ".md" and path.exists():
            headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            if anchor not in map(slug, headings):
                lost.append(f"{target}#{anchor}")
    assert lost == []


def commands_in(text: str) -> list[list[str]]:
    """The words of every ``synbrain ...`` line in a code block, comments taken away."""
    blocks = re.findall(r"^```(?:bash|console|sh)?\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = re.sub(r"\\\n\s*", " ", "\n".join(blocks)).splitlines()
    parts = [part.strip().removeprefix("$ ") for line in lines for part in line.split("&&")]
    return [shlex.split(part, comments=True)[1:] for part in parts if part.startswith("synbrain ")]


@pytest.mark.parametrize("name", NAMES)
def test_commands_in_code_blocks_exist_with_their_options(name: str) -> None:
    for words in commands_in((ROOT / name).read_text(encoding="utf-8")):
        command = next((n for n in (" ".join(words[:2]), words[0]) if n in COMMANDS), None)
        if words[0].startswith("--") or any(word.isupper() for word in words[:1]):
            continue
        assert command is not None, words
        known = parser_of(COMMANDS[command], command)._option_string_actions
        options = [word.strip("[]").partition("=")[0] for word in words if word.strip("[]").startswith("--")]
        unknown = [
            option for option in options if option.replace("-", "_").replace("__", "--", 1) not in known
        ]
        assert unknown == [], f"synbrain {' '.join(words)}"
