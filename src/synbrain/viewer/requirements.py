"""What ``synbrain view`` and ``report`` need before any work: a free name for the page, or a server."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from synbrain.errors import SynBrainError
from synbrain.files import require_absent

REPORT = ("report.html", "scores.json")  # what `synbrain report` writes, beside its figures
UNFINISHED = ".unfinished"  # stands in its folder until the page does: what lies there may be made again


def require_page(out: Path, overwrite: bool = False) -> None:
    """Raise where ``out`` is no name of a page, or stands there already."""
    if out.suffix.lower() not in (".html", ".htm"):
        raise SynBrainError(f"{out} is no name of a page", "end it in .html")
    require_absent(out, overwrite)


def require_server() -> None:
    """Raise where starlette or uvicorn is not installed."""
    missing = [name for name in ("starlette", "uvicorn") if find_spec(name) is None]
    if missing:
        raise SynBrainError(
            f"{' and '.join(missing)} not installed",
            "pip install 'synbrain[view]', or use --export page.html",
        )


def require_report(out: Path, overwrite: bool) -> None:
    """Refuse a folder that holds a report, unless it is one that was interrupted.

    Raises:
        SynBrainError: where its page or its scores stand there.
    """
    for name in REPORT:
        require_absent(out / name, overwrite or (out / UNFINISHED).exists())
