"""The report on a run: what was found, with the figures behind it, as one page that opens anywhere."""

from __future__ import annotations

import base64
import datetime
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from synbrain.data.dataset import Dataset
from synbrain.data.fsaverage import has_surface
from synbrain.data.space import VoxelSpace
from synbrain.describe import counted
from synbrain.errors import SynBrainError
from synbrain.evaluation.evaluate import Evaluation
from synbrain.evaluation.scores import Scores
from synbrain.evaluation.table import explanations, header, of_fewer_images
from synbrain.figures.report import Drawn, Shown, draw_pictures, noticeable_rois
from synbrain.files import write_text
from synbrain.model.parts import SubjectPart
from synbrain.model.synbrain import SynBrain
from synbrain.viewer.options import ReportOptions, ViewOptions
from synbrain.viewer.packing import picture
from synbrain.viewer.page import as_script_data, bundle, environment, exported
from synbrain.viewer.source import LEVEL, Source

if TYPE_CHECKING:
    from synbrain.viewer.decoded import DecodedPictures

N_CORTEX_IMAGES = 4
N_DECODED, DECODED_SIDE = 6, 112
BLOCK = 64  # images whose uncertainties are in memory at once
DECODED_FROM = {
    "measured mean": "mean over repeats",
    "measured trial": "one measured trial",
    "synthetic mean": "expected response",
    "synthetic trial": "one synthetic trial",
}
LEAST_WEIGHT = 0.005  # below it, 0.00 is printed: such networks take no part
SHOWN_SCORES = {
    "voxel_r": "voxel r",
    "voxel_r_fraction": "of ceiling",
    "skill": "skill",
    "response_retrieval": "retrieval",
    "pearson": "Pearson in a trial",
    "crps": "CRPS (small is good)",
    "variance_ratio": "variance ratio (1 is right)",
    "coverage_90": "90 % coverage",
    "noise_covariance_r": "noise covariance r",
}
SYSTEMS = ("synbrain", "ridge", "mean_map", "ceiling", "oracle")
SCORE_WORDS = (
    "Every column is scored on the same test images{}. The mean map ignores the image; ridge is the linear "
    "model on the same tokens; ceiling is what repeats of an image reach."
)


@dataclass(frozen=True)
class Report:
    """What a report tells of.

    Attributes:
        model: the run.
        run: its folder, or its id on the hub.
        dataset: what it was scored on.
        options: title, seed, whether the voxels lie in MNI space.
        evaluation: the scores and what they were made from.
        shown: the arrays behind the pictures.
        command: that made it, for the provenance.
        training_log: of the run, if there is one.
        decode: responses to pictures, where a decoder is given.
    """

    model: SynBrain
    run: Path
    dataset: Dataset
    options: ReportOptions
    evaluation: Evaluation
    shown: Shown
    command: str
    training_log: Path | None = None
    decode: DecodedPictures | None = None


def write_report(out: Path, report: Report) -> Path:
    """Write ``out/report.html`` and ``out/figures/*.png``; returns the page."""
    drawn = {plot.name: plot for plot in draw_pictures(out / "figures", report.shown, report.training_log)}
    scores, part = report.evaluation.scores, report.model.subject(report.evaluation.subject)
    rows, has_differences = _score_rows(scores)
    config, about = report.model.config, scores.about
    weight = float(np.mean(part.shrink)) if report.model.vae is not None else 0.0
    context = {
        "title": report.options.title,
        "lead": f"{report.run} on {about.dataset}; recipe {config.recipe}, encoder {config.encoder}.",
        "maps": _plot(drawn.pop("maps", None)),
        "training": _plot(drawn.pop("training", None)),
        "sections": [_plot(plot) for plot in drawn.values()],
        "sentences": sentences(scores, part, weight, is_unseen=report.evaluation.is_unseen),
        "systems": _systems(scores),
        "score_rows": rows,
        "score_words": SCORE_WORDS.format(
            ", which no model was fitted or tuned on" if report.evaluation.is_unseen else ""
        ),
        "has_differences": has_differences,
        "interval_words": "In brackets: 95 % intervals over test images. Differences are paired by image; "
        "p is two-sided and corrected for the number of systems. Clear differences all have the same p, the "
        "smallest that so many bootstrap samples can show.",
        "rois": _roi_rows(report),
        "uncertainties": _uncertainty_rows(report),
        "level": f"{100 * LEVEL:.0f} %",
        "unit": report.shown.unit,
        "decoded": None if report.decode is None else _decoded(report, report.decode),
        "parts": _parts(report.model, part, weight),
        "networks_weigh": weight >= LEAST_WEIGHT,
        "provenance": _provenance(report),
        "glossary": [header(scores), *explanations(scores)],
        "viewer_data": _cortex(report),
        "shown_as": _shown_as(report.dataset.space, report.options.mni),
        "unit_names": part.space.unit_names,
        "unit_name": part.space.unit_name,
        "css": Markup(bundle("viewer.css")),
        "js": Markup(bundle("viewer.js")),
    }
    write_text(out / "report.html", environment().get_template("report.html").render(**context))
    return out / "report.html"


