"""The loop: exact continuation, early stopping, averaging, refusal of bad numbers and bad files."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from synbrain.errors import SynBrainError
from synbrain.networks.config import LoopConfig
from synbrain.networks.fit.average import ema_decay_at
from synbrain.networks.fit.checkpoints import Checkpoint, list_checkpoints, load_checkpoint, save_checkpoint
from synbrain.networks.fit.loop import Position, Stage, derived_seed, run_stage
from synbrain.networks.fit.metrics_log import LOG_NAME, MetricsLog, read_log


class Toy(nn.Module):
    """Linear regression with dropout and noise, so that every kind of randomness matters."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 1)
        nn.init.zeros_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)

    def forward(self, x: Tensor, y: Tensor, noise: Tensor) -> dict[str, Tensor]:
        guess = self.layer(nn.functional.dropout(x, 0.2, self.training) + 0.1 * noise)
        return {"loss": (guess - y).square().mean()}


def toy_stage(module: nn.Module, *, n_steps: int = 20, round_steps: int = 5, scores: Any = None) -> Stage:
    def read_batch(step: int) -> dict[str, Tensor]:
        x = torch.randn(8, 4, generator=torch.Generator().manual_seed(derived_seed(1, step)))
        return {"x": x, "y": x.sum(dim=1, keepdim=True)}

    def validate() -> dict[str, float]:
        if scores is not None:
            return {"score": next(scores)}
        return {"score": float((module.get_parameter("layer.weight") - 1).square().sum())}

    return Stage("vae", module, read_batch, validate, n_steps, round_steps, noise_shape=(4,))


def run(stage: Stage, config: LoopConfig, common: dict[str, Any], folder: Path) -> Position:
    kept = {key: common[key] for key in ("accelerator", "seed")}
    return run_stage(
        stage, config, folder=folder / "vae", log=MetricsLog(folder), show_progress=False, **kept
    )


CONFIG = LoopConfig(
    lr=0.05, batch_size=8, log_every=1, stop="never", ema_decay=0.9, checkpoint_every=3, clip_grad=1.0
)


class CrashError(Exception):
    pass


@pytest.mark.parametrize("at", [1, 7, 13])  # before any checkpoint; within a round; after a round
@pytest.mark.parametrize("how", ["kill", "interrupt"])
def test_an_interrupted_run_continues_exactly(
    at: int, how: str, common: dict[str, Any], tmp_path: Path
) -> None:
    whole = Toy()
    run(toy_stage(whole), CONFIG, common, tmp_path / "whole")
    first = toy_stage(Toy())
    read = first.read_batch

    def breaking(step: int) -> dict[str, Tensor]:
        if step == at:
            if how == "kill":
                raise CrashError
            os.kill(os.getpid(), signal.SIGINT)
        return read(step)

    broken = Stage(**{**vars(first), "read_batch": breaking})
    with pytest.raises(CrashError if how == "kill" else KeyboardInterrupt):
        run(broken, CONFIG, common, tmp_path / "broken")
    if how == "interrupt":
        assert list_checkpoints(tmp_path / "broken" / "vae"), "Ctrl-C writes a checkpoint"
    resumed = Toy()
    run(toy_stage(resumed), CONFIG, common, tmp_path / "broken")
    assert read_log(tmp_path / "whole" / LOG_NAME) == read_log(tmp_path / "broken" / LOG_NAME)
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_finished_stage_is_not_trained_again(common: dict[str, Any], tmp_path: Path) -> None:
    first, again = Toy(), Toy()
    run(toy_stage(first), CONFIG, common, tmp_path)
    rows = read_log(tmp_path / LOG_NAME)
    run(toy_stage(again), CONFIG, common, tmp_path)
    assert read_log(tmp_path / LOG_NAME) == rows
    assert torch.equal(first.layer.weight, again.layer.weight)


