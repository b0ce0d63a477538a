"""The one training loop: every stage of every recipe runs through it.

What happens in a step depends on the configuration, the seed and the step's number alone: batches, noise and
dropout are derived from (seed, step). So a run that was interrupted continues exactly, and several processes
compute what one would compute on the same global batch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from synbrain.errors import SynBrainError
from synbrain.files import digest_of
from synbrain.networks.config import LoopConfig
from synbrain.networks.fit.average import copied, ema_decay_at, load_weights, update_ema
from synbrain.networks.fit.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from synbrain.networks.fit.interrupts import deferred_interrupts
from synbrain.networks.fit.memory import freed_memory_kept
from synbrain.networks.fit.metrics_log import MetricsLog
from synbrain.networks.fit.optimiser import parameter_groups, set_rates
from synbrain.networks.precision import autocast, autocast_dtype, chosen_precision
from synbrain.progress import bar

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Stage:
    """What a stage gives the loop.

    Attributes:
        name: "vae", "mapper" or "tuning"; names rows of the log and the checkpoint folder.
        module: ``module(**batch)`` returns scalars by name, of which "loss" is minimised; parameters
            without ``requires_grad`` are left alone and not stored.
        read_batch: step -> this process's share of the batch, CPU tensors; a pure function, called ahead of
            time in a thread.
        noise_shape: shape of one sample's standard normal noise, given to the module as ``noise``.
        validate: scalars by name on the validation images, of which "score" is to be small; None: nothing is
            held out, every step is taken and the last weights are kept.
        n_steps: last step at most.
        round_steps: steps in a round; validation and the decision to stop come between rounds.
        identity: what else a checkpoint must agree on (a digest of data and sizes).
        threshold_metric: the training scalar that ``stop="train_threshold"`` looks at.
        rate_of: parameter name -> its learning rate, as a multiple of the configured one; None: 1 for all.
        until: step to end at, at the rates of a stage of ``n_steps``; None: ``n_steps``.
    """

    name: str
    module: nn.Module
    read_batch: Callable[[int], Batch]
    validate: Callable[[], dict[str, float]] | None
    n_steps: int
    round_steps: int
    identity: str = ""
    noise_shape: tuple[int, ...] | None = None
    threshold_metric: str = "loss"
    rate_of: Callable[[str], float] | None = None
    until: int | None = None

    @property
    def last_step(self) -> int:
        """Of this stage."""
        return self.n_steps if self.until is None else self.until


@dataclass
class Position:
    """Where a stage stands; all of it goes into the checkpoint."""

    step: int = 0
    best: float | None = None
    best_step: int = 0
    rounds_without: int = 0
    finished: bool = False
    has_kept: bool = False
    kept_step: int = 0
    collected: int = 0  # steps whose metrics are in the sums below
    window: dict[str, float] = field(default_factory=dict)  # sums since the last row of the log
    round: dict[str, float] = field(default_factory=dict)  # sums since the last round


def derived_seed(seed: int, *keys: int) -> int:
    """A 63-bit seed from ``seed`` and ``keys``, well mixed."""
    words = np.random.SeedSequence([seed, *keys]).generate_state(1, np.uint64)
    return int(words[0] >> 1)


def run_stage(
    stage: Stage,
    config: LoopConfig,
    *,
    accelerator: Accelerator,
    folder: Path,
    log: MetricsLog,
    seed: int,
    show_progress: bool,
) -> Position:
    """Train ``stage.module`` in place; in the end it holds the kept weights (best, or averaged).

    Continues from the newest checkpoint in ``folder`` where there is one.

    Raises:
        SynBrainError: a loss that is not finite, a damaged or foreign checkpoint, a full disk.
        KeyboardInterrupt: on Ctrl-C or SIGTERM, after a checkpoint was written.
    """
    run = _Run.begun(stage, config, accelerator, folder, log, seed)
    at = run.at
    log.cut(stage.name, at.step)  # a run that was killed may have logged more than its checkpoint knows
    if at.finished:
        load_weights(run.weights, run.kept)
        return at
    model = run.in_training()
    saved_at = time.monotonic()
    progress = bar(f"train {stage.name}", total=stage.last_step, unit="step", show=show_progress and
                   accelerator.is_main_process, initial=at.step)  # fmt: skip
    with (
        ThreadPoolExecutor(1) as reader,
        deferred_interrupts() as interrupt,
        _random_state_kept(accelerator.device),
        freed_memory_kept(accelerator.device),
    ):
        ahead = reader.submit(stage.read_batch, at.step)
        while at.step < stage.last_step and not at.finished:
            batch = ahead.result()
            ahead = reader.submit(stage.read_batch, min(at.step + 1, stage.last_step - 1))
            run.step(model, batch)
            progress.update(1)
            end_of_round = at.step % stage.round_steps == 0 or at.step == stage.last_step
            late = time.monotonic() - saved_at > 60 * config.checkpoint_minutes
            # clocks of processes differ, and all must take the same way: each collects, the main one saves
            asked, late = _any_process(accelerator, interrupt.asked, late)
            due = late or bool(config.checkpoint_every and at.step % config.checkpoint_every == 0)
            to_log = end_of_round or at.step % config.log_every == 0
            if to_log or asked or due:
                run.collect()
            if to_log:
                run.log_window()
            if end_of_round:
                progress.set_postfix_str(run.end_round())
            if asked or due or at.finished:
                run.save()
                saved_at = time.monotonic()
            if asked and not at.finished:
                raise KeyboardInterrupt
    progress.close()
    load_weights(run.weights, run.kept)
    return at


@dataclass
class _Run:
    """A stage while it is trained: everything that a checkpoint holds, and what a step needs besides.

    Attributes:
        fingerprint: of the configuration; a checkpoint continues only under the same one.
        weights: the trained parameters.
        dtype: of autocast; None: float32.
        average: exponential moving average of the weights, empty where there is none.
        kept: the weights that the stage will end with, so far; on the CPU.
        sums: metrics since they were last collected; on the device, so that no step waits for them.
    """

    stage: Stage
    config: LoopConfig
    accelerator: Accelerator
    folder: Path
    log: MetricsLog
    seed: int
    fingerprint: str
    weights: dict[str, nn.Parameter]
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    dtype: torch.dtype | None
    average: dict[str, Tensor]
    kept: dict[str, Tensor] = field(default_factory=dict)
    at: Position = field(default_factory=Position)
    sums: dict[str, Tensor] = field(default_factory=dict)

    def in_training(self) -> nn.Module:
        """The stage's module, compiled and shared between processes where asked for, in training mode."""
        module = self.stage.module
        if self.config.compile:
            module.compile()
        module.train()
        several = self.accelerator.num_processes > 1
        shared: nn.Module = self.accelerator.prepare_model(module) if several else module
        return shared

    @classmethod
    def begun(
        cls,
        stage: Stage,
        config: LoopConfig,
        accelerator: Accelerator,
        folder: Path,
        log: MetricsLog,
        seed: int,
    ) -> _Run:
        """A new run, or the one that the newest checkpoint in ``folder`` holds."""
        device = accelerator.device
        stage.module.to(device)
        weights = {name: p for name, p in stage.module.named_parameters() if p.requires_grad}
        optimizer = torch.optim.AdamW(
            parameter_groups(weights, stage.rate_of), lr=config.lr, betas=config.betas, eps=config.eps,
            weight_decay=config.weight_decay, fused=config.optimizer == "fused",
        )  # fmt: skip
        precision = chosen_precision(config.precision, device, stage.module)
        dtype = autocast_dtype(precision, device)
        scaler = torch.amp.GradScaler(device.type, enabled=dtype is torch.float16)
        average = {n: p.detach().clone() for n, p in weights.items()} if config.ema_decay else {}
        # what only watches may differ between a run and its continuation
        watching = {"log_every", "checkpoint_every", "checkpoint_minutes"}
        settings = config.model_dump(mode="json", exclude=watching) | {"precision": precision}
        until = [] if stage.until is None else [stage.until]
        fingerprint = digest_of([stage.identity, seed, stage.n_steps, settings, *until])
        run = cls(
            stage, config, accelerator, folder, log, seed, fingerprint, weights, optimizer, scaler, dtype,
            average,
        )  # fmt: skip
        checkpoint = load_checkpoint(folder)
        if checkpoint is not None:
            run.restore(checkpoint)
        return run

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continue where ``checkpoint`` was written."""
        if checkpoint.state["config"] != self.fingerprint:
            raise SynBrainError(
                "the checkpoint was made with another configuration, seed or data",
                "go on with the options of the first call, or pass --overwrite to train from the start",
            )
        load_weights(self.weights, checkpoint.groups["model"])
        for name, tensor in checkpoint.groups.get("ema", {}).items():
            self.average[name].copy_(tensor)
        self.optimizer.load_state_dict(checkpoint.optimizer)
        self.scaler.load_state_dict(checkpoint.state["scaler"])
        self.at = Position(**checkpoint.state["position"])
        self.kept = checkpoint.groups.get("kept", {})

    def save(self) -> None:
        """Write a checkpoint; the main process alone."""
        if self.accelerator.is_main_process:
            groups: dict[str, dict[str, Tensor]] = {
                "model": {**self.weights},
                "ema": self.average,
                "kept": self.kept,
            }
            state = {
                "position": vars(self.at),
                "config": self.fingerprint,
                "scaler": self.scaler.state_dict(),
            }
            save_checkpoint(self.folder, self.at.step, Checkpoint(groups, self.optimizer.state_dict(), state))

    def step(self, model: nn.Module, batch: Batch) -> None:
        """One update of the weights and of their average."""
        config, at, device = self.config, self.at, self.accelerator.device
        on_device = {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}
        if self.stage.noise_shape is not None:
            on_device["noise"] = _noise(self.stage, config, self.accelerator, self.seed, at.step)
        # dropout draws from torch's own state
        torch.manual_seed(derived_seed(self.seed, at.step, self.accelerator.process_index))
        set_rates(self.optimizer, config, at.step, self.stage.n_steps)
        with autocast(device, self.dtype):
            metrics = model(**on_device)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(metrics["loss"]).backward()
        if config.clip_grad:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.weights.values(), config.clip_grad)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if config.ema_decay:
            decay = ema_decay_at(config.ema_decay, at.step, config.ema_warmup)
            update_ema(self.average, dict(self.weights), decay)
        for name, value in metrics.items():
            self.sums[name] = self.sums.get(name, 0.0) + value.detach().double()
        at.step += 1

    def collect(self) -> None:
        """Move the sums of the last steps to the position, as means over processes.

        Raises:
            SynBrainError: where one is not finite.
        """
        at, stage = self.at, self.stage.name
        for name, value in self.sums.items():
            total = float(self.accelerator.reduce(value, reduction="mean").item())
            if not math.isfinite(total):
                raise SynBrainError(
                    f"{name} of stage {stage} is not finite between steps {at.collected} and {at.step}",
                    f"lower --{stage}.lr, set --{stage}.clip_grad 1.0 or --{stage}.precision fp32, or look "
                    "at the responses with `synbrain check`; the last checkpoint was kept",
                )
            for part in (at.window, at.round):
                part[name] = part.get(name, 0.0) + total
        for part in (at.window, at.round):
            part["count"] = part.get("count", 0.0) + at.step - at.collected
        at.collected = at.step
        self.sums.clear()

    def log_window(self) -> None:
        """One row of training metrics, means over the steps since the last one."""
        rate = {"lr": float(self.optimizer.param_groups[0]["lr"])}
        self.log.write(_row(self.stage.name, self.at.step, "train", _means(self.at.window) | rate))
        self.at.window = {}

    def end_round(self) -> str:
        """Validate, decide which weights are kept and whether the stage ends; gives what a bar says of it."""
        at, text = self.at, ""
        at.finished = at.step == self.stage.last_step
        keeps = at.finished
        if self.stage.validate is not None:
            scores = self.validate(self.stage.validate)
            self.log.write(_row(self.stage.name, at.step, "validation", scores))
            train = _means(at.round)[self.stage.threshold_metric]
            keeps, ends = _decide(self.config, at, scores["score"], train)
            at.finished = at.finished or ends
            text = f"validation {scores['score']:.4g}, best {at.best or 0:.4g}"
        if keeps:
            self.kept, at.has_kept, at.kept_step = copied(self.average or self.weights), True, at.step
        at.round = {}
        return text

    def validate(self, scores_of: Callable[[], dict[str, float]]) -> dict[str, float]:
        """Scores on validation images under the averaged weights; the trained ones come back afterwards."""
        trained = {name: p.detach().clone() for name, p in self.weights.items()} if self.average else {}
        load_weights(self.weights, self.average)
        self.stage.module.eval()
        with torch.no_grad(), autocast(self.accelerator.device, self.dtype):
            scores = scores_of()
        self.stage.module.train()
        load_weights(self.weights, trained)
        return scores


def _decide(config: LoopConfig, at: Position, score: float, train: float) -> tuple[bool, bool]:
    """Update ``at`` after a round; whether its weights are the ones to keep, and whether the stage ends."""
    better = at.best is None or score < at.best - config.min_improvement * abs(at.best)
    if better:
        at.best, at.best_step, at.rounds_without = score, at.step, 0
    else:
        at.rounds_without += 1
    if config.stop == "validation":
        return better or not at.has_kept, at.rounds_without >= config.patience
    if config.stop == "train_threshold":
        ends = train < config.stop_threshold
        # the published code leaves its loop before it saves, so the round before is what it keeps
        return not ends or config.keep_stopping_round or not at.has_kept, ends
    return True, False


def _random_state_kept(device: torch.device) -> Any:
    """Leave the caller's random state as it was."""
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])


def _noise(stage: Stage, config: LoopConfig, accelerator: Accelerator, seed: int, step: int) -> Tensor:
    """This process's rows of the global batch's noise: the same whatever the number of processes."""
    assert stage.noise_shape is not None
    generator = torch.Generator(accelerator.device).manual_seed(derived_seed(seed, step, 1 << 20))
    noise = torch.randn(config.batch_size, *stage.noise_shape, generator=generator, device=accelerator.device)
    share = config.batch_size // accelerator.num_processes
    return noise[accelerator.process_index * share :][:share]


def _any_process(accelerator: Accelerator, *flags: bool) -> list[bool]:
    """Which flags are up in one process at least."""
    if accelerator.num_processes == 1:
        return list(flags)
    raised = torch.tensor([float(flag) for flag in flags], device=accelerator.device)
    return [count > 0 for count in accelerator.reduce(raised, reduction="sum").tolist()]


def _means(part: dict[str, float]) -> dict[str, float]:
    count = part["count"]
    return {name: value / count for name, value in part.items() if name != "count"}


def _row(stage: str, step: int, split: str, values: dict[str, float]) -> dict[str, Any]:
    return {"stage": stage, "step": step, "split": split, **values}
