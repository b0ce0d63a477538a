"""Which samples a step sees: a pure function of seed and step, one subject a batch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from accelerate import Accelerator
from numpy.typing import NDArray

from synbrain.arrays import Rows
from synbrain.errors import SynBrainError
from synbrain.features.scale import Scale
from synbrain.features.tokens import Pairs
from synbrain.networks.fit.metrics_log import MetricsLog


@dataclass(frozen=True)
class SubjectData:
    """One subject's training images, split once more, with the scale that the networks see.

    Attributes:
        name: of the subject, unique in a run.
        train: pairs of the images that weights are fitted on.
        validation: pairs of the held-out training images (never test images).
        scale: from the dataset's unit to the networks'.
        offset: (n train images, n_voxels) float32, predictions that the networks' part is added to, in the
            networks' unit (cross-fitted linear predictions); None: zeros.
        validation_offset: the same for the validation images.
    """

    name: str
    train: Pairs
    validation: Pairs
    scale: Scale
    offset: NDArray[np.float32] | None = None
    validation_offset: NDArray[np.float32] | None = None

    @cached_property
    def validation_means(self) -> NDArray[np.float32]:
        """(n validation images, n_voxels) float32, repeat means in the networks' unit; read once."""
        return self.scale.scaled(self.validation.repeat_means())


@dataclass(frozen=True)
class Schedule:
    """The subject of every step of a stage.

    Attributes:
        subject: (n_steps,) int64, index of the subject that a step sees.
        turn: (n_steps,) int64, how many batches of that subject came before.
    """

    subject: NDArray[np.int64]
    turn: NDArray[np.int64]


def make_schedule(n_steps: int, weights: list[float], seed: int) -> Schedule:
    """Draw the subject of each step with probability proportional to its weight."""
    shares = np.asarray(weights, dtype=np.float64)
    if len(shares) == 0 or (shares < 0).any() or shares.sum() <= 0:
        raise SynBrainError(f"sampling weights {weights} draw nobody", "give positive subject weights")
    generator = np.random.default_rng([seed, 1])
    subject = generator.choice(len(shares), size=n_steps, p=shares / shares.sum()).astype(np.int64)
    turn = np.empty(n_steps, dtype=np.int64)
    for which in range(len(shares)):
        turn[subject == which] = np.arange(np.count_nonzero(subject == which))
    return Schedule(subject, turn)


def batch_rows(n_items: int, batch_size: int, turn: int, seed: int) -> Rows:
    """(batch_size,) int64, the items of batch number ``turn``.

    Epochs follow each other without a gap: each is a permutation of its own, drawn from (seed, epoch), and
    a batch may begin in one and end in the next. So every batch is full and no sample is left out.
    """
    first, last = turn * batch_size, (turn + 1) * batch_size
    rows = []
    for epoch in range(first // n_items, (last - 1) // n_items + 1):
        order = np.random.default_rng([seed, 2, epoch]).permutation(n_items)
        start = epoch * n_items
        rows.append(order[max(first - start, 0) : last - start])
    return np.concatenate(rows)


def share_of(rows: Rows, process: int, n_processes: int) -> Rows:
    """The rows of one process out of a global batch."""
    if len(rows) % n_processes:
        raise SynBrainError(
            f"a batch of {len(rows)} cannot be shared by {n_processes} processes",
            f"choose --vae.batch-size and --mapper.batch-size as multiples of {n_processes}",
        )
    size = len(rows) // n_processes
    return rows[process * size : (process + 1) * size]


@dataclass(frozen=True)
class StageSetup:
    """On whom, where and with which seed the stages are trained.

    Attributes:
        subjects: training and validation images of each subject.
        token_layer: the encoder layer whose tokens stage 1 contrasts the latents with and stage 2 reads.
        weights: of each subject in sampling, one per subject.
        accelerator: device and processes.
        folder: for checkpoints and stored targets.
        log: for metrics.
        seed: of batches and noise.
        identity: what else a checkpoint must agree on.
        show_progress: whether to show bars.
    """

    subjects: list[SubjectData]
    token_layer: str
    weights: list[float]
    accelerator: Accelerator
    folder: Path
    log: MetricsLog
    seed: int
    identity: str = ""
    show_progress: bool = False
