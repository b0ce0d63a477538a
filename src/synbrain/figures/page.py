"""Pictures, tables and words as one self-contained HTML page that opens anywhere, offline."""

from __future__ import annotations

import base64
import html
from dataclasses import dataclass, field
from pathlib import Path

from synbrain.files import write_text

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1f2937; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.7rem; margin-bottom: 0; } h2 { margin-top: 2.2rem; font-size: 1.2rem; }
p.lead { color: #4b5563; margin-top: .3rem; } figure { margin: 1rem 0; } img { max-width: 100%; }
figcaption { color: #4b5563; font-size: .9rem; max-width: 60rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .92rem; display: block; overflow-x: auto; }
th, td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid #e5e7eb; }
th:first-child, td:first-child { text-align: left; } thead th { border-bottom: 2px solid #9ca3af; }
tr.model td { font-weight: 600; } code { background: #f3f4f6; padding: 0 .25rem; }
"""  # noqa: E501


@dataclass(frozen=True)
class Picture:
    """A PNG file and what it shows, in words."""

    path: Path
    caption: str


@dataclass(frozen=True)
class Table:
    """Rows of text cells; ``marked`` names the rows (by first cell) to set in bold."""

    header: list[str]
    rows: list[list[str]]
    marked: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Section:
    """A heading with paragraphs, tables and pictures, shown in that order."""

    heading: str
    paragraphs: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)


def write_page(path: Path, title: str, lead: str, sections: list[Section]) -> None:
    """Write the page; pictures are embedded, so the file can be moved or sent alone."""
    body = "".join(_section(section) for section in sections)
    write_text(
        path,
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{STYLE}</style></head><body><h1>{html.escape(title)}</h1>"
        f'<p class="lead">{html.escape(lead)}</p>{body}</body></html>\n',
    )


def _section(section: Section) -> str:
    words = "".join(f"<p>{html.escape(paragraph)}</p>" for paragraph in section.paragraphs)
    tables = "".join(_table(table) for table in section.tables)
    pictures = "".join(_picture(picture) for picture in section.pictures)
    return f"<h2>{html.escape(section.heading)}</h2>{words}{tables}{pictures}"


def _table(table: Table) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in table.header)
    rows = "".join(
        f"<tr{' class=model' if row and row[0] in table.marked else ''}>"
        + "".join(f"<td>{html.escape(cell)}</td>" for cell in row)
        + "</tr>"
        for row in table.rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _picture(picture: Picture) -> str:
    data = base64.b64encode(picture.path.read_bytes()).decode()
    caption = html.escape(picture.caption)
    return (
        f'<figure><img alt="{caption}" src="data:image/png;base64,{data}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )
