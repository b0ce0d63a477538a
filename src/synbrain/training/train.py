"""Training from pairs to a model's parts: hold out, linear path, VAE, mapper, shrink, noise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray

from synbrain.features.tokens import Pairs, response_scale
from synbrain.files import digest_of, write_json
from synbrain.linear.fit import LinearFit, fit_linear_path
from synbrain.linear.held_out import held_out_scores
from synbrain.model.parts import RunConfig, SubjectPart
from synbrain.model.synbrain import SynBrain
from synbrain.networks.brainvae import BrainVAE
from synbrain.networks.fit.batches import StageSetup, SubjectData
from synbrain.networks.fit.loop import Position, derived_seed
from synbrain.networks.fit.mapper import MapperData, network_part, train_mapper
from synbrain.networks.fit.metrics_log import MetricsLog
from synbrain.networks.fit.vae import train_vae
from synbrain.networks.mapper import Mapper
from synbrain.networks.presets import preset
from synbrain.noise.fit import fit_response_noise
from synbrain.noise.response_noise import ResponseNoise
from synbrain.training.config import TrainConfig
from synbrain.training.shrink import shrink_factor
from synbrain.training.subjects import TrainingSubject, check_training, sampling_weights


@dataclass(frozen=True)
class Start:
    """What an adaptation begins with.

    Attributes:
        vae, mapper: networks to train further, in place.
        updated: names of the mapper's parameters that stage 2 trains; empty: stage 2 is left out.
        fit_linear: in place of :func:`fit_linear_path`, with its arguments.
        fit_noise: in place of :func:`fit_response_noise`, with its arguments.
    """

    vae: BrainVAE
    mapper: Mapper
    updated: frozenset[str]
    fit_linear: Callable[..., LinearFit]
    fit_noise: Callable[..., ResponseNoise]


@dataclass(frozen=True)
class Trained:
    """What training gives: the arguments of ``SynBrain``, and figures on validation images.

    ``report`` holds, for each subject, ``validation_r`` (mean over voxels of the correlation across
    validation images, for the whole mean and for the linear path alone), ``shrink`` and the steps kept.
    """

    config: RunConfig
    vae: BrainVAE
    mapper: Mapper
    subjects: dict[str, SubjectPart]
    report: dict[str, Any]

    def model(self) -> SynBrain:
        """The trained model, on the CPU."""
        return SynBrain(self.config, self.subjects, self.vae, self.mapper)


def train_model(
    subjects: list[TrainingSubject],
    config: TrainConfig,
    *,
    folder: Path,
    tensorboard: bool = False,
    show_progress: bool = False,
    start: Start | None = None,
) -> Trained:
    """Fit every part of a model; continues from checkpoints in ``folder`` where there are some.

    Args:
        subjects: training pairs only; validation images are held out of them here, by seed.
        config: see ``recipes.recipe``.
        folder: for checkpoints, stored targets and log.jsonl; made where missing.
        tensorboard: also write metrics for TensorBoard.
        show_progress: whether to show bars.
        start: what an adaptation begins with; None: new networks, no prior.

    Raises:
        SynBrainError: for data that do not fit each other, a loss that is not finite, damaged checkpoints, or
            checkpoints of another configuration.
        KeyboardInterrupt: on Ctrl-C or SIGTERM, after a checkpoint was written.
    """
    check_training(subjects, config, new_networks=start is None)
    accelerator = Accelerator(mixed_precision="no")  # autocast is the loop's, as stages differ in it
    log = MetricsLog(folder, active=accelerator.is_main_process, tensorboard=tensorboard)
    tokens = subjects[0].pairs.tokens
    layer = config.network_layer or list(tokens.layers)[-1]
    if start is None:
        sizes = preset(config.preset, tokens.only(layer).shapes[layer])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derived_seed(config.seed, 21))
            vae, mapper = BrainVAE(sizes.vae), Mapper(sizes.mapper)
    else:
        vae, mapper = start.vae, start.mapper
    weights = sampling_weights(subjects, config.subject_weights)

    fit_path = fit_linear_path if start is None else start.fit_linear
    fit_noise = fit_response_noise if start is None else start.fit_noise
    show_linear = show_progress and accelerator.is_main_process
    fits = [
        fit_path(s.pairs, config.linear, seed=config.seed, show_progress=show_linear)
        if config.linear_path
        else None
        for s in subjects
    ]
    data = [_split(s, config, fit) for s, fit in zip(subjects, fits, strict=True)]
    setup = StageSetup(
        subjects=[part.subject for part in data],
        token_layer=layer,
        weights=weights,
        accelerator=accelerator,
        folder=folder,
        log=log,
        seed=config.seed,
        identity=_identity(subjects, config),
        show_progress=show_progress,
    )
    vae_end = train_vae(vae, config.vae, setup)
    mapper_end = Position()
    if start is None or start.updated:
        for name, parameter in mapper.named_parameters():
            parameter.requires_grad_(start is None or name in start.updated)
        mapper_end = train_mapper(mapper, vae, [part.offsets for part in data], config.mapper, setup)
    log.close()
    vae.eval().requires_grad_(True)
    mapper.eval().requires_grad_(True)
    parts, report = {}, {}
    for s, part, fit in zip(subjects, data, fits, strict=True):
        parts[s.name], report[s.name] = _finish(
            s, part, fit, config, vae, mapper, layer, accelerator.device, fit_noise
        )
    steps = {"vae": [vae_end.best_step, vae_end.step], "mapper": [mapper_end.best_step, mapper_end.step]}
    report = {"subjects": report, "steps_best_and_last": steps}
    if accelerator.is_main_process:
        write_json(folder / "validation.json", report)
    accelerator.wait_for_everyone()
    linear_layers = tuple(fits[0].path.layers) if fits[0] is not None else ()
    run = RunConfig(
        recipe=config.recipe,
        encoder=tokens.encoder,
        encoder_digest=tokens.digest,
        linear_layers=linear_layers,
        mapper_layer=layer,
        token_shapes={name: tokens.shapes[name] for name in dict.fromkeys((*linear_layers, layer))},
        seeds=(config.seed,),
    )
    return Trained(run, vae, mapper, parts, report)


@dataclass(frozen=True)
class _Split:
    """A subject split into training and validation images, with the linear predictions of both."""

    subject: SubjectData
    offsets: MapperData


def _split(subject: TrainingSubject, config: TrainConfig, fit: LinearFit | None) -> _Split:
    pairs = subject.pairs
    train_rows, validation_rows = held_out_rows(pairs, config.validation_fraction, config.seed)
    train, validation = pairs.take(train_rows), pairs.take(validation_rows)
    mean, sd = response_scale(train, config.scale)
    data = SubjectData(subject.name, train, validation, mean, sd)
    if fit is None:
        return _Split(data, MapperData())
    # out-of-fold predictions serve both: no prediction has seen the image it is for
    offset = data.scaled(fit.out_of_fold)
    return _Split(data, MapperData(offset[train_rows], offset[validation_rows]))


def held_out_rows(pairs: Pairs, fraction: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(training, validation) rows of ``pairs.tokens``: the images that :meth:`Pairs.hold_out` gives."""
    position = {int(row): i for i, row in enumerate(pairs.tokens.rows)}
    rest, held = (
        np.array([position[int(row)] for row in part.tokens.rows], dtype=np.int64)
        for part in pairs.hold_out(fraction, seed)
    )
    return rest, held


