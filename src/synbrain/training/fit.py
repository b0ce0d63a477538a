"""A model from its subjects: linear path, networks, trial noise, in this order, put together at one place."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState

from synbrain.data.known_pictures import NO_PICTURES, KnownPictures
from synbrain.data.marks import packed, unpacked
from synbrain.features.joint import each_encoder, owner_of
from synbrain.features.tokens import Pairs
from synbrain.files import digest_of, read_json, write_json
from synbrain.linear.by_encoder import fit_each_encoder
from synbrain.linear.config import LinearPathConfig
from synbrain.linear.cost import linear_path_cost
from synbrain.linear.fit import LinearFit, fit_linear_path
from synbrain.linear.held_out import held_out_scores
from synbrain.linear.prior import ResponseSpace, fit_with_prior, response_space
from synbrain.linear.team import Team
from synbrain.model.parts import Adaptation, RunConfig, SubjectPart
from synbrain.model.report import TrainingReport
from synbrain.model.synbrain import SynBrain
from synbrain.networks.fit.devices import processes_on
from synbrain.noise.prior import fit_noise_with_prior
from synbrain.noise.response_noise import ResponseNoise
from synbrain.training.config import TrainConfig
from synbrain.training.networks import (
    NetworkPart,
    Networks,
    Workspace,
    linear_alone,
    train_networks,
)
from synbrain.training.subjects import TrainingSubject, check_subjects, network_layer


@dataclass(frozen=True)
class Prior:
    """What base subjects teach about a new one; nothing by default.

    Attributes:
        space: that their linear paths span.
        noises: their trial noise.
    """

    space: ResponseSpace | None = None
    noises: tuple[ResponseNoise, ...] = ()

    @classmethod
    def of(cls, base: SynBrain) -> Prior:
        """What the subjects of a run teach."""
        parts = base.subjects.values()
        paths = [path for part in parts if (path := part.as_base) is not None]
        return cls(response_space(paths), tuple(part.noise for part in parts if part.noise is not None))


@dataclass(frozen=True)
class Origin:
    """Where an adapted run comes from: what it keeps of its base, and what was done."""

    base: RunConfig
    digest: str
    adaptation: Adaptation
    known_pictures: KnownPictures = NO_PICTURES


NO_PRIOR = Prior()
CPU = torch.device("cpu")
WORTH_KEEPING, DONE = 2000.0, "finished.json"  # GFLOP of a linear path, above which it is kept


def fit_model(
    subjects: Sequence[TrainingSubject],
    config: TrainConfig,
    networks: Networks | None,
    workspace: Workspace,
    *,
    prior: Prior = NO_PRIOR,
    origin: Origin | None = None,
) -> SynBrain:
    """Fit every part of a model; training and adaptation are this, with new or with continued networks.

    Args:
        subjects: training pairs only; validation images are held out of them here, by seed.
        config: see ``recipes.recipe``.
        networks: trained in place; None: a linear path, which ``config`` then must ask for, and noise alone.
        workspace: for checkpoints and log; a training that was interrupted continues from those in it.
        prior: what base subjects teach about the linear path and the noise of these.
        origin: of an adaptation.

    Returns:
        The model, on the CPU, with a report on held-out training images.

    Raises:
        SynBrainError: for data that do not fit each other, a loss that is not finite, damaged checkpoints, or
            checkpoints of another configuration.
        KeyboardInterrupt: on Ctrl-C or SIGTERM, after a checkpoint was written.
    """
    check_subjects(subjects, config)
    process = processes_on(workspace.device)
    show = workspace.show_progress and process.is_main_process
    place = LinearPlace(process, workspace.folder / "linear", show)
    fits = [fit_linear(subject, config, prior, place) for subject in subjects]
    if networks is not None:
        identity = _identity(subjects, config, origin)
        weighed, steps = train_networks(networks, subjects, fits, config, workspace, identity)
    else:
        weighed = [linear_alone(s, fit, config) for s, fit in zip(subjects, fits, strict=True) if fit]
        steps = {}
    parts = {
        subject.name: _subject_part(subject, fit, part, fit_noise(subject, fit, config, prior, place.device))
        for subject, fit, part in zip(subjects, fits, weighed, strict=True)
    }
    report = TrainingReport(
        subjects={s.name: part.report for s, part in zip(subjects, weighed, strict=True)},
        steps_best_and_last=steps,
    )
    layer = None if networks is None else network_layer(subjects[0].pairs.tokens, config)
    run = _run_config(subjects, config, fits[0], layer, origin)
    known = [subject.pictures for subject in subjects] + ([] if origin is None else [origin.known_pictures])
    vae, mapper = (None, None) if networks is None else (networks.vae, networks.mapper)
    return SynBrain(run, parts, vae, mapper, report, KnownPictures.joined(known))


@dataclass(frozen=True)
class LinearPlace:
    """Where linear paths are fitted.

    Attributes:
        process: this one and those beside it, which share the voxels.
        folder: where what a long fit has done is kept until the training is finished.
        show_progress: show bars.
    """

    process: PartialState
    folder: Path
    show_progress: bool = False

    @property
    def device(self) -> torch.device:
        """Of the process; the CPU where it has no float64."""
        device = self.process.device
        return device if device.type == "cuda" else CPU


def fit_linear(
    subject: TrainingSubject, config: TrainConfig, prior: Prior, place: LinearPlace
) -> LinearFit | None:
    """The linear path of one subject, with a prior where there is one; None where the recipe has none."""
    if not config.linear_path:
        return None
    whole = None if prior.space is None else replace(prior.space, also=subject.also_known)
    if whole is None and subject.linear_fit is not None:
        return subject.linear_fit
    several = len(each_encoder(subject.pairs.tokens)) > 1
    # a base path on several encoders at once is a prior for all of their tokens, and for no encoder alone
    is_joint = whole is not None and any(len(set(map(owner_of, path.layers))) > 1 for path in whole.paths)

    def with_space(
        pairs: Pairs, space: ResponseSpace, linear: LinearPathConfig, alone: LinearFit | None
    ) -> LinearFit:
        return fit_with_prior(
            pairs, space, linear, marks=subject.image_marks, seed=config.seed, device=place.device,
            show_progress=place.show_progress, alone=alone,
        )  # fmt: skip

    def of_encoder(pairs: Pairs, linear: LinearPathConfig, number: int) -> LinearFit:
        space = None if whole is None or is_joint else whole.on(pairs.tokens.layers)
        if space is None:
            folder = place.folder / subject.name / (f"encoder-{number}" if several else "")
            return _kept_fit(pairs, linear, config.seed, place, folder)
        return with_space(pairs, space, linear, None if several else subject.linear_fit)

    by_encoder = fit_each_encoder(subject.pairs, config.linear, of_encoder)
    return with_space(subject.pairs, whole, config.linear, by_encoder) if whole and is_joint else by_encoder


def _kept_fit(
    pairs: Pairs, linear: LinearPathConfig, seed: int, place: LinearPlace, folder: Path
) -> LinearFit:
    """A long fit is kept pass by pass, then whole, so that a training that goes on does not do it again."""

    def fit(passes: Path | None) -> LinearFit:
        team = Team.of(place.process)
        return fit_linear_path(
            pairs, linear, seed=seed, device=place.device, team=team, folder=passes,
            show_progress=place.show_progress,
        )  # fmt: skip

    tokens = pairs.tokens if linear.layers is None else pairs.tokens.only(*linear.layers)
    if linear_path_cost(pairs.n_images, pairs.n_voxels, tokens.shapes, linear).total <= WORTH_KEEPING:
        return fit(None)
    # the settings of a training that goes on are those of its first call (workspace.py); its data are checked
    identity = digest_of([pairs.digest, list(pairs.tokens.layers), tokens.families.tolist()])
    if (folder / DONE).exists() and read_json(folder / DONE) == identity:
        return LinearFit.load(folder)
    fitted = fit(folder / "passes")
    if place.process.is_main_process:
        fitted.save(folder)
        write_json(folder / DONE, identity)
    place.process.wait_for_everyone()
    shutil.rmtree(folder / "passes", ignore_errors=True)
    return fitted


def fit_noise(
    subject: TrainingSubject,
    fit: LinearFit | None,
    config: TrainConfig,
    prior: Prior = NO_PRIOR,
    device: torch.device = CPU,
) -> ResponseNoise | None:
    """The trial noise of one subject, around predictions that have not seen the image they are for."""
    if fit is None or not config.response_noise:
        return None
    return fit_noise_with_prior(
        subject.pairs, fit.out_of_fold, config.noise, prior.noises, seed=config.seed, device=device
    )


def _subject_part(
    subject: TrainingSubject, fit: LinearFit | None, part: NetworkPart, noise: ResponseNoise | None
) -> SubjectPart:
    mean, unit = (of.astype(np.float32) for of in (part.scale.mean, part.scale.unit))
    held_out = None
    if fit is not None and subject.image_marks:
        held_out = held_out_scores(fit.path, fit.out_of_fold, unit, subject.image_marks)
    return SubjectPart(
        name=subject.name,
        space=subject.space,
        unit=subject.unit,
        scaling=subject.scaling,
        response_mean=mean,
        response_sd=unit,
        linear=None if fit is None else fit.path,
        held_out=held_out,
        noise=noise,
        shrink=part.shrink,
    )


def _run_config(
    subjects: Sequence[TrainingSubject],
    config: TrainConfig,
    fit: LinearFit | None,
    mapper_layer: str | None,
    origin: Origin | None,
) -> RunConfig:
    """What the run says about itself; images that the base saw stay marked in a run adapted from it."""
    tokens = subjects[0].pairs.tokens
    linear_layers = () if fit is None else tuple(fit.path.layers)
    read = dict.fromkeys((*linear_layers, *([] if mapper_layer is None else [mapper_layer])))
    trained = {mark for s in subjects for mark in (*s.image_marks, *s.tuned_marks)}
    test = {mark for subject in subjects for mark in subject.test_marks}
    if origin is not None:
        trained |= unpacked(origin.base.trained_images)
        test |= unpacked(origin.base.test_images)
    return RunConfig(
        recipe=config.recipe,
        encoder=tokens.encoder,
        encoder_digest=tokens.digest,
        encoder_hub_id=None if origin is None else origin.base.encoder_hub_id,
        linear_layers=linear_layers,
        mapper_layer=mapper_layer,
        token_shapes={name: tokens.shapes[name] for name in read},
        given_tokens={name: file for name, file in tokens.given.items() if name in read},
        seeds=(config.seed,),
        base_digest="" if origin is None else origin.digest,
        adaptation=None if origin is None else origin.adaptation,
        trained_images=packed(trained),
        test_images=packed(test),
    )


def _identity(subjects: Sequence[TrainingSubject], config: TrainConfig, origin: Origin | None) -> str:
    """Digest of what a checkpoint must agree on besides a stage's configuration."""
    data = [[s.name, s.pairs.digest, *s.pairs.tokens.families_told] for s in subjects]
    known: list[Any] = [data, config.model_dump(mode="json", exclude={"vae", "mapper"})]
    if origin is not None:
        known.append([origin.digest, origin.adaptation.model_dump(mode="json")])
    return digest_of(known)
