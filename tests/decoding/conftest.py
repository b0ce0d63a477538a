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

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

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
