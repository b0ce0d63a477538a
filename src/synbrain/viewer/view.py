"""The viewer as one file."""

from __future__ import annotations

from pathlib import Path

from synbrain.files import write_text
from synbrain.viewer.page import exported, page
from synbrain.viewer.requirements import require_page
from synbrain.viewer.source import Source


def export_page(source: Source, out: Path, *, overwrite: bool = False) -> Path:
    """Write the viewer with test images of the source's dataset as one HTML file, without server or network.

    Args:
        source: run and dataset; its options say how many images and trials.
        out: .html to write.
        overwrite: replace ``out``.
    """
    require_page(out, overwrite)
    write_text(out, page(exported(source, source.options.images), inline=True))
    return out
