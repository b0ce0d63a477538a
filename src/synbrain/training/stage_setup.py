"""What both training stages are given besides their networks and their configuration."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from accelerate import Accelerator

from synbrain.networks.fit.batches import SubjectData
from synbrain.networks.fit.metrics_log import MetricsLog


@dataclass(frozen=True)
class StageSetup:
    """On whom, where and with which seed the stages are trained.

    Attributes:
        subjects: training and validation images of each subject.
        token_stage: the encoder stage whose tokens stage 1 contrasts the latents with and stage 2 reads.
        weights: of each subject in sampling, one per subject.
        accelerator: device and processes.
        folder: for checkpoints and stored targets.
        log: for metrics.
        seed: of batches and noise.
        identity: what else a checkpoint must agree on.
        show_progress: whether to show bars.
    """

    subjects: list[SubjectData]
    token_stage: str
    weights: list[float]
    accelerator: Accelerator
    folder: Path
    log: MetricsLog
    seed: int
    identity: str = ""
    show_progress: bool = False
