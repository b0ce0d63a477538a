"""Float16: what would overflow is reduced in float32, a step that overflows is skipped, a CPU runs it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from synbrain.errors import SynBrainError
from synbrain.networks.brainvae import BrainVAE, BrainVAEConfig
from synbrain.networks.config import LoopConfig, MapperStageConfig, VAELossConfig, VAEStageConfig
from synbrain.networks.fit.batches import StageSetup
from synbrain.networks.fit.checkpoints import load_checkpoint
from synbrain.networks.fit.loop import Position, Stage, derived_seed, run_stage
from synbrain.networks.fit.mapper import train_mapper
from synbrain.networks.fit.metrics_log import LOG_NAME, MetricsLog, read_log
from synbrain.networks.fit.vae import VAEStep, train_vae
from synbrain.networks.losses import kl, mapper_loss
from synbrain.networks.posterior import Posterior
from synbrain.networks.precision import autocast_dtype
from synbrain.training.recipes import RECIPES

PAPER = (256, 1664)  # the published latent: 425,984 terms
FULL_SCALE = 65536.0  # where torch's GradScaler begins
BAD_STEP = 2
Make = Callable[..., Any]


@pytest.fixture
def half() -> Iterator[None]:
    with torch.autocast("cpu", dtype=torch.float16):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype is torch.float16, "this torch runs it on a CPU"
        yield


@pytest.mark.usefixtures("half")
def test_kl_and_its_gradient_are_those_of_float64() -> None:
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(1, *PAPER, generator=generator).half().requires_grad_()
    logvar = (12 + 0.1 * torch.randn(1, *PAPER, generator=generator)).half().requires_grad_()
    assert not torch.isfinite(logvar.detach().exp()).any(), "which float16 alone would give"
    found = kl(Posterior(mean, logvar))
    m, v = mean.detach().double(), logvar.detach().double()
    expected = 0.5 * (m.square() + v.exp() - 1 - v).sum()
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    (found * 1e-6).backward()  # small enough for float16 gradients: in training the scale sees to that
    assert mean.grad is not None
    assert logvar.grad is not None
    torch.testing.assert_close(mean.grad.double(), 1e-6 * m, rtol=1e-3, atol=1e-7)
    torch.testing.assert_close(logvar.grad.double(), 0.5e-6 * (v.exp() - 1), rtol=1e-3, atol=1e-7)


@pytest.mark.usefixtures("half")
def test_a_wide_posterior_is_drawn_in_float32() -> None:
    q = Posterior(torch.ones(1, 2, 3).half(), torch.full((1, 2, 3), 24.0).half())
    drawn = q.at(torch.full((1, 2, 3), 2.0))
    torch.testing.assert_close(drawn, torch.full((1, 2, 3), 1 + 2 * 162754.79))  # 2 exp(12) + 1
    assert torch.isfinite(q.sample(torch.Generator().manual_seed(0))).all()


@pytest.mark.usefixtures("half")
def test_the_mapper_loss_is_that_of_float32() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = (400 * torch.randn(2, *PAPER, generator=generator) for _ in range(2))
    assert torch.isinf((a.half() - b.half()).square()).any()
    found = mapper_loss(a.half(), b.half())
    assert float(found) == pytest.approx(float((a.double() - b.double()).square().mean()), rel=1e-4)


def test_the_vae_loss_of_a_paper_sized_latent_is_that_of_float32() -> None:
    torch.manual_seed(0)
    vae = BrainVAE(
        BrainVAEConfig(
            tokens=PAPER[0], dim=PAPER[1], channels=4, multipliers=(1,), res_blocks=1, pooled_length=16,
            projector_width=8, norm_groups=2, edge_kernel=3,
        )
    )  # fmt: skip
    with torch.no_grad():
        for layer in (m for m in vae.logvar_head.modules() if isinstance(m, nn.Linear)):
            last = layer
        last.bias.fill_(12.0)
    step = VAEStep(vae, VAEStageConfig(loss=VALUES))
    generator = torch.Generator().manual_seed(0)
    batch = {
        "responses": torch.randn(4, 20, generator=generator),
        "tokens": torch.randn(4, *PAPER, generator=generator),
        "noise": torch.randn(4, *PAPER, generator=generator),
    }
    with torch.no_grad():
        expected = step(**batch)
        with torch.autocast("cpu", dtype=torch.float16):
            found = step(**batch)
    assert float(expected["kl"]) > 3e10, "summed over all terms"
    for name, value in found.items():
        assert value.dtype is torch.float32
        assert float(value) == pytest.approx(float(expected[name]), rel=2e-2), name


VALUES = VAELossConfig()  # the published weights: sum, KL x .001, contrast x 1000


# --- gradient scaling ----------------------------------------------------------------------------------


class Watched(nn.Module):
    """A linear regression that keeps the weights that each of its steps began with."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 1)
        nn.init.zeros_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        self.seen.append(self.layer.weight.detach().clone())
        guess = self.layer(x)
        assert guess.dtype is torch.float16
        return {"loss": (guess.float() - y).square().mean()}


