"""What is foretold of a linear path against what a fit counts and allocates."""

from __future__ import annotations

import numpy as np
import pytest

from synbrain.features.tokens import Pairs, TokenSet
from synbrain.linear import patterns
from synbrain.linear.config import LinearPathConfig
from synbrain.linear.cost import linear_path_cost
from synbrain.linear.fit import fit_linear_path


def made(n_images: int, n_voxels: int, shape: tuple[int, int]) -> Pairs:
    rng = np.random.default_rng(0)
    tokens = rng.standard_normal((n_images, *shape)).astype(np.float16)
    weights = rng.standard_normal((shape[0] * shape[1], n_voxels), dtype=np.float32)
    # voxels of any reliability: every penalty is some voxel's choice, as in recordings
    noise = np.logspace(-1, 1.5, n_voxels) * np.sqrt(shape[0] * shape[1])
    signal = tokens.reshape(n_images, -1).astype(np.float32) @ weights
    responses = signal + noise * rng.standard_normal(signal.shape)
    rows = np.arange(n_images)
    return Pairs(TokenSet("e", "d", {"a": tokens}, rows), responses.astype(np.float32), rows, rows)


@pytest.mark.parametrize(("n_images", "n_voxels"), [(150, 600), (420, 300)])
def test_arithmetic_is_foretold_within_a_factor_of_one_and_a_half(
    n_images: int, n_voxels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patterns, "DENSE_VOXELS", 100)  # of both ways to find patterns
    monkeypatch.setattr("synbrain.linear.cost.DENSE_VOXELS", 100)
    config = LinearPathConfig(rank=30, components=10)
    pairs = made(n_images, n_voxels, (49, 32))
    expected = linear_path_cost(n_images, n_voxels, pairs.tokens.shapes, config).total
    counted = fit_linear_path(pairs, config).gflop
    assert 1 / 1.5 < counted / expected < 1.5


def test_growth_is_that_of_the_formula() -> None:
    """Many voxels cost in proportion, many images with their cube."""
    shapes, config = {"a": (49, 64)}, LinearPathConfig()

    def gflop(n_images: int, n_voxels: int) -> float:
        return linear_path_cost(n_images, n_voxels, shapes, config).total

    assert gflop(1000, 800_000) / gflop(1000, 400_000) == pytest.approx(2, rel=0.05)
    assert gflop(80_000, 100) / gflop(40_000, 100) == pytest.approx(8, rel=0.1)
    cost = linear_path_cost(9000, 15724, {"final": (256, 1664)}, config)
    assert cost.memory < 8 << 30


MEASURED = [  # images, voxels, GFLOP a CPU second of large products, CPU s (docs/research/performance.md)
    (200, 250, 92, 8.4),
    (400, 1000, 88, 36),
    (1500, 4000, 90, 171),
    # before directions beyond the patterns, which take a fifth more arithmetic there
    (9000, 15724, 99.8, 3844),
    (9000, 15724, 146, 3544),  # another machine
]


@pytest.mark.parametrize(("n_images", "n_voxels", "rate", "measured"), MEASURED)
def test_time_is_foretold(n_images: int, n_voxels: int, rate: float, measured: float) -> None:
    """With 256 x 1664 tokens."""
    cost = linear_path_cost(n_images, n_voxels, {"final": (256, 1664)}, LinearPathConfig())
    assert measured / 1.4 < cost.seconds(rate) < 1.4 * measured


@pytest.mark.parametrize(("n_images", "n_voxels", "rate", "measured"), MEASURED[:2])
def test_small_fits_take_longer_than_their_arithmetic(
    n_images: int, n_voxels: int, rate: float, measured: float
) -> None:
    cost = linear_path_cost(n_images, n_voxels, {"final": (256, 1664)}, LinearPathConfig())
    assert cost.seconds(rate) - cost.moved < measured / 1.4
