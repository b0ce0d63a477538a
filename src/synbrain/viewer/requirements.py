"""What ``synbrain view`` needs before any work: a name for the page, or a server."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from synbrain.errors import SynBrainError
from synbrain.files import require_absent


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
