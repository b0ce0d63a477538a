"""A comparison in words: Markdown tables with intervals, what differs from ridge in bold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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
    about = scores.about
    lines = [f"# Comparison on {about.get('dataset', 'dataset')}", "", header(scores), ""]
    if "command" in about:
        lines += [f"    {about['command']}", ""]
    lines += [legend(about), ""]
    for title, columns in TABLES.items():
        lines += _table(title, columns, scores)
    lines += _against_gaussian(about)
    lines += _against_base(about)
    lines += _list("Methods", {n: w for n, w in about.get("methods", {}).items() if n in scores.rows})
    lines += _list("Failed", comparison.failed)
    lines += _list("Left out", about.get("skipped", {}))
    return "\n".join(lines).rstrip()


def legend(about: dict[str, Any]) -> str:
    """How to read values, intervals and bold."""
    n_seeds = len(about.get("seeds", [0]))
    over = "test images" if n_seeds < 2 else f"test images and {n_seeds} seeds"
    return (
        f"Means over seeds [95 % interval over {over}]. **Bold**: differs from "
        f"{about.get('against', 'ridge')} (paired bootstrap, Holm-corrected over methods, p < {ALPHA}), "
        "▲ to the better, ▼ to the worse; metrics without a test are never bold."
    )


def cell(scores: Scores, name: str, metric: str) -> str:
    """One value with its interval; bold where it differs from the row that all are compared with."""
    score = scores.rows[name].get(metric)
    if score is None or score.value is None:
        return "-"
    text = f"{score.value:.3f}"
    tested = scores.differences.get(name, {}).get(metric)
    if tested is not None and tested["p_holm"] < ALPHA and tested["difference"] != 0:
        better = (tested["difference"] > 0) != (metric in SMALLER_IS_BETTER)
        text = f"**{text}** {'▲' if better else '▼'}"
    if score.interval is not None:
        text += f" [{score.interval[0]:.3f}, {score.interval[1]:.3f}]"
    return text


def _table(title: str, columns: dict[str, str], scores: Scores) -> list[str]:
    def known(name: str, metric: str) -> bool:
        score = scores.rows[name].get(metric)
        return score is not None and score.value is not None

    shown = {m: words for m, words in columns.items() if any(known(name, m) for name in scores.rows)}
    names = [name for name in scores.rows if any(known(name, m) for m in shown)]
    if not shown:
        return []
    rows = ([name, *(cell(scores, name, m) for m in shown)] for name in names)
    table = markdown_table(["method", *shown.values()], rows)
    return [f"## {title}", "", WORDS[title], "", *table, ""]


def _against_gaussian(about: dict[str, Any]) -> list[str]:
    apart = about.get("differences_from_ridge_gaussian", {})
    title = "Distribution scores against ridge with Gaussian residuals"
    words = "Differences from ridge_gaussian [95 % interval]; negative is better; bold as above."
    return _apart(title, words, apart, {"crps": "CRPS", "energy_score": "energy"})


def _against_base(about: dict[str, Any]) -> list[str]:
    apart = about.get("differences_from_base", {})
    words = (
        "Differences from the row that each changes (`synbrain` where the name begins so, else `reference`) "
        "[95 % interval over test images and seeds], corrected among that row's ablations; bold as above."
    )
    columns = {"voxel_r": "voxel r", "pearson": "Pearson", "mse": "MSE", "skill": "skill", "crps": "CRPS"}
    return _apart("What each ablation changes", words, apart, columns)


def difference_cell(entry: dict[str, Any] | None, digits: int = 4) -> str:
    """A difference with its 95 % interval; bold where Holm's p is below ``ALPHA``."""
    if entry is None:
        return "-"
    low, high = entry["interval"]
    text = f"{entry['difference']:+.{digits}f}"
    differs = entry["p_holm"] < ALPHA and entry["difference"] != 0
    return f"{f'**{text}**' if differs else text} [{low:+.{digits}f}, {high:+.{digits}f}]"


def _apart(
    title: str, words: str, apart: dict[str, dict[str, dict[str, Any]]], columns: dict[str, str]
) -> list[str]:
    """A table of differences; nothing where there are none."""
    if not apart:
        return []
    rows = ([name, *(difference_cell(row.get(metric)) for metric in columns)] for name, row in apart.items())
    table = markdown_table(["method", *columns.values()], rows)
    return [f"## {title}", "", words, "", *table, ""]


def _list(title: str, entries: dict[str, str]) -> list[str]:
    if not entries:
        return []
    return [f"## {title}", "", *(f"- {name}: {text}" for name, text in entries.items()), ""]
