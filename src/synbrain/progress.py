"""Progress bars with rate and remaining time; silent unless the caller asks for them.

On a terminal and in a notebook a bar moves in place. A file or a batch system's log has no line to be
overwritten: there, its state is a line of its own every ``LOG_SECONDS``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import Any, TextIO, TypeVar

from tqdm.auto import tqdm

Item = TypeVar("Item")
LOG_SECONDS = 10.0


def track(
    items: Iterable[Item], what: str, *, total: int | None = None, unit: str = "it", show: bool
) -> Iterator[Item]:
    """Yield ``items`` behind a bar on stderr that shows rate and remaining time.

    Args:
        items: what to iterate over.
        what: the words before the bar ("encode images").
        total: number of items where ``items`` has no length.
        unit: what is counted ("image", "step", "session").
        show: False for silence (library calls); the command line passes True.
    """
    yield from tqdm(items, desc=what, total=total, unit=unit, disable=not show, **_where())


def bar(what: str, *, total: int, unit: str = "it", show: bool, initial: int = 0) -> Any:
    """A bar to be moved by hand with ``.update(n)`` and closed with ``.close()``; bytes get MB and GB."""
    moved: Any = tqdm(
        desc=what,
        total=total,
        unit=unit,
        unit_scale=unit == "B",
        disable=not show,
        initial=initial,
        **_where(),
    )
    return moved


def announce(text: str, *, show: bool) -> None:
    """Print ``text`` at once, so that it can be read before long work begins; for the command line."""
    if show:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


class LogLines:
    """A file for ``tqdm`` that turns each overwritten line into a line of its own."""

    def __init__(self, file: TextIO) -> None:
        self.file = file

    def write(self, text: str) -> None:
        """Write what is to be read of ``text``, nothing that moves a cursor."""
        said = text.replace("\x1b[A", "").strip()
        if said:
            self.file.write(said + "\n")

    def flush(self) -> None:
        """Flush the file behind."""
        self.file.flush()


def _where() -> dict[str, Any]:
    """Settings of ``tqdm`` for what stderr is."""
    if sys.stderr.isatty() or "ipykernel" in sys.modules:
        return {"file": sys.stderr}
    return {"file": LogLines(sys.stderr), "mininterval": LOG_SECONDS, "maxinterval": LOG_SECONDS}
