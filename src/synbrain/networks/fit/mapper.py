"""Stage 2: the mapper from image tokens to latents, in latent space, through the decoder, or both."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from synbrain.networks.brainvae import BrainVAE
from synbrain.networks.config import MapperStageConfig
from synbrain.networks.fit.batches import StageSetup, SubjectData, batch_rows, make_schedule, share_of
from synbrain.networks.fit.loop import Batch, Position, Stage, derived_seed, run_stage
from synbrain.networks.fit.targets import posterior_means
from synbrain.networks.losses import mapper_loss, mapper_target, reconstruction, soft_clip
from synbrain.networks.mapper import Mapper
from synbrain.networks.posterior import Posterior


class MapperStep(nn.Module):
    """One batch to its loss; the module that processes are synchronised around."""

    def __init__(self, mapper: Mapper, vae: BrainVAE, config: MapperStageConfig) -> None:
        super().__init__()
        self.mapper = mapper
        self.vae = vae
        self.config = config
        for name, parameter in vae.named_parameters():
            decodes = name.startswith(("decoder.", "post."))
            parameter.requires_grad_(decodes and config.decoder == "finetune")

    def forward(
        self,
        tokens: Tensor,
        target: Tensor | None = None,
        trial: Tensor | None = None,
        response: Tensor | None = None,
        offset: Tensor | None = None,
        noise: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """The weighted loss and its parts.

        Args:
            tokens: (batch, n_tokens, dim) float32.
            target: (batch, latent tokens, latent dim), stored posterior means.
            trial: (batch, n_voxels), responses to encode in this step instead of a stored target.
            response: (batch, n_voxels), repeat means, for the loss in response space.
            offset: (batch, n_voxels), added to what the decoder gives.
            noise: (batch, latent tokens, latent dim), for ``target="sample"``.
        """
        config = self.config
        if trial is not None:
            with torch.no_grad():
                posterior = self.vae.encode(trial)
                drawn = config.target == "sample" and noise is not None
                target = posterior.at(noise) if drawn and noise is not None else mapper_target(posterior)
        latent = self.mapper(self._disturbed(tokens))
        parts: dict[str, Tensor] = {}
        loss = torch.zeros((), device=tokens.device)
        if target is not None and config.latent_weight:
            parts["latent"] = mapper_loss(latent, target)
            loss = loss + config.latent_weight * parts["latent"]
        if target is not None and config.contrastive_weight:
            parts["contrastive"] = soft_clip(latent, target, config.temperature, gathered=True)
            loss = loss + config.contrastive_weight * parts["contrastive"]
        if response is not None and config.response_weight:
            decoded = self.vae.decode(latent, response.shape[1])
            predicted = decoded if offset is None else decoded + offset
            parts["response"] = reconstruction(predicted, response, "mean")
            loss = loss + config.response_weight * parts["response"]
        return {"loss": loss, **parts}

    def _disturbed(self, tokens: Tensor) -> Tensor:
        """Tokens with dropout and noise, in training only: the regularisers for few images."""
        if not self.training:
            return tokens
        if self.config.token_noise:
            tokens = tokens + self.config.token_noise * tokens.std() * torch.randn_like(tokens)
        return nn.functional.dropout(tokens, self.config.token_dropout)


def train_mapper(mapper: Mapper, vae: BrainVAE, config: MapperStageConfig, setup: StageSetup) -> Position:
    """Train ``mapper`` in place (and the decoder of ``vae`` where the configuration says so).

    Args:
        mapper: from tokens of the setup's layer to latents of ``vae``.
        vae: as stage 1 left it.
        config: of this stage.
        setup: on whom, where and with which seed.

    Raises:
        SynBrainError: for a mapper that was folded, and as :func:`run_stage`.
    """
    mapper.require_trainable()
    seed = setup.seed
    vae.to(setup.accelerator.device).eval()
    # before MapperStep freezes the encoder: a frozen one may take another path of the same value to rounding
    read_batch, validate = _batches(vae, config, setup), _validation(mapper, vae, config, setup)
    stage = Stage(
        name="mapper",
        module=MapperStep(mapper, vae, config),
        read_batch=read_batch,
        validate=validate,
        n_steps=config.steps,
        round_steps=config.round_steps,
        identity=setup.identity,
        noise_shape=(vae.config.tokens, vae.config.dim) if config.target == "sample" else None,
    )
    return run_stage(
        stage,
        config,
        accelerator=setup.accelerator,
        folder=setup.folder / "mapper",
        log=setup.log,
        seed=derived_seed(seed, 12),
        show_progress=setup.show_progress,
    )


def _batches(vae: BrainVAE, config: MapperStageConfig, setup: StageSetup) -> Callable[[int], Batch]:
    """step -> what :class:`MapperStep` is given; stored targets are encoded here, once."""
    subjects, accelerator, seed = setup.subjects, setup.accelerator, setup.seed
    per_trial = config.targets != "image"
    needs_target = config.targets != "reencode" and (config.latent_weight or config.contrastive_weight)
    stored: list[NDArray[Any] | None] = [
        posterior_means(
            vae, s, per_trial=per_trial, path=setup.folder / "targets" / f"{i}.npy",
            accelerator=accelerator, batch_size=config.batch_size, show_progress=setup.show_progress,
        )
        if needs_target
        else None
        for i, s in enumerate(subjects)
    ]  # fmt: skip
    means = [s.scale.scaled(s.train.repeat_means()) if config.response_weight else None for s in subjects]
    schedule = make_schedule(config.steps, setup.weights, seed)

    def read_batch(step: int) -> Batch:
        which = int(schedule.subject[step])
        subject, target, mean = subjects[which], stored[which], means[which]
        pairs = subject.train
        n_items = pairs.n_trials if per_trial else pairs.n_images
        all_rows = batch_rows(n_items, config.batch_size, int(schedule.turn[step]), derived_seed(seed, which))
        rows = share_of(all_rows, accelerator.process_index, accelerator.num_processes)
        images = pairs.image_of_trial[rows] if per_trial else rows
        batch = {"tokens": pairs.tokens.read(setup.token_layer, images)}
        if target is not None:
            batch["target"] = np.asarray(target[rows], dtype=np.float32)
        if config.targets == "reencode":
            batch["trial"] = subject.scale.scaled(pairs.trial_responses(rows))
        if mean is not None:
            batch["response"] = mean[images]
            if subject.offset is not None:
                batch["offset"] = subject.offset[images]
        return {name: torch.from_numpy(array) for name, array in batch.items()}

    return read_batch


def _validation(
    mapper: Mapper, vae: BrainVAE, config: MapperStageConfig, setup: StageSetup
) -> Callable[[], dict[str, float]]:
    """The error on held-out training images: of responses where they are trained on, else of latents."""
    subjects, layer, device = setup.subjects, setup.token_layer, setup.accelerator.device
    targets = [
        latent_targets(vae, s, device, config.batch_size) if not config.response_weight else None
        for s in subjects
    ]

    def error(subject: SubjectData, target: Tensor | None) -> float:
        if target is not None:
            return _latent_error(mapper, subject, target, layer, device, config.batch_size)
        networks = network_part(mapper, vae, subject, layer, device, config.batch_size)
        offset = 0.0 if subject.validation_offset is None else subject.validation_offset
        return float(np.mean((networks + offset - subject.validation_means) ** 2))

    def validate() -> dict[str, float]:
        scores = [error(subject, target) for subject, target in zip(subjects, targets, strict=True)]
        each = {f"score/{s.name}": score for s, score in zip(subjects, scores, strict=True)}
        return {"score": float(np.mean(scores))} | (each if len(subjects) > 1 else {})

    return validate


@torch.no_grad()
def network_part(
    mapper: Mapper,
    vae: BrainVAE,
    subject: SubjectData,
    token_layer: str,
    device: torch.device,
    batch_size: int,
) -> NDArray[np.float32]:
    """(n validation images, n_voxels) float32, decoder(mapper(tokens)) in the networks' unit."""
    tokens, n_voxels = subject.validation.tokens, subject.validation.n_voxels
    parts = []
    for start in range(0, len(tokens), batch_size):
        rows = np.arange(start, min(start + batch_size, len(tokens)))
        read = torch.from_numpy(tokens.read(token_layer, rows)).to(device)
        parts.append(vae.decode(mapper(read), n_voxels).float().cpu().numpy())
    return np.concatenate(parts)


