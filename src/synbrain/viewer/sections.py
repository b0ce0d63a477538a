"""Pages of tables: headings, words, tables and pictures on the same parts as the report."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from synbrain.files import write_text
from synbrain.viewer.page import bundle, environment

MANY = 7  # columns of a table from which headings stand upright on a phone


@dataclass(frozen=True)
class Cell:
    """A value of a table; ``small`` stands below it, an interval for example."""

    text: str
    small: str = ""
    strong: bool = False


@dataclass(frozen=True)
class Table:
    """Columns with their headings, and rows: the name of each and its cells.

    Attributes:
        head: headings; the first is that of the names.
        rows: (name, cells), as many cells as there are headings after the first.
        marked: the row that is set in bold, the page's own system.
    """

    head: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Cell]]]
    marked: str = ""

    @property
    def is_wide(self) -> bool:
        return len(self.head) > MANY


@dataclass(frozen=True)
class Picture:
    """A PNG file: what stands below it, and what it shows for those who cannot see it."""

    path: Path
    caption: str
    alt: str

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def address(self) -> str:
        content = base64.b64encode(self.path.read_bytes()).decode()
        return f"data:image/png;base64,{content}"


@dataclass(frozen=True)
class Section:
    """A heading with pictures, words, a table and items, in that order; ``folded``: closed at first."""

    heading: str
    words: Sequence[str] = ()
    pictures: Sequence[Picture] = ()
    table: Table | None = None
    items: Sequence[tuple[str, str]] = ()
    folded: bool = False


def write_sections(path: Path, title: str, lead: str, sections: Sequence[Section]) -> Path:
    """Write the page: one file with pictures inside, which needs no network; returns ``path``."""
    html = environment().get_template("sections.html").render(
        title=title, lead=lead, sections=sections, css=Markup(bundle("viewer.css"))
    )  # fmt: skip
    write_text(path, html)
    return path
