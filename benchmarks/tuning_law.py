"""How the gain of tuned encoders grows with the sessions: several calls of `tuning.py` side by side.

    python benchmarks/tuning_law.py WORK3 WORK6 WORK9

The calls must have kept back the same sessions, with `--frozen-prior`. Printed are means over these sessions,
what each call adds to the one before (95 % over test images, resampled alike in all), and a line through the
gains in the logarithm of the number of sessions tuned on.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synbrain.files import read_json

WAYS = ("prior frozen", "prior tuned", "prior both")
AIM = 0.05


@dataclass(frozen=True)
class Call:
    """One call: what was tuned on, and its rows by session, number of training images and way."""

    sessions: int
    images: int
    rows: dict[tuple[str, str, str], dict[str, Any]]

    @classmethod
    def of(cls, work: Path) -> Call:
        config = read_json(next(work.glob("encoder*/config.json")))
        rows = read_json(work / "table.json")["rows"]
        images = sum(dataset["images_tuned_on"] for dataset in config["datasets"])
        by_cell = {(row["session"], row["budget"], row["way"]): row for row in rows}
        return cls(len(config["datasets"]), images, by_cell)

    def by_session(self, budget: str, way: str) -> NDArray[np.float64]:
        """(n_sessions,) voxel_r."""
        return np.array([np.nanmean(r["r"]) for (_, b, w), r in self.rows.items() if (b, w) == (budget, way)])

    def resampled(self, budget: str, way: str) -> NDArray[np.float64]:
        """(n_resamples,) voxel_r of resampled test images, mean over sessions."""
        kept = [r["replicates"] for (_, b, w), r in self.rows.items() if (b, w) == (budget, way)]
        return np.asarray(np.mean(kept, axis=0))

    def gain(self, budget: str) -> float:
        return float((self.by_session(budget, "prior both") - self.by_session(budget, "prior frozen")).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("works", nargs="+", type=Path)
    calls = [Call.of(work) for work in parser.parse_args().works]
    budgets = list(dict.fromkeys(budget for _, budget, _ in calls[0].rows))
    for call in calls:
        means = [" ".join(f"{call.by_session(b, way).mean():.3f}" for b in budgets) for way in WAYS]
        gains = " ".join(f"{call.gain(b):+.3f}" for b in budgets)
        print(f"| {call.sessions} | {call.images:,} | {' | '.join(means)} | {gains} |")
    for way in WAYS:
        for before, after in pairwise(calls):
            for budget in budgets:
                each = after.by_session(budget, way) - before.by_session(budget, way)
                spread = after.resampled(budget, way) - before.resampled(budget, way)
                low, high = np.quantile(spread, [0.025, 0.975])
                print(
                    f"{way}, {budget} images, {after.sessions} - {before.sessions} sessions: "
                    f"{each.mean():+.4f} [{low:+.4f}, {high:+.4f}]; "
                    f"by session {', '.join(f'{x:+.3f}' for x in each)}"
                )
    doublings = [math.log2(call.sessions) for call in calls]
    for budget in budgets:
        slope, start = np.polyfit(doublings, [call.gain(budget) for call in calls], 1)
        needed = 2 ** ((AIM - start) / slope)
        print(f"{budget} images: {slope:+.4f} for each doubling; {AIM} at {needed:.0f} sessions")


if __name__ == "__main__":
    main()
