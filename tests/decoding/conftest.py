"""Numbers of the original modules: ``parity_decoding`` beside the checkout, or the folder of the same form
in the environment variable SYNBRAIN_PARITY_DECODING (other sizes, depths and seeds).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from synbrain.decoding.options import DecoderOptions, MindEye2Options, MindEye2Sizes, PriorSizes
from synbrain.decoding.protocol import DecodingSubject
from synbrain.decoding.subjects import mean_and_sd
from synbrain.decoding.targets import TokenTargets
from synbrain.features.tokens import Pairs, TokenSet

BESIDE = Path(__file__).parents[3] / "shared" / "parity_decoding"


@dataclass(frozen=True)
class Fixture:
    """One file of the original's numbers."""

    tensors: dict[str, Tensor]
    about: dict[str, Any]

    def state(self, prefix: str = "") -> dict[str, Tensor]:
        """Weights whose names start with ``prefix``, without it."""
        start = f"state.{prefix}"
        return {name.removeprefix(start): v for name, v in self.tensors.items() if name.startswith(start)}

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def __contains__(self, name: str) -> bool:
        return name in self.tensors


@pytest.fixture(scope="session")
def parity() -> Callable[[str], Fixture]:
    folder = Path(os.environ.get("SYNBRAIN_PARITY_DECODING", BESIDE))
    if not (folder / "manifest.json").exists():
        pytest.skip(f"the original's numbers are not at {folder.name}/")
    about = json.loads((folder / "manifest.json").read_text())["files"]
    return lambda name: Fixture(load_file(folder / f"{name}.safetensors"), about[name])


@pytest.fixture(scope="session")
def same() -> Callable[..., None]:
    """Equal to a relative largest error below ``tolerance``."""

    def check(ours: Tensor, original: Tensor, tolerance: float = 2e-4) -> None:
        assert ours.shape == original.shape
        apart = float((ours.detach().double() - original.double()).abs().max())
        assert apart <= tolerance * max(float(original.double().abs().max()), 1e-30)

    torch.manual_seed(0)
    return check


SMALL = MindEye2Options(
    sizes=MindEye2Sizes(
        hidden=32, blocks=1, dropout=0.0, prior=PriorSizes(depth=1, heads=2, dim_head=4, sample_steps=3)
    ),
    steps=120,
    round_steps=40,
    batch_size=16,
    lr=3e-3,
)


def toy_pairs(n_images: int = 60, n_repeats: int = 2, n_voxels: int = 20, seed: int = 0) -> Pairs:
    """Responses that are a linear function of tokens plus noise."""
    rng = np.random.default_rng(seed)
    fixed = np.random.default_rng(99)  # one brain and one world, whatever the seed
    latent = rng.standard_normal((n_images, 6))
    stored = (latent @ fixed.standard_normal((6, 9 * 12))).reshape(n_images, 9, 12).astype(np.float32)
    weights = fixed.standard_normal((6, n_voxels)) / 2.5
    image_of_trial = rng.permutation(np.repeat(np.arange(n_images), n_repeats))
    responses = latent[image_of_trial] @ weights
    responses = 3 + 2 * (responses + 0.3 * rng.standard_normal(responses.shape))
    tokens = TokenSet("toy", "digest", {"final": stored}, np.arange(n_images))
    return Pairs(tokens, responses.astype(np.float32), np.arange(len(responses)), image_of_trial)


def toy_subject(name: str = "s", **settings: int) -> tuple[DecodingSubject, TokenTargets]:
    train, validation = toy_pairs(**settings).hold_out(0.2, 0)
    targets = TokenTargets.fit([train.tokens], "final", grid=3, components=8)
    scale = mean_and_sd(train)
    subject = DecodingSubject(
        name, train, targets.of(train.tokens), validation, targets.of(validation.tokens), *scale
    )
    return subject, targets


@pytest.fixture
def subject() -> Callable[..., tuple[DecodingSubject, TokenTargets]]:
    return toy_subject


@pytest.fixture
def held_out() -> Pairs:
    """Images and responses of the same subject that nothing is fitted on."""
    return toy_pairs(n_images=30, seed=1)


@pytest.fixture
def options() -> Callable[..., DecoderOptions]:
    def make(method: str, **settings: object) -> DecoderOptions:
        return DecoderOptions.model_validate({"method": method, "mindeye2": SMALL} | settings)

    return make


@pytest.fixture
def workspace(tmp_path: Path):
    from synbrain.training.networks import Workspace

    return Workspace(tmp_path / "training")
