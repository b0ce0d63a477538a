"""What a training will take before it starts: parameters, arithmetic, memory, time."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from synbrain.networks.presets import activation_bytes, parameter_counts, preset, step_gflop
from synbrain.training.config import TrainConfig

BATCHES = (1, 8, 24, 64)
ATTAINED = 0.5  # share of the measured matmul rate that a whole step is taken to reach


@dataclass(frozen=True)
class TrainingCost:
    """Cost of the two network stages of one training.

    Attributes:
        parameters: as :func:`synbrain.networks.presets.parameter_counts` names them.
        gflop: per sample, as :func:`synbrain.networks.presets.step_gflop` names them.
        steps: stage -> steps at most (early stopping may end it before).
        batch: stage -> samples a step.
        state_bytes: stage -> weights, gradients and AdamW's two moments in float32, plus the average.
        activation: stage -> bytes of saved activations per sample, float32.
    """

    parameters: dict[str, int]
    gflop: dict[str, float]
    steps: dict[str, int]
    batch: dict[str, int]
    state_bytes: dict[str, int]
    activation: dict[str, int]

    def step_gflop(self, stage: str) -> float:
        """GFLOP of one whole step of "vae" or "mapper"."""
        return self.gflop[f"{stage}_step"] * self.batch[stage]

    def memory(self, stage: str, batch: int) -> int:
        """Bytes that one step of ``batch`` samples holds."""
        return self.state_bytes[stage] + batch * self.activation[stage]

    def seconds(self, stage: str, gflop_per_second: float) -> float:
        """Longest time of a stage, at the share ``ATTAINED`` of a measured matmul rate."""
        return self.steps[stage] * self.step_gflop(stage) / (ATTAINED * gflop_per_second)


def training_cost(
    config: TrainConfig, n_voxels: int, n_trials: int, tokens: tuple[int, int] | None = None
) -> TrainingCost:
    """Cost of the networks of ``config``; nothing is allocated. Linear path and noise are not counted.

    Args:
        config: the resolved training configuration.
        n_voxels: of a response.
        n_trials: training trials of all subjects, validation images included.
        tokens: (n_tokens, dim) of the stage that the networks read; None: the preset's own.
    """
    sizes = preset(config.preset, tokens)
    parameters = parameter_counts(sizes.vae, sizes.mapper)
    used = max(1, round(n_trials * (1 - config.validation_fraction)))
    batch = {"vae": config.vae.batch_size, "mapper": config.mapper.batch_size}
    averaged = {"vae": config.vae.ema_decay > 0, "mapper": config.mapper.ema_decay > 0}
    return TrainingCost(
        parameters=parameters,
        gflop=step_gflop(sizes.vae, sizes.mapper, n_voxels),
        steps={"vae": config.vae.epochs * -(-used // batch["vae"]), "mapper": config.mapper.steps},
        batch=batch,
        state_bytes={stage: parameters[stage] * 4 * (4 + averaged[stage]) for stage in batch},
        activation=activation_bytes(sizes.vae, sizes.mapper, n_voxels),
    )


def matmul_rate(device: str = "cpu", size: int = 1024, repeats: int = 4) -> float:
    """GFLOP per second of a float32 matrix product here and now (the best of a few)."""
    a = torch.randn(size, size, device=device)
    best = float("inf")
    for _ in range(repeats + 1):  # the first one warms up
        begin = time.perf_counter()
        (a @ a).sum().item()
        best = min(best, time.perf_counter() - begin)
    return 2 * size**3 / best / 1e9
