"""How many steps the mapper saves when each image has one target, averaged over its trials.

The objectives differ by a constant, mean_t |f - z_t|^2 = |f - mean_t z_t|^2 + mean_t |z_t - mean_t z_t|^2;
the noise of the gradient falls by the number of trials. What that saves depends on how noisy trials are, so
several levels are run.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from synbrain.models.losses import mapper_loss
from synbrain.models.mapper import Mapper, MapperConfig
from synbrain.training.ema import ema_decay_at, update_ema

N_IMAGES, N_HELD, TRIALS, BATCH, STEPS, EVERY, DECAY = 6000, 300, 3, 24, 3000, 25, 0.995
NOISES = (1.0, 2.0, 4.0)  # sd of a trial's latent around its image's, in sd of the images'
CONFIG = MapperConfig(tokens=4, dim=16, depth=2, heads=2)


def averaged_targets() -> None:
    """Train on single-trial and on averaged targets of a simulated teacher; print steps to equal loss."""
    torch.manual_seed(0)
    teacher = Mapper(CONFIG)
    with torch.no_grad():
        for parameter in teacher.parameters():
            parameter.normal_(std=0.2)
        tokens = torch.randn(N_IMAGES + N_HELD, CONFIG.tokens, CONFIG.dim)
        truth = teacher(tokens)
        truth = (truth - truth.mean(0)) / truth.std()
    images = torch.arange(N_IMAGES)
    for noise in NOISES:
        trials = truth[:N_IMAGES, None] + noise * torch.randn(N_IMAGES, TRIALS, *truth.shape[1:])
        _show_objective(tokens[:BATCH], trials[:BATCH])
        on_trials = _train(tokens, images.repeat_interleave(TRIALS), trials.flatten(0, 1), truth)
        on_means = _train(tokens, images, trials.mean(1), truth)
        best = min(on_trials)
        n_trials, n_means = (_steps_to(best, curve) for curve in (on_trials, on_means))
        print(
            f"averaged: noise {noise}: validation loss {best:.4f}, the best on trials, after {n_trials} "
            f"steps on trials, {n_means} on means: {n_trials / n_means:.2f}x "
            f"(best on means {min(on_means):.4f})",
            flush=True,
        )


def _show_objective(tokens: Tensor, trials: Tensor) -> None:
    student = _student()
    single = torch.stack([mapper_loss(student(tokens), trials[:, t]) for t in range(TRIALS)]).mean()
    mean = mapper_loss(student(tokens), trials.mean(1))
    spread = (trials - trials.mean(1, keepdim=True)).square().mean()
    print(f"averaged: loss on trials {single:.5f} = loss on means {mean:.5f} + spread {spread:.5f}")


def _student() -> Mapper:
    torch.manual_seed(1)
    return Mapper(CONFIG)


def _steps_to(loss: float, curve: list[float]) -> int:
    return EVERY * (1 + next(i for i, value in enumerate(curve) if value <= loss))


def _train(tokens: Tensor, image: Tensor, targets: Tensor, truth: Tensor) -> list[float]:
    """Losses of the averaged weights against the truth of held-out images, every ``EVERY`` steps."""
    student, judged, rng, curve = _student(), _student(), np.random.default_rng(0), []
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-3, weight_decay=0.0, fused=True)
    weights, average = dict(student.named_parameters()), dict(judged.named_parameters())
    for step in range(STEPS):
        rows = torch.from_numpy(rng.integers(0, len(image), BATCH))
        loss = mapper_loss(student(tokens[image[rows]]), targets[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        update_ema(average, weights, ema_decay_at(DECAY, step, warmup=True))
        if (step + 1) % EVERY == 0:
            with torch.no_grad():
                curve.append(mapper_loss(judged(tokens[N_IMAGES:]), truth[N_IMAGES:]).item())
    return curve
