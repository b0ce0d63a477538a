"""What commands print about what a library function returned: ``tell(result, typed)``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synbrain.describe import counted
from synbrain.files import read_json

if TYPE_CHECKING:
    from synbrain.analysis.consistency_report import Consistency
    from synbrain.comparison.compare import Comparison
    from synbrain.data.dataset import Dataset
    from synbrain.decoding.decoder import Decoder
    from synbrain.decoding.pictures.reconstruct import Reconstruction
    from synbrain.decoding.scores import DecoderScores
    from synbrain.features.format import Written
    from synbrain.model.synbrain import SynBrain
    from synbrain.prepare.nsd.download import Fetched
    from synbrain.tuning.write import Tuned
    from synbrain.viewer.report import WrittenReport

Typed = dict[str, Any]


def simulated(result: None, typed: Typed) -> None:
    """A simulated tree."""
    print(
        f"{typed['out']}: {typed['subjects']} simulated subject(s), size {typed['size']}, "
        f"noise {typed['noise']}, seed {typed['seed']}"
    )


def prepared(dataset: Dataset, typed: Typed) -> None:
    """What a prepared dataset holds, and what was noticed while it was made."""
    info, (one, several) = dataset.info, dataset.space.unit_words
    n_train, n_test = (len(dataset.image_rows(split)) for split in ("train", "test"))
    print(
        f"{info.name}: {counted(info.n_trials, 'trial')} x {counted(info.n_voxels, one, several)}, "
        f"unit {info.unit}; {n_train} training and {counted(n_test, 'test image')} -> {dataset.path}"
    )
    if info.provenance.get("pictures"):
        print(info.provenance["pictures"])
    constant = info.provenance.get("constant_voxels") or []
    if constant:
        shown = ", ".join(map(str, constant[:8])) + (", ..." if len(constant) > 8 else "")
        which = counted(len(constant), f"{one} never varies", f"{several} never vary")
        print(f"{which} over the training trials (kept, ncsnr 0): {shown}")
    for note in info.provenance.get("notes") or []:
        print(note)


def encoded(made: Written, typed: Typed) -> None:
    """How many images were encoded, and how fast; one process of several speaks."""
    if not made.is_main:
        return
    options = typed.get("options")  # the demo has none
    if options is not None and options.tokens is not None:
        print(f"{made.folder}: {counted(made.n_images, 'image')}, {made.n_bytes / 1e6:.1f} MB, of that file")
    elif made.n_encoded:
        rate = made.n_encoded / made.seconds
        print(
            f"{made.folder}: {counted(made.n_images, 'image')}, {made.n_bytes / 1e6:.1f} MB; "
            f"encoded {made.n_encoded} in {made.seconds:.1f} s ({rate:.1f} images/s in this process)"
        )
    else:
        print(f"{made.folder}: {counted(made.n_images, 'image')}, nothing was missing")


def trained(model: SynBrain, typed: Typed) -> None:
    """How well a new run does on held-out training images."""
    if not _speaks():
        return
    assert model.report is not None
    _tell_fit(model)
    print(f"run -> {typed['out']}")


def _tell_fit(model: SynBrain) -> None:
    """How well each subject is predicted on training images that were held out."""
    assert model.report is not None
    for name, figures in model.report.subjects.items():
        linear = model.subjects[name].linear
        crossed = figures.cross_validated_r_linear
        if crossed is None and linear is not None:
            crossed = linear.about.get("cross_validated_r")
        parts = []
        if figures.n_validation_images:
            r = "undefined" if figures.validation_r is None else f"{figures.validation_r:.3f}"
            parts.append(f"{r} on {counted(figures.n_validation_images, 'validation image')}")
            if figures.validation_r_linear is not None:
                parts[0] += f" ({figures.validation_r_linear:.3f} by the linear path alone)"
        if crossed is not None:
            about = model.config.adaptation
            which = "all training images" if about is None else f"the {about.n_images} images"
            parts.append(f"{crossed:.3f} by the linear path cross-validated on {which}")
        print(f"{name}: voxel_r {', '.join(parts)}")


def adapted(model: SynBrain, typed: Typed) -> None:
    """On how much data a run was adapted, what of it was trained, and how well it does."""
    if not _speaks():
        return
    about = model.config.adaptation
    assert about is not None
    assert model.report is not None
    print(f"adapted on {about.n_images} images, {about.n_trials} trials ({about.budget})")
    if any((counts := about.updated_parameters).values()):
        print(f"parameters trained further: VAE {counts['vae']:,} (whole), mapper {counts['mapper']:,}")
    _tell_fit(model)
    print(f"run -> {typed['out']}")


def calibrated(model: SynBrain, typed: Typed) -> None:
    """What was fitted of both uncertainties."""
    from synbrain.data.dataset import load_dataset
    from synbrain.model.subject import part_of

    part = part_of(model, load_dataset(typed["dataset"]), typed["subject"])
    assert part.noise is not None
    record = part.noise.record.model_dump(exclude_none=True)
    figures = {key: _short(value) for key, value in record.items() if not isinstance(value, dict)}
    what = "trial noise" if part.noise.record.error_kept else "trial noise and error of the mean"
    print(f"{what} of {part.name} refitted: " + ", ".join(f"{k} {v}" for k, v in figures.items()))
    print(f"run -> {typed['out']}")


def imported(model: SynBrain, typed: Typed) -> None:
    """Sizes of a run that was made of published checkpoints."""
    assert model.vae is not None
    assert model.mapper is not None
    counts = [sum(p.numel() for p in network.parameters()) / 1e6 for network in (model.vae, model.mapper)]
    sizes = model.mapper.config
    print(f"{typed['out']}: VAE of {counts[0]:.1f} M parameters, mapper of {counts[1]:.1f} M,")
    space = model.subject().space
    n_units = counted(space.n_voxels, *space.unit_words)
    print(f"  {sizes.tokens} tokens x {sizes.dim}, {sizes.heads} heads, {n_units}")


def decoder(made: Decoder, typed: Typed) -> None:
    """A decoder that was written."""
    space = made.space
    print(
        f"{typed['out']}: {made.config.kind} decoder of {', '.join(made.subjects)}, "
        f"{counted(made.n_voxels, 'voxel')} in {made.unit} to {space.n_tokens} x {space.dim} tokens of "
        f"{space.encoder}"
    )
    if made.config.validation:
        of = " (fitted without them; the decoder was then fitted to all)" if made.config.last_fit else ""
        scores = made.config.validation.items()
        shown = [f"{k} {v:.4g}" for k, v in scores if k != "score" and not k.startswith("log_rank")]
        print(f"validation images{of}: {', '.join(shown)}")  # the others are what a step is chosen by


def decoded(scores: DecoderScores, typed: Typed) -> None:
    """Scores of a decoder."""
    about = scores.about
    print(scores.table())
    print(
        f"{counted(about.n_test_images, 'test image')}, {about.n_way}-way, {counted(about.n_draws, 'draw')}"
    )
    if about.is_synthetic_data:
        print(f"measured here are synthetic trials: {about.dataset} was made by a model")
    if about.trained_on_synthetic_trials:
        print("the decoder was trained on synthetic trials besides measured ones")


def decoders_compared(table: dict[str, Any], typed: Typed) -> int:
    """The paper's table of decoders; the exit code is 1 where one of them failed."""
    from synbrain.decoding.experiments.compare import table_of

    print(table_of(table))
    for name, problem in table["failed"].items():
        print(f"{name} failed: {problem}")
    print(f"table -> {typed['out']}/table.md, {typed['out']}/table.json")
    return 1 if table["failed"] else 0


