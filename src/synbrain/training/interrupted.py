"""What an interrupted training leaves in ``OUT/training``; nothing heavy, as the command line asks first."""

from __future__ import annotations

from pathlib import Path

CONFIG = "config.json"  # of a finished run
TRAINING, RESOLVED = "training", "config.json"
# in TRAINING while a training is not finished
UNFINISHED = ("linear", "vae", "mapper", "targets", "tuning", "pixels")


def is_interrupted(out: Path) -> bool:
    """Whether a training of ``out`` was begun and not finished."""
    folder = out / TRAINING
    unfinished = not (out / CONFIG).exists() or any((folder / name).exists() for name in UNFINISHED)
    return (folder / RESOLVED).exists() and unfinished
