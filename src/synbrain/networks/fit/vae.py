"""Stage 1: BrainVAE on one subject's batch at a time."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from synbrain.features.tokens import Pairs
from synbrain.networks.brainvae import BrainVAE
from synbrain.networks.config import VAEStageConfig
from synbrain.networks.fit.batches import StageSetup, SubjectData, batch_rows, make_schedule, share_of
from synbrain.networks.fit.loop import Batch, Position, Stage, derived_seed, run_stage
from synbrain.networks.losses import contrastive_target, vae_losses


class VAEStep(nn.Module):
    """One batch to its loss; the module that processes are synchronised around."""

    def __init__(self, vae: BrainVAE, config: VAEStageConfig) -> None:
        super().__init__()
        self.vae = vae
        self.config = config

    def forward(self, responses: Tensor, tokens: Tensor, noise: Tensor) -> dict[str, Tensor]:
        """The loss and its parts (networks/losses.py).

        Args:
            responses: (batch, n_voxels) float32, in the networks' unit.
            tokens: (batch, n_tokens, dim) float32, of the images shown.
            noise: (batch, latent tokens, latent dim) float32, standard normal.
        """
        recon, posterior, latent = self.vae(responses, noise if self.config.sampling else None)
        aim = contrastive_target(tokens, *latent.shape[1:])
        losses = vae_losses(recon, responses, posterior, latent, aim, self.config.loss)
        return {
            "loss": losses.total,
            "reconstruction": losses.reconstruction,
            "kl": losses.kl,
            "contrastive": losses.soft_clip,
        }


def samples_of(pairs: Pairs, kind: str) -> int:
    """Number of samples: trials, or images."""
    return pairs.n_trials if kind == "trials" else pairs.n_images


def train_vae(vae: BrainVAE, config: VAEStageConfig, setup: StageSetup) -> Position:
    """Train ``vae`` in place until its stop rule or its last epoch.

    Args:
        vae: the network, of any size.
        config: of this stage.
        setup: on whom, where and with which seed.
    """
    subjects, accelerator, seed = setup.subjects, setup.accelerator, setup.seed
    per_epoch = sum(samples_of(s.train, config.responses) for s in subjects) / config.batch_size
    round_steps = max(1, math.ceil(per_epoch))
    n_steps = round_steps * config.epochs
    schedule = make_schedule(n_steps, setup.weights, seed)
    means = [s.train.repeat_means() if config.responses == "image_mean" else None for s in subjects]

    def read_batch(step: int) -> Batch:
        which = int(schedule.subject[step])
        subject, mean = subjects[which], means[which]
        rows = share_of(
            batch_rows(
                samples_of(subject.train, config.responses),
                config.batch_size,
                int(schedule.turn[step]),
                derived_seed(seed, which),
            ),
            accelerator.process_index,
            accelerator.num_processes,
        )
        images = rows if mean is not None else subject.train.image_of_trial[rows]
        responses = mean[rows] if mean is not None else subject.train.trial_responses(rows)
        return {
            "responses": torch.from_numpy(subject.scale.scaled(responses)),
            "tokens": torch.from_numpy(subject.train.tokens.read(setup.token_layer, images)),
        }

    def validate() -> dict[str, float]:
        scores = [validation_error(vae, s, accelerator.device, config.batch_size) for s in subjects]
        each = {f"score/{s.name}": score for s, score in zip(subjects, scores, strict=True)}
        return {"score": float(np.mean(scores))} | (each if len(subjects) > 1 else {})

    stage = Stage(
        name="vae",
        module=VAEStep(vae, config),
        read_batch=read_batch,
        validate=validate,
        n_steps=n_steps,
        round_steps=round_steps,
        identity=setup.identity,
        noise_shape=(vae.config.tokens, vae.config.dim),
        threshold_metric="reconstruction",
    )
    return run_stage(
        stage,
        config,
        accelerator=accelerator,
        folder=setup.folder / "vae",
        log=setup.log,
        seed=derived_seed(seed, 11),
        show_progress=setup.show_progress,
    )


@torch.no_grad()
def validation_error(vae: BrainVAE, subject: SubjectData, device: torch.device, batch_size: int) -> float:
    """Squared error per voxel of decode(posterior mean) over held-out trials, in the networks' unit."""
    pairs, total = subject.validation, 0.0
    for start in range(0, pairs.n_trials, batch_size):
        rows = np.arange(start, min(start + batch_size, pairs.n_trials))
        responses = torch.from_numpy(subject.scale.scaled(pairs.trial_responses(rows))).to(device)
        decoded = vae.decode(vae.encode(responses).mean, responses.shape[1])
        total += float((decoded.float() - responses).square().mean(dim=1).sum())
    return total / pairs.n_trials