@torch.no_grad()
def latent_targets(vae: BrainVAE, subject: SubjectData, device: torch.device, batch_size: int) -> Tensor:
    """(n validation images, tokens, dim) float32 on the CPU, posterior means averaged over trials."""
    pairs = subject.validation
    total = torch.zeros(pairs.n_images, vae.config.tokens, vae.config.dim)
    for start in range(0, pairs.n_trials, batch_size):
        rows = np.arange(start, min(start + batch_size, pairs.n_trials))
        responses = torch.from_numpy(subject.scale.scaled(pairs.trial_responses(rows))).to(device)
        posterior: Posterior = vae.encode(responses)
        total.index_add_(0, torch.from_numpy(pairs.image_of_trial[rows]), posterior.mean.float().cpu())
    return total / torch.from_numpy(pairs.repeats()).clamp(min=1)[:, None, None]


@torch.no_grad()
def _latent_error(
    mapper: Mapper,
    subject: SubjectData,
    target: Tensor,
    token_layer: str,
    device: torch.device,
    batch_size: int,
) -> float:
    total = 0.0
    for start in range(0, len(target), batch_size):
        rows = np.arange(start, min(start + batch_size, len(target)))
        read = torch.from_numpy(subject.validation.tokens.read(token_layer, rows)).to(device)
        wanted = target[start : start + batch_size].to(device)
        total += float((mapper(read).float() - wanted).square().mean(dim=(1, 2)).sum())
    return total / len(target)