def _shown_as(space: VoxelSpace, in_mni: bool) -> str:
    """What the interactive picture shows."""
    return "cortex" if has_surface(space, in_mni) else space.unit_names


def sentences(scores: Scores, part: SubjectPart, weight: float, *, is_unseen: bool) -> list[str]:
    """Three sentences: how well it predicts, against what, and how trials are calibrated and made."""
    about = scores.about
    ours, top = scores["synbrain"]["voxel_r"], scores["synbrain"]["voxel_r"].ceiling
    known = "" if top is None else f", where repeats allow {top:.3f}"
    low_high = "" if ours.interval is None else " (95 % interval {:.3f} to {:.3f})".format(*ours.interval)
    value = "undefined" if ours.value is None else f"{ours.value:.3f}"
    seen = "that the model never saw" if is_unseen else "(whether the model was trained on some is not known)"
    first = (
        f"Over {about.n_test_images} test images {seen}, its expected responses "
        f"correlate with the measured ones at {value}{low_high} in the mean over "
        f"{about.n_voxels} {part.space.unit_names}{known}."
    )
    paired = scores.differences.get("synbrain", {}).get("voxel_r")
    if paired is None:
        second = "It was not compared with ridge regression on the same tokens."
    else:
        low, high = paired["interval"]
        word = "more" if paired["difference"] > 0 else "less"
        sure = (
            "95 % interval over images" if low > 0 or high < 0 else "which the images cannot tell from none"
        )
        second = (
            f"That is {abs(paired['difference']):.3f} {word} than ridge regression on the same tokens "
            f"({low:+.3f} to {high:+.3f}, {sure})."
        )
        if fewer := of_fewer_images(scores):
            second += f" {fewer[0].upper()}{fewer[1:]}."
    cover = scores.value("synbrain", "coverage_90")
    ratio = scores.value("synbrain", "variance_ratio")
    if part.noise is None:
        third = "It has no trial noise: its trials are all alike."
    elif cover is None:
        third = "Its test images have one trial each, so the spread of its trials could not be checked."
    else:
        third = f"Its 90 % intervals hold {100 * cover:.0f} % of the measured trials"
        if ratio is not None:
            third += f"; within an image its trials vary {ratio:.2f} times as much as measured ones"
            if part.noise.record.source == "residuals":
                third += " (no training image was repeated, from which trial noise could be fitted)"
        third += "."
    if part.linear is not None and weight < LEAST_WEIGHT:
        third += (
            " The linear path makes every prediction; networks have no part in it, as is usual with few "
            "images (linear path: ridge regression with receptive fields, and patterns that "
            f"{part.space.unit_names} share)."
        )
    return [first, second, third]


def _systems(scores: Scores) -> list[str]:
    return [name for name in SYSTEMS if name in scores.rows]


