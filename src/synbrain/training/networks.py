"""The networks of a model: new or continued, trained in two stages, weighed beside the linear path."""

from __future__ import annotations

import copy
from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from synbrain.arrays import Float32, Rows
from synbrain.data.known_pictures import NO_PICTURES, KnownPictures
from synbrain.data.thumbnails import copies
from synbrain.errors import SynBrainError
from synbrain.features.scale import Scale
from synbrain.features.tokens import Pairs, TokenSet
from synbrain.linear.fit import LinearFit
from synbrain.metrics.voxel import mean_defined, voxel_r
from synbrain.model.report import SubjectReport
from synbrain.model.synbrain import SynBrain
from synbrain.networks.brainvae import BrainVAE
from synbrain.networks.fit.batches import StageSetup, SubjectData
from synbrain.networks.fit.devices import accelerator_on
from synbrain.networks.fit.loop import derived_seed
from synbrain.networks.fit.mapper import network_part, train_mapper
from synbrain.networks.fit.metrics_log import MetricsLog
from synbrain.networks.fit.vae import train_vae
from synbrain.networks.mapper import Mapper, mlp_parameters
from synbrain.networks.presets import Preset, preset
from synbrain.training.config import TrainConfig
from synbrain.training.options import Update
from synbrain.training.shrink import shrink_factor
from synbrain.training.subjects import TrainingSubject, network_layer, sampling_weights


@dataclass(frozen=True)
class Networks:
    """Networks to train, in place.

    Attributes:
        vae: trained whole in stage 1.
        mapper: trained in stage 2.
        trained: names of the mapper's parameters that stage 2 trains; without any, stage 2 is left out.
    """

    vae: BrainVAE
    mapper: Mapper
    trained: frozenset[str]


@dataclass(frozen=True)
class Workspace:
    """Where a training keeps its checkpoints and log, and what it shows.

    Attributes:
        folder: for checkpoints, stored targets and log.jsonl; made where missing.
        tensorboard: also write metrics for TensorBoard.
        show_progress: show bars.
        device: where everything is fitted: auto, cpu, cuda or mps.
    """

    folder: Path
    tensorboard: bool = False
    show_progress: bool = False
    device: str = "auto"


@dataclass(frozen=True)
class NetworkPart:
    """What makes the networks' output one subject's part of the mean, and how well that does.

    Attributes:
        scale: the networks' unit.
        shrink: (n_voxels,) float32, weight of the networks beside a linear path.
        report: figures on held-out training images.
    """

    scale: Scale
    shrink: Float32 | float
    report: SubjectReport


def network_sizes(tokens: TokenSet, config: TrainConfig) -> Preset:
    """Sizes of new networks on the tokens that they will read.

    Raises:
        SynBrainError: for an unknown layer or preset.
    """
    layer = network_layer(tokens, config)
    return preset(config.preset, tokens.only(layer).shapes[layer])


def new_networks(sizes: Preset, seed: int) -> Networks:
    """Networks with weights drawn from ``seed``, all of which are trained."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(seed, 21))
        vae, mapper = BrainVAE(sizes.vae), Mapper(sizes.mapper)
    return Networks(vae, mapper, updated_parameters(mapper, "all"))


def continued_networks(base: SynBrain, update: Update) -> Networks | None:
    """Copies of the networks of ``base`` to train further; None where it has not both.

    Raises:
        SynBrainError: a folded mapper is to be trained.
    """
    if base.vae is None or base.mapper is None:
        return None
    vae, mapper = copy.deepcopy(base.vae), copy.deepcopy(base.mapper)
    return Networks(vae, mapper, updated_parameters(mapper, update))


def updated_parameters(mapper: Mapper, update: Update) -> frozenset[str]:
    """Names of the mapper's parameters that stage 2 trains; a folded mapper has none."""
    if update != "none":
        mapper.require_trainable()
    if update == "mlp":
        return frozenset(mlp_parameters(mapper))
    names = [name for name, _ in mapper.named_parameters()]
    if update == "attention":
        return frozenset(n for n in names if n.startswith("blocks.") and (".qkv." in n or ".out." in n))
    if update == "all":
        return frozenset(names)
    if update == "none":
        return frozenset()
    raise SynBrainError(f"update={update!r}", "choose mlp, attention, all or none")


def train_networks(
    networks: Networks,
    subjects: Sequence[TrainingSubject],
    fits: Sequence[LinearFit | None],
    config: TrainConfig,
    workspace: Workspace,
    identity: str,
) -> tuple[list[NetworkPart], dict[str, tuple[int, int]]]:
    """Train the VAE on trials, then the mapper on what the linear paths leave over.

    Args:
        networks: trained in place; continue from checkpoints in the workspace where there are some.
        subjects: whose trials; validation images are split off their training images here, by seed.
        fits: the linear path of each subject, if it has one.
        config: of both stages.
        workspace: for checkpoints and log, and on which device.
        identity: of everything but the stages' settings that a checkpoint must agree on.

    Returns:
        Scale and shrink of each subject, and the best and the last step of each stage.
    """
    accelerator = accelerator_on(workspace.device)
    log = MetricsLog(workspace.folder, active=accelerator.is_main_process, tensorboard=workspace.tensorboard)
    setup = StageSetup(
        subjects=split_subjects(subjects, fits, config),
        token_layer=network_layer(subjects[0].pairs.tokens, config),
        weights=sampling_weights(subjects, config.subject_weights),
        accelerator=accelerator,
        folder=workspace.folder,
        log=log,
        seed=config.seed,
        identity=identity,
        show_progress=workspace.show_progress,
    )
    vae, mapper = networks.vae, networks.mapper
    ends = {"vae": train_vae(vae, config.vae, setup)}
    if networks.trained:
        for name, parameter in mapper.named_parameters():
            parameter.requires_grad_(name in networks.trained)
        ends["mapper"] = train_mapper(mapper, vae, config.mapper, setup)
    log.close()
    vae.eval().requires_grad_(True)
    mapper.eval().requires_grad_(True)
    parts = [_weighed(data, networks, config, setup) for data in setup.subjects]
    return parts, {stage: (end.best_step, end.step) for stage, end in ends.items()}


