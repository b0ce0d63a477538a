"""``synbrain train``: datasets with tokens to a run."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from accelerate import PartialState

from synbrain.data.dataset import load_dataset
from synbrain.model.report import TrainingReport
from synbrain.training import train as library
from synbrain.training.options import LinearOptions, MapperOptions, NoiseOptions, TrainOptions, VAEOptions

OF_RECIPE = TrainOptions()


def train(
    datasets: list[Path],
    *,
    out: Path,
    recipe: Literal["calibrated", "reference"] = "calibrated",
    preset: str | None = None,
    encoder: str = "efficientnet-lite0",
    layers: list[str] | None = None,
    network_layer: str | None = None,
    scale: Literal["standardise", "raw"] | None = None,
    validation_fraction: float | None = None,
    subject_weights: dict[str, float] | None = None,
    shared_test_images: Literal["refuse", "drop"] = "refuse",
    keep_out: list[Path] | None = None,
    linear_path: bool | None = None,
    response_noise: bool | None = None,
    shrink: Literal["none", "subject", "voxel"] | None = None,
    linear: LinearOptions = OF_RECIPE.linear,
    noise: NoiseOptions = OF_RECIPE.noise,
    vae: VAEOptions = OF_RECIPE.vae,
    mapper: MapperOptions = OF_RECIPE.mapper,
    seed: int = 0,
    tensorboard: bool = False,
    resume: bool = False,
    overwrite: bool = False,
) -> None:
    """Fit one model on one subject or several.

    Values that are not given come from the recipe. Ctrl-C (or SIGTERM) writes a checkpoint; the same
    command with --resume continues exactly. Start it with `accelerate launch` or `torchrun` for several GPUs.

    Args:
        datasets: dataset folders, one per subject, with tokens of one encoder (`synbrain features`).
        out: the run folder to write.
        recipe: `calibrated` (a linear path, networks and trial noise) or `reference` (as published).
        preset: sizes of the networks; the recipe's if left out.
        encoder: whose tokens to train on.
        layers: token layers to use; all that were made if left out.
        network_layer: the layer that the networks read; the last if left out.
        scale: standardise responses, or take them as they are.
        validation_fraction: share of the training images held out for early stopping.
        subject_weights: how often each subject is drawn, as {"name": weight}; by trials if left out.
        shared_test_images: what to do about training images that are test images of another dataset.
        keep_out: further datasets, not trained on, whose test images are left out (to adapt to them later).
        linear_path: whether the mean has a linear path.
        response_noise: whether trial noise is fitted.
        shrink: one factor on the networks' part per subject, one per voxel, or none.
        linear: settings of the linear path that differ from the recipe.
        noise: settings of the trial noise that differ from the recipe.
        vae: settings of stage 1 that differ from the recipe.
        mapper: settings of stage 2 that differ from the recipe.
        seed: of weights, batches, noise and the held-out images.
        tensorboard: also write metrics for TensorBoard.
        resume: continue a training that was interrupted.
        overwrite: replace a run that stands there.
    """
    options = TrainOptions(
        recipe=recipe, preset=preset, encoder=encoder, layers=layers, network_layer=network_layer,
        scale=scale, validation_fraction=validation_fraction, subject_weights=subject_weights,
        shared_test_images=shared_test_images, linear_path=linear_path, response_noise=response_noise,
        shrink=shrink, linear=linear, noise=noise, vae=vae, mapper=mapper, seed=seed, tensorboard=tensorboard,
    )  # fmt: skip
    config, process = options.config(), PartialState()
    halves = "fp16" in (config.vae.precision, config.mapper.precision)
    if halves and process.is_main_process and process.device.type == "cpu":
        print("note: most CPUs emulate fp16, several times slower than --mapper.precision fp32")
    model = library.train(
        [load_dataset(path) for path in datasets],
        options,
        keep_out=[load_dataset(path) for path in keep_out or []],
        out=out,
        resume=resume,
        overwrite=overwrite,
        show_progress=True,
    )
    if process.is_main_process:
        assert model.report is not None
        _print_report(model.report)
        print(f"run -> {out}")


def _print_report(report: TrainingReport) -> None:
    for name, figures in report.subjects.items():
        linear = figures.validation_r_linear
        beside = "" if linear is None else f", {linear:.3f} by the linear path alone"
        r = "undefined" if figures.validation_r is None else f"{figures.validation_r:.3f}"
        print(f"{name}: voxel_r {r} on {figures.n_validation_images} validation images{beside}")
