"""The image files that a user names: paths, folders, globs and lists, in any mixture."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path

from synbrain.data.tables import read_list
from synbrain.errors import SynBrainError

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".gif"}


def list_images(sources: str | Path | Sequence[str | Path]) -> list[Path]:
    """Image files that ``sources`` name, in the order given.

    Args:
        sources: one or several of: an image, a folder (its images by name, hidden files left out), a glob
            such as ``"stimuli/*.png"``, or a text file with one path a line, relative to that file.

    Raises:
        SynBrainError: where one of them names no image, or a listed file is missing.
    """
    given = [sources] if isinstance(sources, (str, Path)) else list(sources)
    files = [path for source in given for path in _images_of(Path(source))]
    if not files:
        raise SynBrainError("no images were named", f"give files of {', '.join(sorted(IMAGE_SUFFIXES))}")
    return files


def _images_of(source: Path) -> list[Path]:
    if source.is_dir():
        files = [path for path in sorted(source.iterdir()) if _is_image(path)]
    elif source.exists():
        files = [source] if source.suffix.lower() in IMAGE_SUFFIXES else _listed(source)
    elif glob.has_magic(str(source)):
        files = [
            path for path in map(Path, sorted(glob.glob(str(source), recursive=True))) if _is_image(path)
        ]
    else:
        raise SynBrainError(
            f"{source} is missing", "give images, folders, globs or a text file with one path a line"
        )
    if not files:
        mend = f"give files of {', '.join(sorted(IMAGE_SUFFIXES))}"
        raise SynBrainError(f"{source} holds no images", mend)
    return files


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()


def _listed(source: Path) -> list[Path]:
    files = [source.parent / line for line in read_list(source) if not line.startswith("#")]
    missing = [path for path in files if not path.exists()]
    if missing:
        raise SynBrainError(
            f"{len(missing)} of {len(files)} images in {source} are missing, the first is {missing[0]}",
            "mend the list",
        )
    return files
