from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from synbrain.features.tokens import Pairs, TokenSet
from synbrain.models.brainvae import BrainVAE, BrainVAEConfig
from synbrain.models.mapper import Mapper, MapperConfig
from synbrain.models.presets import PRESETS, Preset
from synbrain.training.batches import SubjectData
from synbrain.training.metrics_log import MetricsLog

MICRO = Preset(
    BrainVAEConfig(
        tokens=3, dim=8, channels=4, multipliers=(1,), res_blocks=1, pooled_length=8, down_blocks=1,
        up_blocks=1, projector_width=8, norm_groups=2, edge_kernel=3,
    ),
    MapperConfig(tokens=3, dim=8, depth=1, heads=2),
)  # fmt: skip


def make_pairs(
    n_images: int = 20, n_repeats: int = 2, n_voxels: int = 6, seed: int = 0, shape: tuple[int, int] = (3, 8)
) -> Pairs:
    """Responses that are a linear function of tokens plus noise."""
    rng = np.random.default_rng(seed)
    stored = rng.standard_normal((n_images, *shape)).astype(np.float32)
    weights = rng.standard_normal((shape[0] * shape[1], n_voxels)) / 5
    image_of_trial = rng.permutation(np.repeat(np.arange(n_images), n_repeats))
    responses = stored.reshape(n_images, -1)[image_of_trial] @ weights
    responses = responses + rng.standard_normal(responses.shape) + 2.0
    tokens = TokenSet("toy", "digest", {"final": stored}, np.arange(n_images))
    return Pairs(tokens, responses.astype(np.float32), np.arange(len(responses)), image_of_trial)


def make_subject(name: str = "s", scale: bool = True, **pairs: Any) -> SubjectData:
    train, validation = make_pairs(**pairs).hold_out(0.2, 0)
    n_voxels = train.n_voxels
    mean = train.trial_responses().mean(axis=0) if scale else np.zeros(n_voxels, dtype=np.float32)
    sd = train.trial_responses().std(axis=0) if scale else np.ones(n_voxels, dtype=np.float32)
    return SubjectData(name, train, validation, mean, sd)


@pytest.fixture
def pairs() -> Callable[..., Pairs]:
    return make_pairs


@pytest.fixture
def subject() -> Callable[..., SubjectData]:
    return make_subject


@pytest.fixture
def micro(monkeypatch: pytest.MonkeyPatch) -> Preset:
    monkeypatch.setitem(PRESETS, "micro", MICRO)
    return MICRO


@pytest.fixture
def networks() -> Callable[..., tuple[BrainVAE, Mapper]]:
    def make(seed: int = 0) -> tuple[BrainVAE, Mapper]:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return BrainVAE(MICRO.vae), Mapper(MICRO.mapper)

    return make


@pytest.fixture
def common(tmp_path: Path) -> dict[str, Any]:
    """The keyword arguments that both stages share."""
    return {
        "token_stage": "final",
        "weights": [1.0],
        "accelerator": Accelerator(cpu=True, mixed_precision="no"),
        "folder": tmp_path / "training",
        "log": MetricsLog(tmp_path / "training"),
        "seed": 3,
    }