def test_the_callers_random_state_is_left_alone(common: dict[str, Any], tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    stage = toy_stage(Toy())
    torch.manual_seed(5)
    run(stage, CONFIG, common, tmp_path)
    assert torch.equal(torch.rand(3), expected)


def test_early_stopping_keeps_the_best_weights(common: dict[str, Any], tmp_path: Path) -> None:
    config = LoopConfig(lr=0.05, stop="validation", patience=2, batch_size=8)
    module = Toy()
    seen: list[Tensor] = []

    def scores() -> Any:
        for score in (3.0, 1.0, 2.0, 2.0, 0.0):
            seen.append(module.layer.weight.detach().clone())
            yield score

    at = run(toy_stage(module, n_steps=100, scores=scores()), config, common, tmp_path)
    assert (at.step, at.best_step) == (20, 10)
    assert torch.equal(module.layer.weight, seen[1])


@pytest.mark.parametrize("until", [7, 10])  # within a round, at its end
def test_a_stage_that_ends_early_is_the_beginning_of_a_whole_one(
    until: int, common: dict[str, Any], tmp_path: Path
) -> None:
    """Rates, noise and the average are those of all steps; nothing is held out and the last weights stay."""
    config = CONFIG.model_copy(update={"schedule": "cosine", "ema_decay": 0.0, "stop": "validation"})
    seen: list[Tensor] = []
    whole = Toy()
    stage = toy_stage(whole, round_steps=1)
    looked = Stage(**{**vars(stage), "validate": lambda: seen.append(whole.layer.weight.detach().clone())
                      or {"score": -len(seen)}})  # fmt: skip
    assert run(looked, config, common, tmp_path / "whole").kept_step == 20
    part, folder = Toy(), tmp_path / "part"
    ending = {"validate": None, "until": until}
    at = run(Stage(**{**vars(toy_stage(part)), **ending}), config, common, folder)
    assert (at.step, at.kept_step, at.finished) == (until, until, True)
    assert torch.equal(part.layer.weight, seen[until - 1])
    assert not [row for row in read_log(folder / LOG_NAME) if row["split"] == "validation"]
    with pytest.raises(SynBrainError, match="another configuration"):  # not the checkpoint of another step
        run(Stage(**{**vars(toy_stage(Toy())), **ending, "until": 12}), config, common, folder)


@pytest.mark.parametrize(("keep", "kept_round"), [(True, 2), (False, 1)])
def test_quirk_threshold_stop_and_its_lost_round(
    keep: bool, kept_round: int, common: dict[str, Any], tmp_path: Path
) -> None:
    """The published loop stops once the epoch's training loss is low, and loses that epoch."""
    module, seen = Toy(), []
    stage = toy_stage(module, n_steps=100)

    def validate() -> dict[str, float]:
        seen.append(module.layer.weight.detach().clone())
        return {"score": 0.0}

    stage = Stage(**{**vars(stage), "validate": validate})
    losses = LoopConfig(lr=0.05, stop="never", batch_size=8)
    run(stage, losses, common, tmp_path / "a")
    rows = read_log(tmp_path / "a" / LOG_NAME)
    means = [row["loss"] for row in rows if row["split"] == "train"]  # log_every 20 > round: one a round
    threshold = (means[0] + means[1]) / 2
    seen.clear()
    module.load_state_dict(Toy().state_dict())
    config = LoopConfig(
        lr=0.05, stop="train_threshold", stop_threshold=threshold, keep_stopping_round=keep, batch_size=8
    )
    at = run(stage, config, common, tmp_path / "b")
    assert at.step == 10
    assert torch.equal(module.layer.weight, seen[kept_round - 1])


@pytest.mark.parametrize("warmup", [True, False])
def test_quirk_ema_without_warmup_stays_at_the_start(
    warmup: bool, common: dict[str, Any], tmp_path: Path
) -> None:
    config = LoopConfig(lr=0.05, stop="never", ema_decay=0.9999, ema_warmup=warmup, batch_size=8)
    module = Toy()
    run(toy_stage(module, n_steps=60), config, common, tmp_path)
    distance = float(module.layer.weight.detach().abs().max())
    assert (distance > 0.3) if warmup else (distance < 0.01)
    assert ema_decay_at(0.9999, 0, warmup) == (0.1 if warmup else 0.9999)


def test_a_loss_that_is_not_finite_stops_with_a_mend(common: dict[str, Any], tmp_path: Path) -> None:
    stage = toy_stage(Toy())

    def poisoned(step: int) -> dict[str, Tensor]:
        batch = toy_stage(Toy()).read_batch(step)
        return {**batch, "y": batch["y"] * float("nan")} if step == 7 else batch

    with pytest.raises(SynBrainError, match=r"not finite.*lower --vae\.lr"):
        run(Stage(**{**vars(stage), "read_batch": poisoned}), CONFIG, common, tmp_path)
    checkpoint = load_checkpoint(tmp_path / "vae")
    assert checkpoint is not None
    assert all(torch.isfinite(t).all() for t in checkpoint.groups["model"].values())


def test_other_settings_do_not_continue_a_checkpoint(common: dict[str, Any], tmp_path: Path) -> None:
    run(toy_stage(Toy()), CONFIG, common, tmp_path)
    with pytest.raises(SynBrainError, match="another configuration"):
        run(toy_stage(Toy()), CONFIG.model_copy(update={"lr": 0.1}), common, tmp_path)


@pytest.mark.parametrize("name", ["weights.safetensors", "optimizer.pt", "state.json"])
def test_a_tampered_checkpoint_is_told(name: str, common: dict[str, Any], tmp_path: Path) -> None:
    run(toy_stage(Toy()), CONFIG, common, tmp_path)
    path = list_checkpoints(tmp_path / "vae")[-1] / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(SynBrainError, match=r"damaged.*checksum.*--overwrite"):
        load_checkpoint(tmp_path / "vae")


def test_a_pickle_with_code_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (os.mkdir, (str(tmp_path / "ran"),))

    save_checkpoint(tmp_path / "c", 1, Checkpoint({"model": {"w": torch.ones(1)}}, {"x": Evil()}))
    with pytest.raises(SynBrainError, match="cannot be read"):
        load_checkpoint(tmp_path / "c")
    assert not (tmp_path / "ran").exists()


def test_a_full_disk_keeps_the_previous_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = Checkpoint({"model": {"w": torch.ones(2)}}, {}, {"n": 1})
    save_checkpoint(tmp_path, 1, checkpoint)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(SynBrainError, match="disk is full"):
        save_checkpoint(tmp_path, 2, checkpoint)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-00000001"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000001"]


