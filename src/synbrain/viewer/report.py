"""``synbrain report``: a run and a dataset to scores and one page of pictures."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from synbrain.arrays import Float32, Rows
from synbrain.data.dataset import Dataset
from synbrain.errors import SynBrainError
from synbrain.evaluation.evaluate import Evaluation, evaluation_of
from synbrain.evaluation.options import EvaluateOptions
from synbrain.evaluation.scores import Scores
from synbrain.evaluation.table import terminal
from synbrain.features.encoder import pick_device
from synbrain.figures.report import Shown
from synbrain.files import alone, write_text
from synbrain.model.folder import fetch, refresh_card
from synbrain.model.synbrain import SynBrain
from synbrain.viewer.options import ReportOptions
from synbrain.viewer.report_page import Report, write_report
from synbrain.viewer.requirements import UNFINISHED, require_report

if TYPE_CHECKING:
    from PIL import Image

    from synbrain.viewer.decoded import DecodedPictures

TRAINING_LOG = "training/log.jsonl"
N_DRAWN = 40  # trials behind a shape of the picture of two voxels, however many are scored
AS_USUAL = ReportOptions()


@dataclass(frozen=True)
class WrittenReport:
    """What :func:`report` wrote.

    Attributes:
        page: ``report.html``.
        scores: as in ``scores.json`` beside it.
        card: where the run keeps its scores now, or which others it keeps; empty for a run of the hub.
    """

    page: Path
    scores: Scores
    card: str


def report(
    run: Path,
    dataset: Dataset,
    options: ReportOptions = AS_USUAL,
    *,
    out: Path,
    decoder: Path | None = None,
    device: str = "cpu",
    overwrite: bool = False,
    show_progress: bool = False,
) -> WrittenReport:
    """Score a run on a dataset and write a self-contained page with tables and pictures.

    The scores are those that `synbrain evaluate` gives. The run's own are kept where they were measured on
    other data or with other options.

    Args:
        run: folder of a trained run, or its id on the Hugging Face hub.
        dataset: with tokens of the run's encoder and test images.
        options: samples, seed, title.
        out: folder for report.html, scores.json and figures/*.png.
        decoder: folder of a decoder of the subject (synbrain decoder train); adds decoded pictures.
        device: where networks work: cpu, cuda, ..., or auto.
        overwrite: replace an existing report; not needed after an interruption.
        show_progress: show bars.

    Raises:
        SynBrainError: no test images, a decoder that does not fit, an output that exists or is being made.
    """
    if out.is_file():
        raise SynBrainError(f"{out} is a file", "name a folder for the page and its pictures")
    require_report(out, overwrite)
    with alone(out):
        place = pick_device(device)
        model = SynBrain.from_pretrained(run, device=place)
        decode = None if decoder is None else _decoded_pictures(decoder, dataset, str(place))
        scoring = EvaluateOptions(samples=options.samples, seed=options.seed)
        evaluation = evaluation_of(model, dataset, scoring, summary=True, show_progress=show_progress)
        try:
            write_text(out / UNFINISHED, "")
            evaluation.scores.save(out / "scores.json", overwrite=True)  # whether it may be was asked above
        except SynBrainError:  # what was computed is seen even where nothing can be written
            sys.stdout.write(terminal(evaluation.scores) + "\n")
            raise
        card = refresh_card(run, evaluation.scores.to_json(), replace=False) if run.is_dir() else ""
        command = f"synbrain report {run} {dataset.path} --out {out} {_words(options, decoder)}"
        page = Report(
            model=model,
            run=run,
            dataset=dataset,
            options=options,
            evaluation=evaluation,
            shown=_shown(model, dataset, evaluation, options),
            command=command,
            training_log=fetch(run) / TRAINING_LOG,
            decode=decode,
        )
        written = WrittenReport(write_report(out, page), evaluation.scores, card)
        (out / UNFINISHED).unlink(missing_ok=True)
        return written


def _words(options: ReportOptions, decoder: Path | None) -> str:
    """Options of the command line that make the same page."""
    words = f"--samples {options.samples} --seed {options.seed}" + (" --mni" if options.mni else "")
    if options.title != AS_USUAL.title:
        words += f" --title {shlex.quote(options.title)}"
    return words if decoder is None else f"{words} --decoder {decoder}"


def _decoded_pictures(decoder: Path, dataset: Dataset, device: str) -> DecodedPictures:
    from synbrain.decoding.decoder import Decoder
    from synbrain.viewer.decoded import DecodedPictures

    return DecodedPictures.of(Decoder.from_pretrained(decoder, device=device), dataset)


def _shown(model: SynBrain, dataset: Dataset, evaluation: Evaluation, options: ReportOptions) -> Shown:
    """What the pictures are drawn from."""
    measured, row = evaluation.measured, evaluation.rows["synbrain"]

    def draw(images: Rows) -> Float32:
        tokens = measured.test.tokens.take(images)
        return model.sample(tokens, N_DRAWN, options.seed, subject=evaluation.subject)

    def predictive(images: Rows) -> Float32:
        tokens = measured.test.tokens.take(images)
        return model.sample(tokens, N_DRAWN, options.seed, subject=evaluation.subject, predictive=True)

    return Shown(
        test=measured.test,
        predictions={name: evaluation.predictions[name] for name in ("synbrain", "ridge")},
        space=dataset.space,
        unit=dataset.info.unit,
        in_mni=options.mni,
        training_mean=measured.mean,
        draw=draw,
        predictive=predictive,
        stimulus=_stimulus(dataset),
        trials=row.trials,
        variance_ratio=row.per_voxel.get("variance_ratio"),
    )


def _stimulus(dataset: Dataset) -> Callable[[int], Image.Image] | None:
    """Position of a test image -> its picture; None where the stimuli lie elsewhere by now."""
    rows = dataset.image_rows("test")
    try:
        dataset.load_image(int(rows[0]))
    except SynBrainError:
        return None
    return lambda position: dataset.load_image(int(rows[position]))
