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
from contextlib import nullcontext
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
from synbrain.networks.fit.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from synbrain.networks.fit.interrupts import deferred_interrupts
from synbrain.networks.fit.metrics_log import MetricsLog
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
        validate: scalars by name on the validation images, of which "score" is to be small.
        n_steps: last step at most.
        round_steps: steps in a round; validation and the decision to stop come between rounds.
        identity: what else a checkpoint must agree on (a digest of data and sizes).
        threshold_metric: the training scalar that ``stop="train_threshold"`` looks at.
        rate_of: parameter name -> its learning rate, as a multiple of the configured one; None: 1 for all.
    """

    name: str
    module: nn.Module
    read_batch: Callable[[int], Batch]
    validate: Callable[[], dict[str, float]]
    n_steps: int
    round_steps: int
    identity: str = ""
    noise_shape: tuple[int, ...] | None = None
    threshold_metric: str = "loss"
    rate_of: Callable[[str], float] | None = None


@dataclass
class Position:
    """Where a stage stands; all of it goes into the checkpoint."""

    step: int = 0
    best: float | None = None
    best_step: int = 0
    rounds_without: int = 0
    finished: bool = False
    has_kept: bool = False
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
        SynBrainError: a loss that is not finite, a damaged checkpoint, one of another configuration, a full
            disk.
        KeyboardInterrupt: on Ctrl-C or SIGTERM, after a checkpoint was written.
    """
    device = accelerator.device
    stage.module.to(device)
    weights = {name: p for name, p in stage.module.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(
        _groups(stage, weights), lr=config.lr, betas=config.betas, eps=config.eps,
        weight_decay=config.weight_decay, fused=config.optimizer == "fused",
    )  # fmt: skip
    dtype = autocast_dtype(config.precision, device)
    scaler = torch.amp.GradScaler(device.type, enabled=dtype is torch.float16)
    average = {n: p.detach().clone() for n, p in weights.items()} if config.ema_decay else {}
    kept: dict[str, Tensor] = {}
    at = Position()
    watching = {"log_every", "checkpoint_every", "checkpoint_minutes"}
    print_of_config = digest_of(
        [stage.identity, seed, stage.n_steps, config.model_dump(mode="json", exclude=watching)]
    )
    checkpoint = load_checkpoint(folder)
    if checkpoint is not None:
        at, kept = _restore(checkpoint, print_of_config, weights, average, optimizer, scaler)
    log.cut(stage.name, at.step)  # a run that was killed may have told more than its checkpoint knows
    if at.finished:
        load_weights(weights, kept)
        return at
    if config.compile:
        stage.module.compile()
    model = accelerator.prepare_model(stage.module) if accelerator.num_processes > 1 else stage.module

    def save() -> None:
        if accelerator.is_main_process:
            groups: dict[str, dict[str, Tensor]] = {"model": {**weights}, "ema": average, "kept": kept}
            state = {"position": vars(at), "config": print_of_config, "scaler": scaler.state_dict()}
            save_checkpoint(folder, at.step, Checkpoint(groups, optimizer.state_dict(), state))

    def validate() -> dict[str, float]:
        trained = {name: p.detach().clone() for name, p in weights.items()} if average else {}
        load_weights(weights, average)
        stage.module.eval()
        with torch.no_grad(), _autocast(device, dtype):
            scores = stage.validate()
        stage.module.train()
        load_weights(weights, trained)
        return scores

    stage.module.train()
    sums: dict[str, Tensor] = {}  # on the device, moved to ``at`` between windows: no wait in each step
    saved_at = time.monotonic()
    progress = bar(f"train {stage.name}", total=stage.n_steps, unit="step", show=show_progress and
                   accelerator.is_main_process, initial=at.step)  # fmt: skip
    with ThreadPoolExecutor(1) as reader, deferred_interrupts() as interrupt, _own_rng(device):
        ahead = reader.submit(stage.read_batch, at.step)
        while at.step < stage.n_steps and not at.finished:
            batch = {name: tensor.to(device, non_blocking=True) for name, tensor in ahead.result().items()}
            ahead = reader.submit(stage.read_batch, min(at.step + 1, stage.n_steps - 1))
            if stage.noise_shape is not None:
                batch["noise"] = _noise(stage, config, accelerator, seed, at.step)
            torch.manual_seed(derived_seed(seed, at.step, accelerator.process_index))  # dropout
            _set_lr(optimizer, config, at.step, stage.n_steps)
            with _autocast(device, dtype):
                metrics = model(**batch)
            optimizer.zero_grad(set_to_none=True)
            scaler.scale(metrics["loss"]).backward()
            if config.clip_grad:
                scaler.unscale_(optimizer)
                nn.utils.clip_grad_norm_(weights.values(), config.clip_grad)
            scaler.step(optimizer)
            scaler.update()
            if config.ema_decay:
                decay = ema_decay_at(config.ema_decay, at.step, config.ema_warmup)
                update_ema(average, dict(weights), decay)
            for name, value in metrics.items():
                sums[name] = sums.get(name, 0.0) + value.detach().double()
            at.step += 1
            progress.update(1)
            last = at.step == stage.n_steps
            end_of_round = at.step % stage.round_steps == 0 or last
            asked = _any_process(accelerator, interrupt.asked)
            due = config.checkpoint_every and at.step % config.checkpoint_every == 0
            by_clock = time.monotonic() - saved_at > 60 * config.checkpoint_minutes
            if end_of_round or asked or due or by_clock or at.step % config.log_every == 0:
                _collect(at, sums, stage.name, accelerator)
            if at.step % config.log_every == 0 or end_of_round:
                rate = {"lr": float(optimizer.param_groups[0]["lr"])}
                log.write(_row(stage.name, at.step, "train", _means(at.window) | rate))
                at.window = {}
            if end_of_round:
                scores = validate()
                log.write(_row(stage.name, at.step, "validation", scores))
                best = _decide(config, at, scores["score"], _means(at.round)[stage.threshold_metric])
                progress.set_postfix_str(f"validation {scores['score']:.4g}, best {at.best or 0:.4g}")
                at.round = {}
                if best:
                    kept, at.has_kept = _copy(average or weights), True
                at.finished = at.finished or last
            if asked or due or by_clock or at.finished:
                save()
                saved_at = time.monotonic()
            if asked and not at.finished:
                raise KeyboardInterrupt
    progress.close()
    load_weights(weights, kept)
    return at


def _decide(config: LoopConfig, at: Position, score: float, train: float) -> bool:
    """Update ``at`` after a round; True where its weights are the ones to keep."""
    better = at.best is None or score < at.best - config.min_improvement * abs(at.best)
    if better:
        at.best, at.best_step, at.rounds_without = score, at.step, 0
    else:
        at.rounds_without += 1
    if config.stop == "validation":
        at.finished = at.rounds_without >= config.patience
        return better or not at.has_kept
    if config.stop == "train_threshold":
        at.finished = train < config.stop_threshold
        # the published code leaves its loop before it saves, so the round before is what it keeps
        return not at.finished or config.keep_stopping_round or not at.has_kept
    return True


def autocast_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """The autocast dtype, None for float32. Both halves run on a CPU too, most of which emulate them.

    Raises:
        SynBrainError: where torch's autocast has not got that precision on ``device``.
    """
    if precision == "fp32":
        return None
    if not torch.amp.is_autocast_available(device.type):
        raise SynBrainError(
            f"{device.type} has no {precision}", "pass --vae.precision fp32 and --mapper.precision fp32"
        )
    return torch.bfloat16 if precision == "bf16" else torch.float16


def _autocast(device: torch.device, dtype: torch.dtype | None) -> Any:
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)


