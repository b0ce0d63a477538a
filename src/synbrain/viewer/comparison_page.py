"""The page of ``synbrain compare``: what differs from ridge, the dots, then every table."""

from __future__ import annotations

import datetime
from pathlib import Path

from synbrain.comparison.compare import Comparison
from synbrain.comparison.table import (
    ALPHA,
    SMALLER_IS_BETTER,
    TABLES,
    WORDS,
    Entry,
    difference_entry,
    entry,
    legend,
    other_differences,
    shown_table,
)
from synbrain.describe import counted
from synbrain.evaluation.scores import Scores
from synbrain.evaluation.table import header
from synbrain.viewer.sections import Cell, Picture, Section, Table, write_sections

OURS = "synbrain"
DOTS = (
    "Dots are means over seeds with 95 % intervals; the thin line is ridge, the broken one the noise ceiling "
    "or the value that is right."
)
CURVES = "Reconstruction of test responses during training, of systems that have a VAE."
ASKED = {"voxel_r": "mean responses (voxel r)", "crps": "trials (CRPS)"}


def write_comparison_page(out: Path, comparison: Comparison) -> Path:
    """Write ``out/comparison.html`` with the pictures that lie in ``out``."""
    scores, about = comparison.scores, comparison.about
    pictures = [
        Picture(out / name, caption, alt)
        for name, caption, alt in (
            ("comparison.png", DOTS, "Dots with intervals, a panel each score and a line each method."),
            ("training_curves.png", CURVES, "Lines of reconstruction over training steps."),
        )
        if (out / name).exists()
    ]
    sections = [
        Section("What was found", [*sentences(scores, about.against), _plain(legend(about))], pictures[:1])
    ]
    for title, columns in TABLES.items():
        shown, names = shown_table(columns, scores)
        if shown:
            rows = [(name, [_cell(entry(scores, name, metric)) for metric in shown]) for name in names]
            table = Table(["method", *shown.values()], rows, marked=OURS)
            sections.append(Section(title, [_plain(WORDS[title])], table=table))
    for apart in other_differences(about):
        rows = [
            (name, [_cell(difference_entry(of.get(metric))) for metric in apart.columns])
            for name, of in apart.rows.items()
        ]
        table = Table(["method", *apart.columns.values()], rows, marked=OURS)
        sections.append(Section(apart.title, [_plain(apart.words)], table=table))
    sections += [Section("Training curves", [], pictures[1:])] if len(pictures) > 1 else []
    sections += _lists(comparison)
    title = f"Comparison on {about.dataset}"
    return write_sections(out / "comparison.html", title, header(scores), sections)


def sentences(scores: Scores, against: str) -> list[str]:
    """Which method is best in mean responses and in trials, and how many differ from the base row."""
    made = []
    for metric, what in ASKED.items():
        values = {
            name: value
            for name in scores.rows
            if name not in ("ceiling", "oracle") and (value := scores.value(name, metric)) is not None
        }
        if len(values) < 2:
            continue
        smaller = metric in SMALLER_IS_BETTER
        best = min(values, key=lambda name: values[name] if smaller else -values[name])
        marks = [entry(scores, name, metric).mark for name in values]
        better, worse = marks.count("▲"), marks.count("▼")
        made.append(
            f"In {what}, {best} is best with {values[best]:.3f}. Clearly better than {against} "
            f"(p < {ALPHA}, paired over images): {counted(better, 'method')}; clearly worse: {worse}."
        )
    return made


def _plain(words: str) -> str:
    """Words of a Markdown table without its marks."""
    return words.replace("**", "").replace("`", "")


def _cell(made: Entry) -> Cell:
    return Cell(f"{made.text} {made.mark}".rstrip(), made.interval, made.differs)


def _lists(comparison: Comparison) -> list[Section]:
    from synbrain import __version__

    scores, about = comparison.scores, comparison.about
    methods = [(name, words) for name, words in about.methods.items() if name in scores.rows]
    made = [Section("Methods", items=methods, folded=True)] if methods else []
    if comparison.failed:
        made.append(Section("Failed", items=list(comparison.failed.items())))
    if about.skipped:
        made.append(Section("Left out", items=list(about.skipped.items())))
    facts = {
        "made": datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        "synbrain": __version__,
        "command": about.command,
        "seeds": ", ".join(map(str, about.seeds)),
        "encoder": about.encoder,
        "layers": ", ".join(about.layers or []),
    }
    return [*made, Section("Provenance", items=[(key, str(value)) for key, value in facts.items() if value])]
