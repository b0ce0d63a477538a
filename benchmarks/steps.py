"""One command of a benchmark that goes on where it was left."""

from __future__ import annotations

import sys
from pathlib import Path

from synbrain.cli import main as synbrain


def step(output: Path, *words: str) -> None:
    """``synbrain WORDS``, unless its output is there."""
    if output.exists():
        return
    print("synbrain", *words, flush=True)
    if synbrain(list(words)):
        sys.exit(f"failed: synbrain {' '.join(words)}")
