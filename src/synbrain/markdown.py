"""Tables in Markdown, for cards, score tables and notes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: bool = True) -> list[str]:
    """The lines of a table; columns after the first are right-aligned where they hold ``numbers``.

    >>> markdown_table(["row", "r"], [["ridge", "0.48"]])
    ['| row | r |', '|---|---:|', '| ridge | 0.48 |']
    """
    rule = "---:|" if numbers else "---|"
    lines = ["| " + " | ".join(head) + " |", "|---|" + rule * (len(head) - 1)]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]