def _own_rng(device: torch.device) -> Any:
    """Leave the caller's random state as it was."""
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])


def load_weights(weights: dict[str, nn.Parameter], values: dict[str, Tensor]) -> None:
    """Copy ``values`` into parameters of the same names."""
    with torch.no_grad():
        for name, value in values.items():
            weights[name].copy_(value)


def _copy(tensors: Any) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}


def _noise(stage: Stage, config: LoopConfig, accelerator: Accelerator, seed: int, step: int) -> Tensor:
    """This process's rows of the global batch's noise: the same whatever the number of processes."""
    assert stage.noise_shape is not None
    generator = torch.Generator(accelerator.device).manual_seed(derived_seed(seed, step, 1 << 20))
    noise = torch.randn(config.batch_size, *stage.noise_shape, generator=generator, device=accelerator.device)
    share = config.batch_size // accelerator.num_processes
    return noise[accelerator.process_index * share :][:share]


def _set_lr(optimizer: torch.optim.Optimizer, config: LoopConfig, step: int, n_steps: int) -> None:
    factor = min(1.0, (step + 1) / (config.warmup_steps + 1))
    if config.schedule == "cosine":
        factor *= 0.5 * (1 + math.cos(math.pi * step / n_steps))
    for group in optimizer.param_groups:
        group["lr"] = config.lr * factor * group.get("rate", 1.0)