def _score_rows(scores: Scores) -> tuple[list[dict[str, Any]], bool]:
    systems, rows = _systems(scores), []
    has_differences = bool(scores.differences.get("synbrain"))
    for metric, name in SHOWN_SCORES.items():
        if all(scores.value(system, metric) is None for system in systems):
            continue
        cells = []
        for system in systems:
            score = scores[system].get(metric)
            value = None if score is None else score.value
            interval = None if score is None or value is None else score.interval
            text = "" if interval is None else "[{:.3f}, {:.3f}]".format(*interval)
            cells.append({"value": _number(value), "interval": text, "ours": system == "synbrain"})
        paired = scores.differences.get("synbrain", {}).get(metric)
        difference = {"value": "", "interval": "", "p": ""}
        if paired is not None:
            difference = {
                "value": f"{paired['difference']:+.3f}",
                "interval": "[{:+.3f}, {:+.3f}]".format(*paired["interval"]),
                "p": f"p {paired['p_holm']:.3f}" if paired["p_holm"] >= 0.001 else "p < .001",
            }
        rows.append({"name": name, "cells": cells, "difference": difference})
    return rows, has_differences


def _number(value: float | None) -> str:
    return "–" if value is None or not np.isfinite(value) else f"{value:.3f}"


def _roi_rows(report: Report) -> list[dict[str, Any]]:
    rows = report.evaluation.rows
    r = rows["synbrain"].per_voxel["voxel_r"]
    others = {name: rows[name].per_voxel.get("voxel_r") for name in ("ridge", "ceiling") if name in rows}
    made = []
    for name, mask in noticeable_rois(report.dataset.space).items():
        inside = r[mask & np.isfinite(r)]
        if not len(inside):
            continue
        mean, se = (
            float(inside.mean()),
            float(inside.std(ddof=1) / np.sqrt(len(inside))) if len(inside) > 1 else 0.0,
        )
        beside = {
            k: float(np.nanmean(v[mask]))
            for k, v in others.items()
            if v is not None and np.isfinite(v[mask]).any()
        }
        top = beside.get("ceiling")
        made.append(
            {
                "name": name.split("/")[-1], "n": int(mask.sum()), "value": f"{mean:.3f}", "se": f"{se:.3f}",
                "ridge": _number(beside.get("ridge")), "ceiling": _number(top),
                "bar": f"{100 * max(mean, 0):.1f}", "low": f"{100 * max(mean - se, 0):.1f}",
                "spread": f"{200 * se:.1f}", "top": None if top is None else f"{100 * min(top, 0.99):.1f}",
            }
        )  # fmt: skip
    return made


def _uncertainty_rows(report: Report) -> list[dict[str, str]]:
    """Both uncertainties of a single voxel, mean over voxels and test images, of all voxels and each ROI."""
    noise = report.model.subject(report.evaluation.subject).noise
    if noise is None:
        return []
    tokens, mean = report.shown.test.tokens, report.evaluation.predictions["synbrain"]
    sums = np.zeros((3, noise.n_voxels))
    for start in range(0, len(mean), BLOCK):
        rows = np.arange(start, min(start + BLOCK, len(mean)))
        known = noise.predictive(np.asarray(mean[rows], dtype=np.float32), tokens.take(rows))
        low, high = known.interval(LEVEL)
        parts = (np.sqrt(noise.trial.variance(known.mean)), np.sqrt(known.error_variance), high - low)
        sums += [part.sum(axis=0, dtype=np.float64) for part in parts]
    per_voxel = sums / len(mean)
    groups = {"all": np.ones(noise.n_voxels, dtype=bool)} | noticeable_rois(report.dataset.space)
    made = []
    for name, mask in groups.items():
        trial, error, width = per_voxel[:, mask].mean(axis=1)
        made.append(
            {"name": name.split("/")[-1], "trial": f"{trial:.3f}", "error": f"{error:.3f}"}
            | {"width": f"{width:.3f}"}
        )
    return made


