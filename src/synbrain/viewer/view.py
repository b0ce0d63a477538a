"""The viewer as one file, and whether the local server can run."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from synbrain.data.dataset import Dataset
from synbrain.errors import SynBrainError
from synbrain.files import require_absent, write_text
from synbrain.model.synbrain import SynBrain
from synbrain.viewer.options import ViewOptions
from synbrain.viewer.page import exported, page
from synbrain.viewer.source import Source

if TYPE_CHECKING:
    from synbrain.viewer.decoded import DecodedPictures

AS_USUAL = ViewOptions()


def export_page(
    model: SynBrain,
    out: Path,
    dataset: Dataset,
    options: ViewOptions = AS_USUAL,
    *,
    decode: DecodedPictures | None = None,
    overwrite: bool = False,
) -> Path:
    """Write the viewer with test images of ``dataset`` as one HTML file, without server or network.

    Args:
        model: the run.
        out: .html to write.
        dataset: of the run's subject.
        options: number of images and trials, subject.
        decode: shows what a decoder makes of the responses.
        overwrite: replace ``out``.
    """
    require_absent(out, overwrite)
    if out.suffix.lower() not in (".html", ".htm"):
        raise SynBrainError(f"{out} is no name of a page", "end it in .html")
    write_text(out, page(exported(Source(model, dataset, options, decode), options.images), inline=True))
    return out


def require_server() -> None:
    """Raise where starlette or uvicorn is not installed."""
    missing = [name for name in ("starlette", "uvicorn") if find_spec(name) is None]
    if missing:
        raise SynBrainError(
            f"{' and '.join(missing)} not installed",
            "pip install 'synbrain[view]', or use --export page.html",
        )