def split_subjects(
    subjects: Sequence[TrainingSubject], fits: Sequence[LinearFit | None], config: TrainConfig
) -> list[SubjectData]:
    """Each subject split; pictures that judge one are not trained on with the responses of another.

    The networks are shared: they would know of such a picture what all brains make of it.
    """
    splits = [validation_split(s.pairs, config.validation_fraction, config.seed) for s in subjects]
    judging = [
        _judging(subject, validation) for subject, (_, validation) in zip(subjects, splits, strict=True)
    ]
    data = []
    for i, (subject, fit) in enumerate(zip(subjects, fits, strict=True)):
        others = KnownPictures.joined(known for j, known in enumerate(judging) if j != i)
        mine = subject.pictures
        alike = {mine.marks[k] for k, _ in copies(mine.thumbnails, others.thumbnails)}
        data.append(split_subject(subject, fit, config, splits[i], alike.union(others.marks)))
    return data


def _judging(subject: TrainingSubject, rows: Rows) -> KnownPictures:
    """The pictures of the validation images ``rows``, where the subject says which its pictures are."""
    if not subject.image_marks:
        return NO_PICTURES
    return subject.pictures.only({subject.image_marks[row] for row in rows})


def split_subject(
    subject: TrainingSubject,
    fit: LinearFit | None,
    config: TrainConfig,
    split: tuple[Rows, Rows],
    never: Set[bytes] = frozenset(),
) -> SubjectData:
    """Training and validation images of a subject, with the linear path's predictions for both.

    Args:
        subject: whose images.
        fit: of the linear path, if it has one.
        config: unit of the networks.
        split: from :func:`validation_split`.
        never: marks of pictures that are not trained on, as they judge another subject.

    Raises:
        SynBrainError: where these are all.
    """
    pairs = subject.pairs
    rows, validation_rows = split
    if never and subject.image_marks:
        rows = rows[[subject.image_marks[row] not in never for row in rows]]
    if not len(rows):
        raise SynBrainError(
            f"every training image of {subject.name} is a validation image of another subject",
            "give more images, or a smaller --validation-fraction",
        )
    train, validation = pairs.take(rows), pairs.take(validation_rows)
    data = SubjectData(subject.name, train, validation, scale_of(train, config))
    if fit is None:
        return data
    # out-of-fold predictions serve both: no prediction has seen the image it is for
    offset = data.scale.scaled(fit.out_of_fold)
    return replace(data, offset=offset[rows], validation_offset=offset[validation_rows])


def scale_of(pairs: Pairs, config: TrainConfig) -> Scale:
    """The networks' unit: standardised over single trials, or the dataset's own."""
    return Scale.raw(pairs.n_voxels) if config.scale == "raw" else Scale.of_trials(pairs)


def validation_split(pairs: Pairs, fraction: float, seed: int) -> tuple[Rows, Rows]:
    """(training, validation) rows of ``pairs.tokens``: the images that :meth:`Pairs.hold_out` gives."""
    position = {int(row): i for i, row in enumerate(pairs.tokens.rows)}
    rest, validation = (
        np.array([position[int(row)] for row in part.tokens.rows], dtype=np.int64)
        for part in pairs.hold_out(fraction, seed)
    )
    return rest, validation


def _weighed(data: SubjectData, networks: Networks, config: TrainConfig, setup: StageSetup) -> NetworkPart:
    """Shrink factor of one subject, and how well its mean does on validation images."""
    measured, device = data.validation_means, setup.accelerator.device
    decoded = network_part(
        networks.mapper, networks.vae, data, setup.token_layer, device, config.mapper.batch_size
    )
    has_linear = data.validation_offset is not None
    linear = np.zeros_like(measured) if data.validation_offset is None else data.validation_offset
    shrink = shrink_factor(measured - linear, decoded, config.shrink)
    mean = linear + shrink * decoded
    report = SubjectReport(
        n_validation_images=len(measured),
        validation_r=mean_defined(voxel_r(mean, measured))[0],
        validation_error=float(np.mean((mean - measured) ** 2)),
        validation_r_linear=mean_defined(voxel_r(linear, measured))[0] if has_linear else None,
        validation_error_linear=float(np.mean((linear - measured) ** 2)) if has_linear else None,
        shrink=float(np.mean(shrink)),
    )
    return NetworkPart(data.scale, shrink, report)


def linear_alone(subject: TrainingSubject, fit: LinearFit, config: TrainConfig) -> NetworkPart:
    """Scale of a subject without networks: no image is held out, the linear path was cross-validated."""
    r, _ = mean_defined(voxel_r(fit.out_of_fold, subject.pairs.repeat_means()))
    return NetworkPart(scale_of(subject.pairs, config), 1.0, SubjectReport(cross_validated_r_linear=r))
