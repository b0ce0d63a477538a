"""``synbrain train``: datasets with tokens to a run."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from accelerate import PartialState

from synbrain.data.dataset import load_dataset
from synbrain.errors import SynBrainError
from synbrain.files import read_json, require_absent, write_json
from synbrain.linear.config import LinearPathConfig
from synbrain.model.folder import CONFIG, save_run
from synbrain.networks.config import MapperStageConfig, VAEStageConfig
from synbrain.noise.config import NoiseConfig
from synbrain.training.config import TrainConfig
from synbrain.training.leakage import marks_of
from synbrain.training.overrides import options_of, overridden
from synbrain.training.recipes import recipe as recipe_called
from synbrain.training.subjects import check_training, training_images, training_subjects
from synbrain.training.train import Trained, train_model

# The same fields, each None where the recipe decides.
LinearOptions, NoiseOptions = options_of(LinearPathConfig), options_of(NoiseConfig)
VAEOptions, MapperOptions = options_of(VAEStageConfig), options_of(MapperStageConfig)
LINEAR_FROM_RECIPE, NOISE_FROM_RECIPE = LinearOptions(), NoiseOptions()
VAE_FROM_RECIPE, MAPPER_FROM_RECIPE = VAEOptions(), MapperOptions()
TRAINING, RESOLVED = "training", "config.json"
UNFINISHED = ("vae", "mapper", "targets")  # in TRAINING while a training is not finished


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
    linear: LinearOptions = LINEAR_FROM_RECIPE,  # type: ignore[valid-type]
    noise: NoiseOptions = NOISE_FROM_RECIPE,  # type: ignore[valid-type]
    vae: VAEOptions = VAE_FROM_RECIPE,  # type: ignore[valid-type]
    mapper: MapperOptions = MAPPER_FROM_RECIPE,  # type: ignore[valid-type]
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
    config = overridden(
        recipe_called(recipe, preset=preset),
        {
            "network_layer": network_layer,
            "scale": scale,
            "validation_fraction": validation_fraction,
            "subject_weights": subject_weights,
            "linear_path": linear_path,
            "response_noise": response_noise,
            "shrink": shrink,
            "linear": linear,
            "noise": noise,
            "vae": vae,
            "mapper": mapper,
            "seed": seed,
        },
    )
    opened = [load_dataset(path) for path in datasets]
    others = [load_dataset(path) for path in keep_out or []]
    safe = training_images(opened, shared_test_images, others)
    subjects = training_subjects(opened, encoder, layers, rows=safe)
    check_training(subjects, config)
    process = PartialState()
    if process.is_main_process:
        _prepare_out(out, config, resume, overwrite)
        if process.device.type == "cpu" and "fp16" in (config.vae.precision, config.mapper.precision):
            print("note: most CPUs emulate fp16, several times slower than --mapper.precision fp32")
    process.wait_for_everyone()
    trained = train_model(
        subjects, config, folder=out / TRAINING, tensorboard=tensorboard, show_progress=True
    )
    if process.is_main_process:
        marks = (mark for subject in subjects for mark in subject.image_marks)
        config_of_run = trained.config.model_copy(update=marks_of(opened, marks))
        save_run(out, config_of_run, trained.subjects, trained.vae, trained.mapper, overwrite=overwrite)
        for leftover in UNFINISHED:  # checkpoints of a finished run
            shutil.rmtree(out / TRAINING / leftover, ignore_errors=True)
        _tell(trained, out)


def _prepare_out(out: Path, config: TrainConfig, resume: bool, overwrite: bool) -> None:
    """Make ``out/training`` ready, or say why not; nothing is removed that was not given up."""
    folder, said = out / TRAINING, config.model_dump(mode="json")
    replaces = (out / CONFIG).exists()  # a finished run: its weights stay until the new ones are whole
    interrupted = (folder / RESOLVED).exists() and (
        not replaces or any((folder / name).exists() for name in UNFINISHED)
    )
    if resume and interrupted:
        if replaces:
            require_absent(out, overwrite)
        before = read_json(folder / RESOLVED)
        differing = sorted(_differences(before, said))
        if differing:
            raise SynBrainError(
                f"the interrupted training had other values of {', '.join(differing)}",
                "give --resume the options of the first call, or pass --overwrite instead to start again",
            )
        return
    if interrupted and not overwrite:
        raise SynBrainError(
            f"{out} holds an interrupted training",
            "pass --resume to continue it, or --overwrite to start again",
        )
    if not resume or replaces:
        require_absent(out, overwrite)
    shutil.rmtree(folder, ignore_errors=True)
    try:
        write_json(folder / RESOLVED, said)
    except SynBrainError:  # a full disk: no empty folders that the next call would take for a run
        for made in (folder, out):
            with suppress(OSError):
                made.rmdir()
        raise


def _differences(a: dict[str, Any], b: dict[str, Any], prefix: str = "") -> list[str]:
    names = []
    for key in a.keys() | b.keys():
        if isinstance(a.get(key), dict) and isinstance(b.get(key), dict):
            names += _differences(a[key], b[key], f"{prefix}{key}.")
        elif a.get(key) != b.get(key):
            names.append(prefix + key)
    return names


def _tell(trained: Trained, out: Path) -> None:
    for name, said in trained.report["subjects"].items():
        linear = said.get("validation_r_linear")
        beside = "" if linear is None else f", {linear:.3f} by the linear path alone"
        r = "undefined" if said["validation_r"] is None else f"{said['validation_r']:.3f}"
        print(f"{name}: voxel_r {r} on {said['n_validation_images']} validation images{beside}")
    print(f"run -> {out}")