def test_only_the_newest_checkpoint_is_kept(tmp_path: Path) -> None:
    for step in (1, 2, 10):
        save_checkpoint(tmp_path, step, Checkpoint({"model": {"w": torch.full((1,), float(step))}}, {}))
    loaded = load_checkpoint(tmp_path)
    assert loaded is not None
    assert loaded.groups["model"]["w"].item() == 10
    assert len(list_checkpoints(tmp_path)) == 1


@pytest.mark.parametrize("kind", ["fused", "plain"])
def test_fused_and_plain_adamw_make_the_same_update(
    kind: str, common: dict[str, Any], tmp_path: Path
) -> None:
    module = Toy()
    config = LoopConfig(lr=0.05, stop="never", optimizer="fused", batch_size=8)
    run(toy_stage(module), config.model_copy(update={"optimizer": kind}), common, tmp_path / kind)
    other = Toy()
    run(toy_stage(other), config, common, tmp_path / "other")
    assert torch.allclose(module.layer.weight, other.layer.weight, atol=1e-6)


def test_clipping_bounds_the_first_step_of_plain_descent(common: dict[str, Any], tmp_path: Path) -> None:
    """AdamW hides the gradient's size in its first step, so the second moment is looked at instead."""
    moments = {}
    for clip in (0.0, 1e-3):
        config = LoopConfig(lr=1e-3, stop="never", clip_grad=clip, batch_size=8, checkpoint_every=1)
        run(toy_stage(Toy(), n_steps=1), config, common, tmp_path / str(clip))
        checkpoint = load_checkpoint(tmp_path / str(clip) / "vae")
        assert checkpoint is not None
        moments[clip] = float(sum(s["exp_avg_sq"].sum() for s in checkpoint.optimizer["state"].values()))
    assert moments[1e-3] == pytest.approx(1e-6 * 1e-3, rel=1e-3)  # (1 - beta2) * clip^2
    assert moments[0.0] > 100 * moments[1e-3]