def augmentation_curve(curve: dict[str, Any], typed: Typed) -> int:
    """The points of a curve of synthetic hours, and its pictures, which are written here.

    The exit code is 1 where a decoder failed.
    """
    from synbrain.figures.augmentation import augmentation_figure, worth_figure
    from synbrain.figures.style import save_png

    out: Path = typed["out"]
    written = [out / "curve.json", out / "curve.png"]
    save_png(augmentation_figure(curve), out / "curve.png")
    (out / "worth.png").unlink(missing_ok=True)  # of an earlier curve
    worth = worth_figure(curve)
    if worth is not None:
        save_png(worth, out / "worth.png")
        written.append(out / "worth.png")
    for point in curve["points"]:
        gained = ""
        if "two_way_gain" in point:
            low, high = point["two_way_gain_interval"]
            gained = f"  gain in two-way {point['two_way_gain']:+.4f} [{low:+.4f}, {high:+.4f}]"
        print(
            f"{point['arm']:>14} {point['hours']:>5g} h  images {point['images_ranked']:.3f}  brains "
            f"{point['brains_ranked']:.3f}  two-way {point['two_way']:.3f}{gained}"
        )
    for name, problem in curve["failed"].items():
        print(f"{name} failed: {problem}")
    print("curve -> " + ", ".join(map(str, written)))
    return 1 if curve["failed"] else 0


def adaptation_curve(curve: dict[str, Any], typed: Typed) -> None:
    """The table of an adaptation curve, and its picture, which is written here."""
    from synbrain.comparison.adaptation_curve import curve_table
    from synbrain.figures.adaptation import curve_figure
    from synbrain.figures.style import save_png

    out: Path = typed["out"]
    save_png(curve_figure(curve), out / "curve.png")
    print(curve_table(curve))
    print(f"curve -> {out / 'curve.json'}, {out / 'table.md'}, {out / 'curve.png'}")


