"""``auto`` takes bf16 where it pays: wide networks on a CPU with bf16 instructions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from synbrain import TrainOptions, train
from synbrain.networks import precision
from synbrain.networks.config import LoopConfig
from synbrain.networks.precision import WIDE, autocast, autocast_dtype, chosen_precision
from synbrain.simulate.example import toy_dataset

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
NARROW, BROAD = nn.Linear(64, 4 * WIDE), nn.Linear(WIDE, WIDE)


@pytest.mark.parametrize(
    ("has_bf16", "device", "network", "expected"),
    [
        (True, CPU, BROAD, "bf16"),
        (True, CPU, NARROW, "fp32"),
        (False, CPU, BROAD, "fp32"),
        (True, CUDA, BROAD, "fp32"),
    ],
)
def test_auto(
    has_bf16: bool, device: torch.device, network: nn.Module, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "multiplies_bf16", lambda: has_bf16)
    assert LoopConfig().precision == "auto"
    assert chosen_precision("auto", device, network) == expected
    assert chosen_precision("fp32", device, network) == "fp32"


@pytest.mark.parametrize("instructions", ["amx_tile", "avx512_bf16"])
def test_either_set_of_instructions_will_do(instructions: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("amx_tile", "avx512_bf16"):
        monkeypatch.setattr(torch.cpu, f"_is_{name}_supported", lambda: False, raising=False)
    assert not precision.multiplies_bf16()
    monkeypatch.setattr(torch.cpu, f"_is_{instructions}_supported", lambda: True)
    assert precision.multiplies_bf16()


def test_a_wide_network_computes_in_bf16_and_is_near(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "multiplies_bf16", lambda: True)
    x = torch.randn(8, WIDE, generator=torch.Generator().manual_seed(0))
    with autocast(CPU, autocast_dtype(chosen_precision("auto", CPU, BROAD), CPU)):
        half = BROAD(x)
    assert half.dtype is torch.bfloat16
    assert (half.float() - BROAD(x)).norm() < 2e-2 * BROAD(x).norm()


def test_a_model_computes_in_bf16_where_it_is_told_to() -> None:
    options = TrainOptions(encoder="pixels", vae={"epochs": 1}, mapper={"steps": 10, "round_steps": 10})
    model = train([toy_dataset()], options)
    for part in model.subjects.values():  # as if the networks had helped
        object.__setattr__(part, "shrink", 1.0)
    tokens = model.tokens([toy_dataset().load_image(row) for row in range(3)])
    plain = model.predict(tokens)
    half = model.computing_in("bf16").predict(tokens)
    assert np.array_equal(model.predict(tokens), plain)
    assert np.array_equal(model.computing_in("auto").predict(tokens), plain), "its networks are narrow"
    difference = np.abs(half - plain).max()
    assert 0 < difference < 0.05 * plain.std()
