"""``synbrain simulate``."""

from __future__ import annotations

from pathlib import Path

from synbrain.simulate import experiment as simulation
from synbrain.simulate.noise import NoiseLevel


def simulate(
    out: Path,
    subjects: int = 1,
    size: str = "demo",
    noise: NoiseLevel = "medium",
    seed: int = 0,
    sessions: list[int] | None = None,
    overwrite: bool = False,
) -> None:
    """Write an NSD-layout tree of simulated subjects, with the truth beside it.

    Args:
        out: folder to write the tree into
        subjects: number of subjects
        size: tiny, demo, small or full
        noise: low, medium or high
        seed: seed of the whole tree
        sessions: sessions that each subject completed, one number each; all where left out
        overwrite: replace the folder if it exists
    """
    simulation.simulate(
        out,
        subjects=subjects,
        size=size,
        noise=noise,
        seed=seed,
        sessions=sessions,
        overwrite=overwrite,
        show_progress=True,
    )
    print(f"{out}: {subjects} simulated subject(s), size {size}, noise {noise}, seed {seed}")