def consistent(made: Consistency, typed: Typed) -> None:
    """The tables of a subject's consistency; its picture and page are written here."""
    from synbrain.figures.consistency import consistency_figure
    from synbrain.figures.style import save_png
    from synbrain.viewer.consistency_page import write_consistency_page

    out: Path = typed["out"]
    save_png(consistency_figure(made), out / "consistency.png")
    page = write_consistency_page(out, made)
    print(made.table())
    print(f"consistency -> {out / 'consistency.json'}, {out / 'table.md'}, {out / 'consistency.png'}")
    print(f"page -> {page}")


def downloaded(made: Fetched, typed: Typed) -> None:
    """How much was fetched, and what comes next."""
    if typed["dry_run"]:
        return
    dest = typed["dest"]
    print(
        f"{len(made.fetched)} files fetched ({made.n_bytes / 1e9:.3f} GB), {len(made.present)} were there; "
        f"all {len(made.plan.files)} verified in {dest}"
    )
    print(f"next: synbrain prepare nsd {dest} OUT --subject {typed['subjects'][0]}")


def reconstructed(made: Reconstruction, typed: Typed) -> None:
    """Where decoded pictures lie; the picture of all of them is written here."""
    from synbrain.figures.decoded import decoded_figure
    from synbrain.figures.style import save_png

    picture = typed["out"] / "decoded.png"
    save_png(decoded_figure(made.rows, made.names), picture)
    print(f"decoded pictures -> {picture}")


def augmented(made: Dataset, typed: Typed) -> None:
    """A synthetic dataset."""
    assert made.info.synthetic is not None
    print(
        f"{made.path}: {counted(made.n_trials, 'synthetic trial')} ({made.info.synthetic.kind}) of "
        f"{made.n_images} "
        f"images in {made.info.unit}"
    )


def responses(written: list[Path], typed: Typed) -> None:
    """Files of responses to images, and the sidecar that says what they are."""
    about = read_json(written[-1])
    n_samples = about.get("n_samples")
    what = "expected responses" if n_samples is None else f"{counted(n_samples, 'trial')} an image"
    images = counted(len(about["images"]), "image")
    print(f"{what} of {images} ({about['unit']}): {' and '.join(map(str, written))}")


def compared(comparison: Comparison, typed: Typed) -> int:
    """Write and print the table of a comparison and its pictures; exit code 1 where a method failed."""
    from synbrain.comparison.results import stored_curves
    from synbrain.comparison.table import write_table
    from synbrain.figures.comparison import comparison_dots
    from synbrain.figures.style import save_png
    from synbrain.figures.training import autoencoder_curves
    from synbrain.viewer.comparison_page import write_comparison_page

    out: Path = typed["out"]
    words = write_table(comparison, out)
    save_png(comparison_dots(comparison.scores), out / "comparison.png")
    pictures = ["comparison.png"]
    (out / "training_curves.png").unlink(missing_ok=True)  # of an earlier comparison: the page would show it
    if curves := stored_curves(out, comparison.scores.rows):
        save_png(autoencoder_curves(curves), out / "training_curves.png")
        pictures.append("training_curves.png")
    page = write_comparison_page(out, comparison)
    print(words)
    for name, problem in comparison.failed.items():
        print(f"{name} failed: {problem}")
    files = ", ".join(str(out / name) for name in ("table.md", "table.json", *pictures))
    print(f"table -> {files}")
    print(f"page -> {page}")
    return 1 if comparison.failed else 0


def reported(made: WrittenReport, typed: Typed) -> None:
    """The scores of a report, and where its page lies."""
    from synbrain.evaluation.table import terminal

    print(terminal(made.scores))
    if made.card:
        print(made.card)
    print(f"report -> {made.page}")


def _speaks() -> bool:
    """Whether this is the one of several processes that prints."""
    return os.environ.get("RANK", "0") == "0"


def _short(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def tuned(made: Tuned, typed: Typed) -> None:
    """How well images held out of a tuning are predicted, and how to go on; one process of several speaks."""
    if not made.is_main:
        return
    for d in made.config["datasets"]:
        print(
            f"{d['name']}: voxel_r {d['held_out_r']:.3f} on {d['images_held_out']} training images held out "
            f"({d['images_tuned_on']} tuned on, {counted(d['units'], 'unit')})"
        )
    layers = " ".join(made.encoder.layers)
    print(
        f"{made.encoder.name} -> {typed['out']}; next: synbrain features DATASET --encoder {typed['out']} "
        f"--layers {layers}"
    )
