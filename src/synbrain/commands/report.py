"""``synbrain report``: a run and a dataset to scores and one page of pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from synbrain.arrays import Float32, Rows

if TYPE_CHECKING:
    from PIL import Image

    from synbrain.data.dataset import Dataset

TRAINING_LOG = "training/log.jsonl"


def report(
    run: Path,
    dataset: Path,
    *,
    out: Path,
    samples: int = 40,
    seed: int = 0,
    mni: bool = False,
    title: str = "SynBrain report",
    overwrite: bool = False,
) -> None:
    """Score a run on a dataset and write a self-contained page with tables and pictures.

    Args:
        run: folder of a trained run.
        dataset: folder of a prepared dataset with tokens of the run's encoder and test images.
        out: folder for report.html, scores.json and figures/*.png.
        samples: synthetic trials per test image.
        seed: of synthetic trials, baselines and bootstrap.
        mni: the voxel positions are in MNI space, so draw maps on the fsaverage cortex.
        title: heading of the page.
        overwrite: replace an existing report.
    """
    from synbrain.data.dataset import load_dataset
    from synbrain.errors import SynBrainError
    from synbrain.evaluation.evaluate import evaluation_of
    from synbrain.evaluation.options import EvaluateOptions
    from synbrain.evaluation.table import terminal
    from synbrain.figures.report import Shown
    from synbrain.files import require_absent
    from synbrain.model.folder import refresh_card
    from synbrain.model.synbrain import SynBrain
    from synbrain.training.overrides import overridden
    from synbrain.viewer.report import Report, write_report

    if out.is_file():
        raise SynBrainError(f"{out} is a file", "name a folder for the page and its pictures")
    for path in (out / "report.html", out / "scores.json"):
        require_absent(path, overwrite)
    model, recordings = SynBrain.from_pretrained(run), load_dataset(dataset)
    options = overridden(EvaluateOptions(), {"samples": samples, "seed": seed})
    evaluation = evaluation_of(model, recordings, options, summary=True, show_progress=True)
    scores, measured = evaluation.scores, evaluation.measured
    print(terminal(scores))
    scores.save(out / "scores.json", overwrite=overwrite)
    print(refresh_card(run, scores.to_json()))

    def draw(images: Rows) -> Float32:
        tokens = measured.test.tokens.take(images)
        return model.sample(tokens, samples, seed, subject=evaluation.subject)

    def predictive(images: Rows) -> Float32:
        tokens = measured.test.tokens.take(images)
        return model.sample(tokens, samples, seed, subject=evaluation.subject, predictive=True)

    row = evaluation.rows["synbrain"]
    shown = Shown(
        test=measured.test,
        predictions={name: evaluation.predictions[name] for name in ("synbrain", "ridge")},
        space=recordings.space,
        unit=recordings.info.unit,
        in_mni=mni,
        training_mean=measured.mean,
        draw=draw,
        predictive=predictive,
        stimulus=_stimulus(recordings),
        trials=row.trials,
        variance_ratio=row.per_voxel.get("variance_ratio"),
    )
    command = f"synbrain report {run} {dataset} --out {out} --samples {samples} --seed {seed}"
    command += " --mni" if mni else ""
    page = Report(title, model, run, recordings, evaluation, shown, command, run / TRAINING_LOG, mni)
    write_report(out, page)
    print(f"report -> {out / 'report.html'}")


def _stimulus(dataset: Dataset) -> Callable[[int], Image.Image] | None:
    """Position of a test image -> its picture; None where the stimuli lie elsewhere by now."""
    from synbrain.errors import SynBrainError

    rows = dataset.image_rows("test")
    try:
        dataset.load_image(int(rows[0]))
    except SynBrainError:
        return None
    return lambda position: dataset.load_image(int(rows[position]))
