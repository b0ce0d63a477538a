"""The adaptation curves of docs/research/adaptation.md, from recordings or a simulation to curve.json.

::

    python benchmarks/adapt.py real SHARED_DATA WORK [--draws 5]
    python benchmarks/adapt.py simulated WORK [--size small] [--draws 5]

Steps whose output stands in WORK already are not done again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from steps import step

BASE = ("v4_190923", "v4_201017", "v4_210224", "v4_210322")
NEW = "v4_210325"


def real(data: Path, work: Path, draws: int) -> None:
    """Base on four V4 recordings, adapted to the fifth."""
    for name in (*BASE, NEW):
        folder = work / name
        step(folder, "prepare", "table", str(data / name), str(folder), "--name", name)
        tokens = folder / "tokens" / "efficientnet-lite0" / "tokens.json"
        step(tokens, "features", str(folder), "--layers", "block14", "final")
    base = [str(work / name) for name in BASE]
    step(work / "base", "train", *base, "--keep-out", str(work / NEW), "--out", str(work / "base"),
         "--linear.windows", "0")  # fmt: skip
    step(work / "curve", "adaptation-curve", str(work / "base"), str(work / NEW),
         "--budgets", "25", "50", "100", "200", "all",
         "--draws", str(draws), "--networks", "false", "--out", str(work / "curve"))  # fmt: skip


def simulated(work: Path, size: str, draws: int) -> None:
    """Base on subject 1 with all its data, adapted to subject 2."""
    step(work / "tree", "simulate", str(work / "tree"), "--subjects", "2", "--size", size)
    for subject in ("1", "2"):
        folder = work / f"subj{subject}"
        step(folder, "prepare", "nsd", str(work / "tree"), str(folder), "--subject", subject,
             "--repeats", "available")  # fmt: skip
        step(folder / "tokens" / "efficientnet-lite0" / "tokens.json", "features", str(folder))
    first, second = str(work / "subj1"), str(work / "subj2")
    step(work / "base", "train", first, "--out", str(work / "base"))
    step(work / "full", "train", second, "--out", str(work / "full"))
    step(work / "hour", "adapt", str(work / "base"), second, "--budget", "1h", "--out", str(work / "hour"))
    step(work / "curve", "adaptation-curve", str(work / "base"), second,
         "--budgets", "25", "50", "100", "250", "all", "--draws",
         str(draws), "--networks", "false", "--full-run", str(work / "full"),
         "--out", str(work / "curve"))  # fmt: skip
    step(work / "consistency", "consistency", str(work / "hour"), second, "--full-run", str(work / "full"),
         "--others", first, "--categories", str(work / "tree/truth/image_categories.csv"),
         "--out", str(work / "consistency"))  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    kinds = parser.add_subparsers(dest="kind", required=True)
    on_real, on_simulated = kinds.add_parser("real"), kinds.add_parser("simulated")
    on_real.add_argument("data", type=Path)
    for kind in (on_real, on_simulated):
        kind.add_argument("work", type=Path)
        kind.add_argument("--draws", type=int, default=5)
    on_simulated.add_argument("--size", default="small")
    given = parser.parse_args()
    if given.kind == "real":
        real(given.data, given.work, given.draws)
    else:
        simulated(given.work, given.size, given.draws)