def _groups(stage: Stage, weights: dict[str, nn.Parameter]) -> list[dict[str, Any]]:
    """Parameters by the multiple of the learning rate that they get."""
    if stage.rate_of is None:
        return [{"params": list(weights.values())}]
    rates = {name: stage.rate_of(name) for name in weights}
    return [
        {"params": [p for name, p in weights.items() if rates[name] == rate], "rate": rate}
        for rate in sorted(set(rates.values()))
    ]


def _any_process(accelerator: Accelerator, asked: bool) -> bool:
    if accelerator.num_processes == 1:
        return asked
    flag = torch.tensor(float(asked), device=accelerator.device)
    return bool(accelerator.reduce(flag, reduction="sum").item() > 0)


def _collect(at: Position, sums: dict[str, Tensor], stage: str, accelerator: Accelerator) -> None:
    """Move the sums of the last steps into ``at``, as means over processes; refuse what is not finite."""
    for name, value in sums.items():
        total = float(accelerator.reduce(value, reduction="mean").item())
        if not math.isfinite(total):
            raise SynBrainError(
                f"{name} of stage {stage} is not finite between steps {at.collected} and {at.step}",
                f"lower --{stage}.lr, set --{stage}.clip_grad 1.0 or --{stage}.precision fp32, or look at "
                "the responses with `synbrain check`; the last checkpoint was kept",
            )
        for part in (at.window, at.round):
            part[name] = part.get(name, 0.0) + total
    for part in (at.window, at.round):
        part["count"] = part.get("count", 0.0) + at.step - at.collected
    at.collected = at.step
    sums.clear()


def _means(part: dict[str, float]) -> dict[str, float]:
    count = part["count"]
    return {name: value / count for name, value in part.items() if name != "count"}


def _row(stage: str, step: int, split: str, values: dict[str, float]) -> dict[str, Any]:
    return {"stage": stage, "step": step, "split": split, **values}


def _restore(
    checkpoint: Checkpoint,
    print_of_config: str,
    weights: dict[str, nn.Parameter],
    average: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
) -> tuple[Position, dict[str, Tensor]]:
    if checkpoint.state["config"] != print_of_config:
        raise SynBrainError(
            "the checkpoint was made with another configuration, seed or data",
            "give --resume the options of the first call, or pass --overwrite to train from the start",
        )
    load_weights(weights, checkpoint.groups["model"])
    for name, tensor in checkpoint.groups.get("ema", {}).items():
        average[name].copy_(tensor)
    optimizer.load_state_dict(checkpoint.optimizer)
    scaler.load_state_dict(checkpoint.state["scaler"])
    return Position(**checkpoint.state["position"]), checkpoint.groups.get("kept", {})


def ema_decay_at(decay: float, step: int, warmup: bool) -> float:
    """The decay of update number ``step`` (0-based).

    With warm-up it rises as (1 + t) / (10 + t), so that the average follows a young run; without it
    (the published setting), a decay of .9999 leaves a run of a few hundred steps at its initial weights.
    """
    return min(decay, (1 + step) / (10 + step)) if warmup else decay


@torch.no_grad()
def update_ema(average: dict[str, Tensor], parameters: dict[str, Tensor], decay: float) -> None:
    """Move ``average`` towards ``parameters`` in place: a <- decay * a + (1 - decay) * p."""
    averages = list(average.values())
    if averages:
        torch._foreach_lerp_(averages, [parameters[name].detach() for name in average], 1.0 - decay)
