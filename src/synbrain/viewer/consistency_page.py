"""The page of ``synbrain consistency``: is a model like its subject, and not like any subject?"""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

from synbrain.analysis.consistency_report import Consistency
from synbrain.describe import counted
from synbrain.viewer.sections import Cell, Picture, Section, Table, write_sections

BARS = "Bars of Pearson's r, one group an area or category; grey bars are the shuffled controls."
PROFILES = (
    "The mean of an area over its voxels, image by image: Pearson across test images between two sources. "
    "Other subjects are the between-subject control, shuffled images the floor."
)
SELECTIVITY = (
    "How strongly voxels prefer a category (t map), between two sources. The shuffled control permutes the "
    "images."
)
TRIALS = (
    "Patterns of two trials of one image within an area, minus the mean map: measured trials, synthetic "
    "trials, and both with images shuffled."
)


def write_consistency_page(out: Path, report: Consistency) -> Path:
    """Write ``out/consistency.html`` with the picture that lies in ``out``; returns the page."""
    from synbrain import __version__

    means = report.means()
    picture = Picture(out / "consistency.png", BARS, "Grouped bars of correlations.")
    blocks = [
        ("ROI profiles over test images", PROFILES, report.profiles, means["profiles"]),
        ("Category selectivity", SELECTIVITY, report.selectivity, {}),
        ("Patterns over two trials of one image", TRIALS, report.trials, means["trials"]),
    ]
    sections = [Section("What was found", sentences(means), [picture] if picture.path.exists() else [])]
    for heading, words, rows, mean in blocks:
        if rows:
            sections.append(Section(heading, [words], table=_table(rows, mean)))
    facts = {
        "made": datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        "synbrain": __version__,
        "dataset": f"{report.dataset}, subject {report.subject}",
        "recordings": ", ".join(
            (counted(report.n_test_images, "test image"), counted(report.n_test_trials, "test trial"))
        ),
        "synthetic trials an image": str(report.n_samples),
        "other subjects": ", ".join(report.others) or "none given",
    }
    sections.append(Section("Provenance", items=list(facts.items())))
    title, lead = (
        f"Consistency of {report.subject}",
        "Is the model like its subject, and not like any subject?",
    )
    return write_sections(out / "consistency.html", title, lead, sections)


def sentences(means: dict[str, dict[str, float | None]]) -> list[str]:
    """The means over areas in words: profiles, then trial patterns."""
    made = []
    for what, row in (("ROI profiles", means["profiles"]), ("patterns over trials", means["trials"])):
        known = [f"{name} {value:.3f}" for name, value in row.items() if value is not None]
        if known:
            made.append(f"Mean over areas, {what}: {'; '.join(known)}.")
    return made


def _table(rows: dict[str, dict[str, Any]], mean: dict[str, float | None]) -> Table:
    columns = list(dict.fromkeys(name for row in rows.values() for name in row))
    named = [*rows.items(), *([("mean", mean)] if mean else [])]
    shown = [
        (name, [Cell("–" if row.get(c) is None else f"{row[c]:.3f}", strong=name == "mean") for c in columns])
        for name, row in named
    ]
    return Table(["", *columns], shown, marked="mean")