def _finish(
    subject: TrainingSubject,
    part: _Split,
    fit: LinearFit | None,
    config: TrainConfig,
    vae: BrainVAE,
    mapper: Mapper,
    layer: str,
    device: torch.device,
    fit_noise: Callable[..., ResponseNoise],
) -> tuple[SubjectPart, dict[str, Any]]:
    """Shrink factor and noise of one subject, and how well its mean does on validation images."""
    data = part.subject
    wanted = data.scaled(data.validation.repeat_means())
    networks = network_part(mapper, vae, data, layer, device, config.mapper.batch_size)
    offset = part.offsets.validation_offset
    linear = np.zeros_like(wanted) if offset is None else offset
    shrink = shrink_factor(wanted - linear, networks, config.shrink)
    report: dict[str, Any] = {
        "n_validation_images": len(wanted),
        "validation_r": mean_voxel_r(linear + shrink * networks, wanted),
        "validation_error": float(np.mean((linear + shrink * networks - wanted) ** 2)),
        "shrink": float(np.mean(shrink)),
    }
    noise = None
    if fit is not None:
        report["validation_r_linear"] = mean_voxel_r(linear, wanted)
        report["validation_error_linear"] = float(np.mean((linear - wanted) ** 2))
        if config.response_noise:
            noise = fit_noise(subject.pairs, fit.out_of_fold, config.noise, seed=config.seed)
    held_out = None
    if fit is not None and subject.image_marks:
        held_out = held_out_scores(fit.path, fit.out_of_fold, data.sd, subject.image_marks)
    made = SubjectPart(
        name=subject.name,
        space=subject.space,
        unit=subject.unit,
        scaling=subject.scaling,
        response_mean=data.mean,
        response_sd=data.sd,
        linear=None if fit is None else fit.path,
        held_out=held_out,
        noise=noise,
        shrink=shrink,
    )
    return made, report


def mean_voxel_r(predicted: NDArray[np.float32], measured: NDArray[np.float32]) -> float | None:
    """Correlation across images of each voxel, averaged over voxels that vary; None where none does."""
    a, b = predicted - predicted.mean(axis=0), measured - measured.mean(axis=0)
    norm = np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))
    kept = norm > 1e-12
    return float(((a * b).sum(axis=0)[kept] / norm[kept]).mean()) if kept.any() else None


def _identity(subjects: list[TrainingSubject], config: TrainConfig) -> str:
    """Digest of what a checkpoint must agree on besides a stage's configuration."""
    about = [[s.name, s.pairs.n_images, s.pairs.n_trials, s.pairs.n_voxels] for s in subjects]
    tokens = subjects[0].pairs.tokens
    return digest_of([about, tokens.digest, config.model_dump(mode="json", exclude={"vae", "mapper"})])
