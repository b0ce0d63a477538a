"""Training of MindEye2: the losses of the paper with their schedules, in the one loop of this package."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from synbrain.arrays import Float32, Rows
from synbrain.decoding.mindeye2.backbone import BackboneConfig
from synbrain.decoding.mindeye2.losses import contrastive_loss, cosine_schedule, draw_mixing, soft_clip_loss
from synbrain.decoding.mindeye2.model import MindEye2, MindEye2Network
from synbrain.decoding.mindeye2.prior_network import PriorConfig
from synbrain.decoding.options import DecoderOptions, MindEye2Loss, MindEye2Options
from synbrain.decoding.protocol import DecodingSubject
from synbrain.decoding.validation import ValidationScores, validation_scores
from synbrain.describe import counted
from synbrain.errors import SynBrainError
from synbrain.files import digest_of
from synbrain.networks.fit.batches import batch_rows, make_schedule, share_of
from synbrain.networks.fit.devices import accelerator_on
from synbrain.networks.fit.loop import Batch, Stage, derived_seed, run_stage
from synbrain.networks.fit.metrics_log import MetricsLog
from synbrain.training.networks import Workspace


class FurtherLoss(Protocol):
    """A loss beside MindEye2's, with batches of its own (:mod:`synbrain.decoding.alignment`)."""

    @property
    def identity(self) -> str:
        """Digest of what it depends on; a checkpoint of another one is refused."""
        ...

    def step(self, method: MindEye2, names: list[str], config: MindEye2Options) -> TrainingStep:
        """The module whose "loss" is minimised; it takes what :meth:`batch` gives, beside the usual."""
        ...

    def batch(self, n: int, turn: int, seed: int) -> Batch:
        """Number ``turn`` of its batches, of ``n`` samples."""
        ...


def fit_mindeye2(
    subjects: Sequence[DecodingSubject],
    options: DecoderOptions,
    workspace: Workspace,
    until: int | None = None,
) -> MindEye2:
    """Train a new network on all subjects; one subject a batch, drawn by its number of trials.

    The weights kept are those with the best score on validation images
    (:func:`synbrain.decoding.validation.validation_scores`), or those of step ``until``.
    """
    tokens, dim = subjects[0].targets.shape[1:]
    sizes = options.mindeye2.sizes
    backbone = BackboneConfig(
        hidden=sizes.hidden, n_blocks=sizes.blocks, tokens=tokens, dim=dim, blocks=sizes.backbone,
        dropout=sizes.dropout,
    )  # fmt: skip
    prior = None
    if sizes.use_prior:
        if dim < 4:
            raise SynBrainError(
                f"a diffusion prior over tokens of {counted(dim, 'value')}",
                "pass --mindeye2.sizes.use-prior false",
            )
        prior = PriorConfig(
            tokens=tokens, dim=dim, depth=sizes.prior.depth, heads=sizes.prior.heads,
            dim_head=sizes.prior.dim_head, steps=sizes.prior.steps, drop=sizes.prior.drop,
            residual=sizes.prior.residual,
        )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(options.seed, 31))
        network = MindEye2Network([s.n_voxels for s in subjects], backbone, prior)
    method = MindEye2(network, tuple(s.name for s in subjects))
    if sizes.use_prior:
        method.sample_steps, method.guidance = sizes.prior.sample_steps, sizes.prior.guidance
    return train_network(method, subjects, options, workspace, until=until)


def train_network(
    method: MindEye2,
    subjects: Sequence[DecodingSubject],
    options: DecoderOptions,
    workspace: Workspace,
    trained: Sequence[str] = ("",),
    further: FurtherLoss | None = None,
    until: int | None = None,
) -> MindEye2:
    """Train ``method.network`` in place on ``subjects``, which it must know.

    Args:
        method: new, or one to train further.
        subjects: whose trials.
        options, workspace: settings and seed; for checkpoints and the log.
        trained: what the names of parameters to train start with; all of them by default.
        further: a loss that is added.
        until: step whose weights are kept, at the rates of a training of all steps; None: validation images
            choose it.
    """
    config, network = options.mindeye2, method.network
    accelerator = accelerator_on(workspace.device, parts_rest=len(subjects) > 1)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name.startswith(tuple(trained)))
    names, identity = [s.name for s in subjects], [method.config(), [_data_of(s) for s in subjects]]
    step_of = TrainingStep if further is None else further.step
    schedule = make_schedule(config.steps, [float(s.train.n_trials) for s in subjects], options.seed)
    share = (accelerator.process_index, accelerator.num_processes)

    def read_batch(step: int) -> Batch:
        which = int(schedule.subject[step])
        subject, turn = subjects[which], int(schedule.turn[step])
        x, y = training_rows(subject, config.batch_size, turn, derived_seed(options.seed, which), share)
        numbers = torch.tensor([which, step], dtype=torch.int64)
        more: Batch = {} if further is None else further.batch(len(x), step, derived_seed(options.seed, 43))
        return {"voxels": torch.from_numpy(x), "targets": torch.from_numpy(y), "numbers": numbers} | more

    stage = Stage(
        name="mindeye2",
        module=step_of(method, names, config),
        read_batch=read_batch,
        validate=None if until is not None else lambda: _in_eval(method, subjects).means,
        n_steps=config.steps,
        round_steps=config.round_steps,
        identity=digest_of([*identity, list(trained), "" if further is None else further.identity]),
        until=until,
    )
    log = MetricsLog(workspace.folder, active=accelerator.is_main_process, tensorboard=workspace.tensorboard)
    end = run_stage(
        stage, config, accelerator=accelerator, folder=workspace.folder / "mindeye2", log=log,
        seed=derived_seed(options.seed, 32), show_progress=workspace.show_progress,
    )  # fmt: skip
    log.close()
    network.requires_grad_(True).eval()
    method.kept_step = end.kept_step
    if until is None:
        kept = _in_eval(method, subjects)
        method.validation = kept.means | {"best_step": end.best_step, "steps": end.step}
        method.validation_each = kept.each
    return method


