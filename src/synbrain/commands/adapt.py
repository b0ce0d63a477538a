"""``synbrain adapt``: a trained model to a new subject, or the curve of its scores against the budget."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from synbrain.training.options import AdaptOptions, LinearOptions, MapperOptions, VAEOptions

if TYPE_CHECKING:
    from synbrain.data.dataset import Dataset
    from synbrain.model.synbrain import SynBrain

OF_BASE = AdaptOptions()


def adapt(
    run: Path,
    dataset: Path,
    *,
    out: Path,
    budget: str = "1h",
    by: Literal["session", "images"] = "session",
    update: Literal["mlp", "attention", "all", "none"] = "mlp",
    networks: bool = True,
    curve: str | None = None,
    draws: int = 5,
    full_run: Path | None = None,
    shared_test_images: Literal["refuse", "drop"] = "refuse",
    linear: LinearOptions = OF_BASE.linear,
    vae: VAEOptions = OF_BASE.vae,
    mapper: MapperOptions = OF_BASE.mapper,
    seed: int = 0,
    resume: bool = False,
    overwrite: bool = False,
) -> None:
    """Fit a trained model to a new subject with a part of its data; the base run is not touched.

    With --curve, score adaptation on several numbers of training images instead, beside ridge and a
    calibrated model from scratch on the same images, the base as it is, the mean map and the full-data model:
    OUT/curve.json and OUT/curve.png.

    Args:
        run: folder of the base run, or its id on the Hugging Face hub.
        dataset: the new subject's dataset, with tokens of the run's encoder.
        out: run folder to write; with --curve, the folder for its results.
        budget: 1h, a number or all; validation images come out of it.
        by: what a number counts: the first sessions as scanned, or images with all their repeats.
        update: what of the mapper is trained further (the VAE is, whole); mlp as published.
        networks: false leaves the networks out; the linear path and the noise remain (recipe calibrated).
        curve: numbers of distinct training images with commas between, such as 10,25,50,100,all.
        draws: with --curve, random draws of the images of each budget.
        full_run: with --curve, a run of this subject with all its data; trained on the spot if left out.
        shared_test_images: what to do about training images that are test images of a base subject.
        linear: settings of the linear path that differ from the recipe.
        vae: settings of stage 1 that differ from those of an adaptation.
        mapper: settings of stage 2 that differ from those of an adaptation.
        seed: of folds, held-out images, batches and noise; with --curve, of the first draw.
        resume: continue an adaptation that was interrupted.
        overwrite: replace what stands at out.
    """
    from synbrain.data.dataset import load_dataset
    from synbrain.files import require_absent
    from synbrain.model.synbrain import SynBrain
    from synbrain.training import adapt as library

    options = AdaptOptions(
        budget=budget, by=by, update=update, networks=networks, shared_test_images=shared_test_images,
        linear=linear, vae=vae, mapper=mapper, seed=seed,
    )  # fmt: skip
    base, new = SynBrain.from_pretrained(run), load_dataset(dataset)
    if not base.config.trained_images:
        print(f"note: {run} does not say which images it saw; make sure that no test image is among them")
    if curve is not None:
        require_absent(out, overwrite)
        full = None if full_run is None else SynBrain.from_pretrained(full_run)
        _curve(base, new, options, out, curve, draws, full)
        return
    adapted = library.adapt(
        base, new, options, out=out, resume=resume, overwrite=overwrite, show_progress=True
    )
    about = adapted.config.adaptation
    assert about is not None
    assert adapted.report is not None
    print(f"adapted on {about.n_images} images, {about.n_trials} trials ({about.budget})")
    if networks:
        counts = about.updated_parameters
        print(f"parameters trained further: VAE {counts['vae']:,} (whole), mapper {counts['mapper']:,}")
    for name, figures in adapted.report.subjects.items():
        known = figures.model_dump(exclude_none=True)
        print(name + ": " + ", ".join(f"{key} {_short(value)}" for key, value in known.items()))
    print(f"run -> {out}")


def _curve(
    base: SynBrain,
    dataset: Dataset,
    options: AdaptOptions,
    out: Path,
    budgets: str,
    draws: int,
    full: SynBrain | None,
) -> None:
    from synbrain.comparison.adaptation_curve import adaptation_curve, curve_table
    from synbrain.figures.adaptation import curve_figure
    from synbrain.figures.style import save_png
    from synbrain.files import write_json, write_text

    curve = adaptation_curve(
        base, dataset, budgets.split(","), options, draws=draws, full=full, show_progress=True
    )
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "curve.json", curve)
    write_text(out / "table.md", curve_table(curve))
    save_png(curve_figure(curve), out / "curve.png")
    print(curve_table(curve))
    print(f"curve -> {out / 'curve.json'}, {out / 'table.md'}, {out / 'curve.png'}")


def _short(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)