def _parts(model: SynBrain, part: SubjectPart, weight: float) -> list[dict[str, str]]:
    made = []
    figures = None if model.report is None else model.report.subjects.get(part.name)
    if part.linear is not None:
        alone = None if figures is None else figures.validation_r_linear or figures.cross_validated_r_linear
        words = f"tokens of {', '.join(part.linear.layers)}, {counted(len(part.linear.mixing), 'column')}"
        words += (
            "" if alone is None else f"; alone it reaches voxel r {alone:.3f} on held-out training images"
        )
        made.append({"name": "linear path", "weight": "1.00", "words": words})
    if model.vae is not None:
        words = "mapper and BrainVAE decoder" if model.mapper is not None else "BrainVAE decoder"
        whole = None if figures is None else figures.validation_r
        words += "" if whole is None else f"; with them voxel r is {whole:.3f} on held-out training images"
        alone = part.linear is None
        made.append({"name": "networks", "weight": "1.00" if alone else f"{weight:.2f}", "words": words})
    if part.noise is not None:
        record = part.noise.record
        words = f"{record.trial_factors} common factors, told apart by {record.source}; makes the trials"
        made.append({"name": "trial noise", "weight": "–", "words": words})
        words = f"{100 * record.error_over_trial_variance:.0f} % of the trial variance "
        words += f"(median {part.space.unit_name}), "
        words += f"{record.error_factors} common factors; with the trial noise it makes the intervals"
        made.append({"name": "error of the mean", "weight": "–", "words": words})
    return made


def _provenance(report: Report) -> dict[str, str]:
    from synbrain import __version__

    about, of_data = report.evaluation.scores.about, report.dataset.digest
    facts = {
        "made": datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        "synbrain": __version__,
        "command": report.command,
        "seed": str(about.seed),
        "synthetic trials an image": str(about.n_samples),
        "run": f"{report.run}, digest {report.model.digest[:16]}",
        "dataset": f"{report.dataset.path}" + (f", digest {of_data[:16]}" if of_data else ""),
        "recordings": f"{about.n_train_images} training and {about.n_test_images} test images, "
        f"{about.n_test_trials} test trials, {about.n_voxels} {report.shown.space.unit_names}, {about.unit}",
        "encoder": f"{report.model.config.encoder}, digest {report.model.config.encoder_digest[:16]}",
    }
    source = report.dataset.info.provenance.get("reader")
    return facts | ({"prepared by": str(source)} if source else {})


def _decoded(report: Report, decode: DecodedPictures) -> dict[str, Any]:
    """Test images that the seed draws, and what the decoder makes of responses to them."""
    table = decode.of_test_images(report.dataset, report.model, N_DECODED, report.options.seed)

    def cells(pictures: list[NDArray[Any]], what: str) -> list[dict[str, str]]:
        return [
            {"address": picture(Image.fromarray(p), DECODED_SIDE), "alt": f"test image {name}: {what}"}
            for name, p in zip(table.names, pictures, strict=True)
        ]

    kinds = []
    for kind, rows in table.kinds:
        made = [
            {
                "name": DECODED_FROM[title],
                "cells": cells(row, f"{kind.label}, decoded from the {DECODED_FROM[title]}"),
            }
            for title, row in rows.items()
        ]
        kinds.append({"label": kind.label, "words": kind.words, "rows": made})
    return {
        "seen": cells(table.seen, "as it was seen"),
        "kinds": kinds,
        "decoder": decode.decoder.config.kind,
    }


def _cortex(report: Report) -> Markup | None:
    """The interactive cortex with a few test images; None where the stimuli cannot be read any more."""
    options = ViewOptions(subject=report.evaluation.subject, mni=report.options.mni, trials=2)
    try:
        data = exported(Source(report.model, report.dataset, options, report.decode), N_CORTEX_IMAGES)
    except SynBrainError:
        return None
    return as_script_data(data)


def _plot(drawn: Drawn | None) -> dict[str, str] | None:
    if drawn is None:
        return None
    content = base64.b64encode(drawn.path.read_bytes()).decode()
    return {
        "name": drawn.name, "heading": drawn.heading, "caption": drawn.caption, "alt": drawn.alt,
        "address": f"data:image/png;base64,{content}",
    }  # fmt: skip