def _data_of(subject: DecodingSubject) -> list[str]:
    """Digests of what a subject's checkpoint depends on."""
    pairs = [of for of in (subject.train, subject.validation, subject.synthetic) if of is not None]
    return [subject.name, str(subject.synthetic_weight), *(of.digest for of in pairs)]


def _in_eval(method: MindEye2, subjects: Sequence[DecodingSubject]) -> ValidationScores:
    """Scores on validation images, without dropout."""
    was_training = method.network.training
    method.network.eval()
    scores = validation_scores(method, subjects)
    method.network.train(was_training)
    return scores


class TrainingStep(nn.Module):
    """One subject's batch to its loss; the module that processes are synchronised around."""

    def __init__(self, method: MindEye2, names: list[str], config: MindEye2Options) -> None:
        super().__init__()
        self.network = method.network
        self.method, self.names, self.loss, self.steps = method, names, config.loss, config.steps
        rounds = max(1, config.steps // config.round_steps)
        self.round_steps = config.round_steps
        self.temperatures = soft_temperatures(config.loss, rounds)

    def forward(self, voxels: Tensor, targets: Tensor, numbers: Tensor) -> dict[str, Tensor]:
        """The weighted loss and its parts.

        ``loss = w_c contrastive + w_p MSE(prior(x_t, t, backbone), tokens) + w_b MSE(backbone, tokens)``;
        contrastive is BiMixCo in the first part of training and SoftCLIP after. Only voxels are mixed; the
        prior predicts the tokens of the row's own image.

        Args:
            voxels: (n, n_voxels) z-scores, single trials.
            targets: (n, n_tokens, dim).
            numbers: (2,) int64, index of the subject and number of the step.
        """
        which, step = (int(number) for number in numbers)
        config, device = self.loss, voxels.device
        generator = torch.Generator().manual_seed(int(torch.randint(2**62, ()).item()))  # the loop seeds it
        mixing = None
        if step < config.mixco_share * self.steps:
            drawn = draw_mixing(len(voxels), generator)
            mixing = type(drawn)(drawn.partner.to(device), drawn.weight.to(device))
            voxels = mixing.apply(voxels)
        tokens, projected = self.network.backbone(self.method.ridge(voxels, self.names[which]))
        rows = F.normalize(projected.flatten(1).float(), dim=-1), F.normalize(targets.flatten(1), dim=-1)
        if mixing is not None:
            contrast = contrastive_loss(
                *rows, config.mixco_temperature, mixing, quirk=config.quirk_fixed_points
            )
        else:
            place = min(step // self.round_steps, len(self.temperatures) - 1)
            contrast = soft_clip_loss(*rows, float(self.temperatures[place]))
        parts = {"contrastive": contrast}
        loss = config.contrastive_weight * contrast
        prior = self.network.prior
        # without a prior the backbone is the prediction, and takes the prior's place in the loss
        direct = config.backbone_weight or (config.prior_weight if prior is None else 0.0)
        if direct:
            parts["backbone"] = F.mse_loss(tokens.float(), targets)
            loss = loss + direct * parts["backbone"]
        if prior is not None:
            drawn_numbers = (number.to(device) for number in prior.draw(len(voxels), generator))
            parts["prior"], _ = prior.loss(tokens, targets, *drawn_numbers)
            loss = loss + config.prior_weight * parts["prior"]
        return {"loss": loss, **parts}


def soft_temperatures(loss: MindEye2Loss, rounds: int) -> Tensor:
    """(rounds,) SoftCLIP's temperature in each round: along a cosine over those after the first phase."""
    first = int(loss.mixco_share * rounds)
    later = cosine_schedule(loss.soft_start, loss.soft_end, max(1, rounds - first))
    return torch.cat([torch.full((first,), loss.soft_start), later])


def training_rows(
    subject: DecodingSubject, batch_size: int, turn: int, seed: int, share: tuple[int, int] = (0, 1)
) -> tuple[Float32, Float32]:
    """Z-scored trials (n, n_voxels) and targets (n, n_tokens, dim) of batch number ``turn``.

    With synthetic trials, ``synthetic_weight`` of the batch is theirs, whatever their number: more hours
    give more images, not more weight.
    """
    n_synthetic = 0
    if subject.synthetic is not None and subject.synthetic_weight:
        n_synthetic = min(batch_size - 1, max(1, round(subject.synthetic_weight * batch_size)))
    parts: list[tuple[Float32, Float32]] = []
    for pairs, targets, n, key in (
        (subject.train, subject.targets, batch_size - n_synthetic, 0),
        (subject.synthetic, subject.synthetic_targets, n_synthetic, 1),
    ):
        if pairs is None or targets is None or not n:
            continue
        # a batch may ask for more than there is: rows then come twice, in epochs of their own
        rows: Rows = share_of(batch_rows(pairs.n_trials, n, turn, derived_seed(seed, key)), *share)
        parts.append((subject.scaled(pairs.trial_responses(rows)), targets[pairs.image_of_trial[rows]]))
    return np.concatenate([x for x, _ in parts]), np.concatenate([y for _, y in parts])
