"""The model card of a run: what it was fitted on, how good it is, and how far its calibration holds."""

from __future__ import annotations

from typing import Any

import numpy as np

from synbrain.markdown import markdown_table
from synbrain.model.parts import RunParts, SubjectPart


def model_card(run: RunParts, scores: dict[str, Any] | None = None) -> str:
    """Markdown for ``README.md`` of a run folder.

    Args:
        run: its parts.
        scores: content of ``scores.json`` ("scores" -> row -> metric -> number), where it was evaluated.
    """
    sections = [
        _head(run),
        *(_subject(subject, run.vae is not None) for subject in run.subjects.values()),
        _scores(scores),
        _use(run.subjects),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _head(run: RunParts) -> str:
    config = run.config
    tags = "---\nlibrary_name: synbrain\ntags: [fMRI, encoding-model, visual-cortex]\n---"
    sizes = {"BrainVAE": run.vae, "mapper": run.mapper}
    networks = [
        f"{name} {sum(p.numel() for p in module.parameters()) / 1e6:.2f} M parameters"
        for name, module in sizes.items()
        if module is not None
    ]
    rows = {
        "recipe": config.recipe,
        "encoder": f"{config.encoder} (digest {config.encoder_digest[:12]})",
        "layers of the linear path": ", ".join(config.linear_layers) or "none",
        "layer of the mapper": config.mapper_layer or "none",
        "networks": "; ".join(networks) or "none",
        "subjects": ", ".join(run.subjects),
        "seeds": ", ".join(map(str, config.seeds)),
    }
    return f"{tags}\n\n# SynBrain run: images to synthetic brain responses\n\n" + _table(rows)


def _subject(subject: SubjectPart, has_networks: bool) -> str:
    where = "no positions" if subject.space.kind == "none" else subject.space.kind
    rows: dict[str, Any] = {"voxels": f"{subject.n_voxels} ({where})", "unit": subject.unit}
    if has_networks:
        weight = float(np.mean(subject.shrink))
        rows["weight of the networks beside the linear path"] = f"{weight:.2f} on average"
    if subject.linear is not None:
        rows |= {
            f"linear path: {key.replace('_', ' ')}": _short(v) for key, v in subject.linear.about.items()
        }
    text = f"## Subject {subject.name}\n\n{_table(rows)}"
    if subject.noise is None:
        return (
            text + "\n\nNo trial noise was fitted: `sample` repeats the mean unless `noise_factor` is given."
        )
    noise = subject.noise
    record = noise.record.model_dump(exclude_none=True)
    rows = {"told apart by": record.pop("source")}
    rows |= {key.replace("_", " "): _short(value) for key, value in record.items()}
    text += f"\n\n### Trial noise and error of the mean\n\n{_table(rows)}"
    if noise.record.source != "repeats":
        text += (
            "\n\nNo image was repeated, so trial noise and errors of the mean could not be told apart on "
            "this subject's own trials: `sample` may vary too much or too little, intervals do not."
        )
    return text + (
        "\n\nCoverage is that of intervals around cross-fitted means of training images of this subject. It "
        "says nothing about other subjects, scanners or kinds of images."
    )


def _scores(scores: dict[str, Any] | None) -> str:
    if not scores or not scores.get("scores"):
        return "## Scores\n\nNot evaluated yet: run `synbrain evaluate`."
    rows: dict[str, dict[str, Any]] = scores["scores"]
    metrics = [m for m in dict.fromkeys(m for row in rows.values() for m in row)][:12]
    body = [[name, *(_short(row.get(metric, "")) for metric in metrics)] for name, row in rows.items()]
    about = (
        f"{scores.get('n_test_images', '?')} test images of {scores.get('dataset', '?')}, "
        f"{scores.get('n_samples', '?')} trials an image, seed {scores.get('seed', '?')}. "
        f"{_targets(scores, metrics)}"
    )
    return "\n".join(["## Scores on test images", "", about, "", *markdown_table(["row", *metrics], body)])


def _targets(scores: dict[str, Any], metrics: list[str]) -> str:
    """What the metrics that are shown were measured against."""
    by_metric: dict[str, str] = scores.get("targets", {})
    means = [metric for metric in metrics if by_metric.get(metric) == "repeat_mean"]
    if not means:
        return f"Target: {scores.get('target', '?')}."
    return f"Measured against single trials; {', '.join(means)} against the mean of an image's trials."


def _use(subjects: dict[str, SubjectPart]) -> str:
    argument = "" if len(subjects) == 1 else f", subject={next(iter(subjects), '')!r}"
    return (
        "## Use\n\n```python\nfrom synbrain import SynBrain\nmodel = SynBrain.from_pretrained(FOLDER)\n"
        f"mean = model.predict(images{argument})            # (n_images, n_voxels)\n"
        f"trials = model.sample(images, n_samples=20{argument})  # (20, n_images, n_voxels)\n"
        f"low, high = model.interval(images, 0.9{argument})  # of a new trial\n```"
    )


def _table(rows: dict[str, Any]) -> str:
    return "\n".join(
        markdown_table(["", ""], ([key, str(value)] for key, value in rows.items()), numbers=False)
    )


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_short(inner)}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_short(inner) for inner in value)
    return "" if value is None else str(value)