class CrashError(Exception):
    pass


def watched_stage(module: Watched, crash_at: int | None = None) -> Stage:
    def read_batch(step: int) -> dict[str, Tensor]:
        if step == crash_at:
            raise CrashError
        x = torch.randn(8, 4, generator=torch.Generator().manual_seed(derived_seed(1, step)))
        # one batch whose loss is finite in float32 and whose scaled gradient float16 cannot hold
        return {"x": x, "y": x.sum(dim=1, keepdim=True) * (1000.0 if step == BAD_STEP else 0.1)}

    return Stage("vae", module, read_batch, lambda: {"score": 0.0}, n_steps=8, round_steps=4)


def run(stage: Stage, config: LoopConfig, common: dict[str, Any], folder: Path) -> Position:
    kept = {key: common[key] for key in ("accelerator", "seed")}
    return run_stage(stage, config, folder=folder, log=MetricsLog(folder), show_progress=False, **kept)


HALF = LoopConfig(lr=0.05, batch_size=8, log_every=1, stop="never", precision="fp16", checkpoint_every=3)


def scale_in(folder: Path) -> float:
    checkpoint = load_checkpoint(folder)
    assert checkpoint is not None
    return float(checkpoint.state["scaler"]["scale"])


@pytest.mark.parametrize("clip", [0.0, 1.0])
@pytest.mark.parametrize("optimizer", ["fused", "plain"])
def test_a_step_that_overflows_is_skipped(
    optimizer: str, clip: float, common: dict[str, Any], tmp_path: Path
) -> None:
    module = Watched()
    at = run(
        watched_stage(module),
        HALF.model_copy(update={"optimizer": optimizer, "clip_grad": clip}),
        common,
        tmp_path,
    )
    assert at.step == 8
    moved = [not torch.equal(a, b) for a, b in zip(module.seen, module.seen[1:], strict=False)]
    assert moved == [step != BAD_STEP for step in range(7)]
    assert torch.isfinite(module.layer.weight).all()
    assert scale_in(tmp_path) == FULL_SCALE / 2


def test_the_scale_survives_an_interruption(common: dict[str, Any], tmp_path: Path) -> None:
    whole, resumed = Watched(), Watched()
    run(watched_stage(whole), HALF, common, tmp_path / "whole")
    with pytest.raises(CrashError):
        run(watched_stage(Watched(), crash_at=5), HALF, common, tmp_path / "broken")
    assert scale_in(tmp_path / "broken") == FULL_SCALE / 2
    run(watched_stage(resumed), HALF, common, tmp_path / "broken")
    assert torch.equal(whole.layer.weight, resumed.layer.weight)
    assert scale_in(tmp_path / "broken") == scale_in(tmp_path / "whole")


# --- what a CPU does with it ---------------------------------------------------------------------------


def test_both_stages_train_in_float16_on_a_cpu(networks: Make, subject: Make, common: Any) -> None:
    logs: dict[str, list[dict[str, Any]]] = {}
    for precision in ("fp32", "fp16"):
        vae, mapper = networks()
        folder = common["folder"] / precision
        setup = StageSetup([subject()], **{**common, "folder": folder, "log": MetricsLog(folder)})
        shared: dict[str, Any] = {"batch_size": 8, "stop": "never", "log_every": 1, "precision": precision}
        train_vae(vae, VAEStageConfig(epochs=2, loss=VALUES, **shared), setup)
        mapper_config = MapperStageConfig(steps=8, round_steps=4, clip_grad=1.0, lr=1e-3, **shared)
        train_mapper(mapper, vae, mapper_config, setup)
        logs[precision] = [row for row in read_log(folder / LOG_NAME) if row["split"] == "train"]
    assert [row["step"] for row in logs["fp16"]] == [row["step"] for row in logs["fp32"]]
    losses = {name: [row["loss"] for row in rows] for name, rows in logs.items()}
    assert losses["fp16"] == pytest.approx(losses["fp32"], rel=2e-2)
    assert losses["fp16"] != losses["fp32"], "float16 was asked for and is what runs"


def test_the_published_precision_is_not_replaced_silently() -> None:
    asked = RECIPES["reference"].mapper.precision
    assert autocast_dtype(asked, torch.device("cpu")) is torch.float16
    assert autocast_dtype("bf16", torch.device("cpu")) is torch.bfloat16
    assert autocast_dtype("fp32", torch.device("cpu")) is None
    with pytest.raises(SynBrainError, match=r"meta has no fp16.*--mapper\.precision fp32"):
        autocast_dtype("fp16", torch.device("meta"))
