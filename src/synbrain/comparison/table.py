"""A comparison in words: Markdown tables with intervals, what differs from ridge in bold."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synbrain.comparison.about import ComparisonAbout
from synbrain.comparison.compare import Comparison
from synbrain.evaluation.scores import Scores
from synbrain.evaluation.table import COLUMNS, header
from synbrain.files import write_json, write_text
from synbrain.markdown import markdown_table

ALPHA = 0.05
SMALLER_IS_BETTER = ("mse", "crps", "energy_score")

DISTRIBUTION = ("crps", "energy_score", "variance_ratio", "coverage_50", "coverage_90", "noise_covariance_r")
# title -> metric -> heading
TABLES: dict[str, dict[str, str]] = {
    "Mean responses": {
        "voxel_r": "voxel r",
        "voxel_r_fraction": "of ceiling",
        "r2": "R2",
        "skill": "skill",
        "response_retrieval": "retrieval",
        "rdm_r": "RDM r",
    },
    "Trials as a distribution": {metric: COLUMNS[metric] for metric in DISTRIBUTION},
    "Published protocol": {
        "mse": "MSE",
        "pearson": "Pearson",
        "cosine": "cosine",
        "mse_repeat_mean": "MSE, mean",
        "pearson_repeat_mean": "Pearson, mean",
        "cosine_repeat_mean": "cosine, mean",
    },
    "Retrieval in the VAE's latent": {
        "raw_retrieval": "raw, images",
        "raw_retrieval_backward": "raw, responses",
        "syn_retrieval": "syn, images",
        "syn_retrieval_backward": "syn, responses",
    },
}
WORDS = {
    "Mean responses": (
        "voxel r: Pearson across test images per voxel, against the repeat mean, mean over voxels; of "
        "ceiling: mean voxel r over mean noise ceiling, reliable voxels; R2: the same voxels and target; "
        "skill: share of the mean map's squared error that is removed (single trials); retrieval: share of "
        "synthetic mean responses whose nearest measured response (z-scored voxels, all test images) is "
        "that of their own image; RDM r: representational dissimilarities of synthetic against measured "
        "responses."
    ),
    "Trials as a distribution": (
        "CRPS and energy score of single test trials under predictive draws, in training sd, smaller is "
        "better; cover: share of measured trials inside the central 50 % or 90 % interval of predictive "
        "draws; var. ratio: variance of synthetic over that of measured trials within an image, median over "
        "voxels, 1 is right; noise cov. r: correlation of off-diagonal noise covariances of synthetic and "
        "measured trials. SynBrain parts predictive draws (trial noise and error of the mean) from trials "
        "(noise alone); the draws of every other method stand for both. Methods without a distribution are "
        "point masses."
    ),
    "Published protocol": (
        "Across all voxels within one response, so mostly the static mean map: against single trials, and "
        "(`mean`) against the repeat mean. In the data's unit."
    ),
    "Retrieval in the VAE's latent": (
        "Top-1 by cosine of flattened latents and image tokens. images: each response ranks the images; "
        "responses: each image ranks the responses. raw: the measured repeat mean through the VAE's "
        "encoder; syn: the synthetic response through the encoder of the very VAE that made it, which is "
        "circular."
    ),
}


def write_table(comparison: Comparison, out: Path) -> str:
    """Write ``table.json`` and ``table.md`` into ``out``; returns the Markdown."""
    write_json(out / "table.json", comparison.to_json())
    words = markdown(comparison)
    write_text(out / "table.md", words + "\n")
    return words


def markdown(comparison: Comparison) -> str:
    """All tables, their words, and what failed or was left out."""
    scores = comparison.scores
    about = comparison.about
    lines = [f"# Comparison on {about.dataset}", "", header(scores), ""]
    if about.command is not None:
        lines += [f"    {about.command}", ""]
    lines += [legend(about), ""]
    for title, columns in TABLES.items():
        lines += _table(title, columns, scores)
    for apart in other_differences(about):
        lines += _apart(apart)
    lines += _list("Methods", {n: w for n, w in about.methods.items() if n in scores.rows})
    lines += _list("Failed", comparison.failed)
    lines += _list("Left out", about.skipped)
    return "\n".join(lines).rstrip()


def legend(about: ComparisonAbout) -> str:
    """How to read values, intervals and bold."""
    n_seeds = len(about.seeds)
    over = "test images" if n_seeds < 2 else f"test images and {n_seeds} seeds"
    return (
        f"Means over seeds [95 % interval over {over}]. **Bold**: differs from "
        f"{about.against} (paired bootstrap, Holm-corrected over methods, p < {ALPHA}), "
        "▲ to the better, ▼ to the worse; metrics without a test are never bold."
    )


@dataclass(frozen=True)
class Entry:
    """A value of a table in parts: text, interval as text or empty, whether it differs from the row that all
    are compared with, and then ▲ (better), ▼ (worse) or nothing.
    """

    text: str
    interval: str
    differs: bool
    mark: str = ""

    def __str__(self) -> str:
        text = f"**{self.text}**" if self.differs else self.text
        return " ".join(part for part in (text, self.mark, self.interval) if part)


NOTHING = Entry("-", "", differs=False)


def entry(scores: Scores, name: str, metric: str) -> Entry:
    """One value with its interval, and how it differs from the row that all are compared with."""
    score = scores.rows[name].get(metric)
    if score is None or score.value is None:
        return NOTHING
    tested = scores.differences.get(name, {}).get(metric)
    differs = tested is not None and tested["p_holm"] < ALPHA and tested["difference"] != 0
    mark = ""
    if differs and tested is not None:
        mark = "▲" if (tested["difference"] > 0) != (metric in SMALLER_IS_BETTER) else "▼"
    interval = "" if score.interval is None else "[{:.3f}, {:.3f}]".format(*score.interval)
    return Entry(f"{score.value:.3f}", interval, differs, mark)


def cell(scores: Scores, name: str, metric: str) -> str:
    """One value with its interval; bold where it differs from the row that all are compared with."""
    return str(entry(scores, name, metric))


def shown_table(columns: dict[str, str], scores: Scores) -> tuple[dict[str, str], list[str]]:
    """The columns and the rows of a table in which anything is known."""

    def known(name: str, metric: str) -> bool:
        return entry(scores, name, metric) is not NOTHING

    shown = {m: words for m, words in columns.items() if any(known(name, m) for name in scores.rows)}
    return shown, [name for name in scores.rows if any(known(name, m) for m in shown)]


def _table(title: str, columns: dict[str, str], scores: Scores) -> list[str]:
    shown, names = shown_table(columns, scores)
    if not shown:
        return []
    rows = ([name, *(cell(scores, name, m) for m in shown)] for name in names)
    table = markdown_table(["method", *shown.values()], rows)
    return [f"## {title}", "", WORDS[title], "", *table, ""]


@dataclass(frozen=True)
class Differences:
    """A table of differences from another row than that which all are compared with.

    Attributes:
        title, words: heading, and how to read it.
        columns: metric -> heading.
        rows: method -> metric -> difference, interval and p.
    """

    title: str
    words: str
    columns: dict[str, str]
    rows: dict[str, dict[str, dict[str, Any]]]


def other_differences(about: ComparisonAbout) -> list[Differences]:
    """Differences from ridge with Gaussian residuals, and of each ablation from what it changes, if any."""
    both = [
        Differences(
            "Distribution scores against ridge with Gaussian residuals",
            "Differences from ridge_gaussian [95 % interval]; negative is better; bold as above.",
            {"crps": "CRPS", "energy_score": "energy"},
            about.differences_from_ridge_gaussian,
        ),
        Differences(
            "What each ablation changes",
            "Differences from the row that each changes (`synbrain` where the name begins so, else "
            "`reference`) [95 % interval over test images and seeds], corrected among that row's ablations; "
            "bold as above.",
            {"voxel_r": "voxel r", "pearson": "Pearson", "mse": "MSE", "skill": "skill", "crps": "CRPS"},
            about.differences_from_base,
        ),
    ]
    return [table for table in both if table.rows]


def difference_entry(tested: dict[str, Any] | None, digits: int = 4) -> Entry:
    """A difference with its 95 % interval."""
    if tested is None:
        return NOTHING
    low, high = tested["interval"]
    differs = tested["p_holm"] < ALPHA and tested["difference"] != 0
    return Entry(f"{tested['difference']:+.{digits}f}", f"[{low:+.{digits}f}, {high:+.{digits}f}]", differs)


def difference_cell(tested: dict[str, Any] | None, digits: int = 4) -> str:
    """A difference with its 95 % interval; bold where Holm's p is below ``ALPHA``."""
    return str(difference_entry(tested, digits))


def _apart(apart: Differences) -> list[str]:
    rows = ([name, *(difference_cell(of.get(m)) for m in apart.columns)] for name, of in apart.rows.items())
    table = markdown_table(["method", *apart.columns.values()], rows)
    return [f"## {apart.title}", "", apart.words, "", *table, ""]


def _list(title: str, entries: dict[str, str]) -> list[str]:
    if not entries:
        return []
    return [f"## {title}", "", *(f"- {name}: {text}" for name, text in entries.items()), ""]
