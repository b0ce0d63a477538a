"""How an object tells what it is: a short text, and a table in notebooks."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any


def counted(n: int, one: str, several: str = "") -> str:
    """A number with what it counts, in the singular where it is one.

    >>> counted(1, "voxel"), counted(3, "voxel"), counted(0, "image is", "images are")
    ('1 voxel', '3 voxels', '0 images are')
    """
    return f"{n} {one if n == 1 else several or one + 's'}"


def as_text(name: str, facts: Mapping[str, Any]) -> str:
    """``SynBrain(recipe='calibrated', subjects=...)`` over several lines where it is long.

    >>> as_text("Thing", {"size": 3, "unit": "mm"})
    'Thing(size: 3, unit: mm)'
    """
    parts = [f"{key}: {value}" for key, value in facts.items()]
    line = f"{name}({', '.join(parts)})"
    return line if len(line) <= 100 else f"{name}(\n  " + "\n  ".join(parts) + "\n)"


def as_html(name: str, facts: Mapping[str, Any]) -> str:
    """The same as a table; text is escaped."""
    rows = "".join(
        f"<tr><th style='text-align:left'>{escape(str(key))}</th>"
        f"<td style='text-align:left'>{escape(str(value))}</td></tr>"
        for key, value in facts.items()
    )
    return f"<table><caption style='text-align:left'><b>{escape(name)}</b></caption>{rows}</table>"
