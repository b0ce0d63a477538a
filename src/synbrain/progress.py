"""Progress bars with rate and remaining time; silent unless the caller asks for them."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from tqdm.auto import tqdm

Item = TypeVar("Item")


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
    yield from tqdm(items, desc=what, total=total, unit=unit, disable=not show, file=sys.stderr)


def bar(what: str, *, total: int, unit: str = "it", show: bool, initial: int = 0) -> Any:
    """A bar to be moved by hand with ``.update(n)`` and closed with ``.close()``; bytes get MB and GB."""
    moved: Any = tqdm(
        desc=what,
        total=total,
        unit=unit,
        unit_scale=unit == "B",
        disable=not show,
        file=sys.stderr,
        initial=initial,
    )
    return moved


def announce(text: str, *, show: bool) -> None:
    """Print ``text`` at once, so that it can be read before long work begins; for the command line."""
    if show:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
