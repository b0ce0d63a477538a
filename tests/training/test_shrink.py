"""The shrink factor: least squares in [0, 1], so that the networks cannot hurt where it was fitted."""

from __future__ import annotations

import numpy as np
import pytest

from synbrain.training.shrink import shrink_factor


@pytest.mark.parametrize("kind", ["subject", "voxel"])
@pytest.mark.parametrize(("truth", "expected"), [(0.4, 0.4), (-1.0, 0.0), (3.0, 1.0)])
def test_it_finds_the_factor_and_clips_it(kind: str, truth: float, expected: float) -> None:
    networks = np.random.default_rng(0).standard_normal((50, 4)).astype(np.float32)
    assert np.allclose(shrink_factor(truth * networks, networks, kind), expected, atol=1e-4)  # type: ignore[arg-type]


def test_it_never_raises_the_error_it_was_fitted_on() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        residual, networks = rng.standard_normal((2, 30, 5)).astype(np.float32)
        kept = shrink_factor(residual, networks, "subject")
        assert np.mean((residual - kept * networks) ** 2) <= np.mean(residual**2) + 1e-6


def test_networks_that_give_nothing_get_nothing() -> None:
    zeros = np.zeros((5, 3), dtype=np.float32)
    assert np.array_equal(shrink_factor(zeros + 1, zeros, "voxel"), np.zeros(3))
    assert np.array_equal(shrink_factor(zeros + 1, zeros, "none"), np.ones(3))


def test_networks_that_know_nothing_cost_less_than_by_least_squares() -> None:
    rng = np.random.default_rng(2)
    cautious, plain = [], []
    for _ in range(200):
        residual, networks = rng.standard_normal((2, 20, 5)).astype(np.float32)
        kept = float(shrink_factor(residual, networks, "subject")[0])
        slope = float(np.clip((residual * networks).sum() / (networks**2).sum(), 0, 1))
        assert kept <= slope + 1e-6
        cautious.append(kept**2)  # what it adds to the error on new images, in units of the networks' power
        plain.append(slope**2)
    assert np.mean(cautious) < 0.5 * np.mean(plain)


def test_what_helps_on_one_image_alone_is_hardly_believed() -> None:
    networks = np.random.default_rng(3).standard_normal((40, 4)).astype(np.float32)
    residual = np.zeros_like(networks)
    residual[0] = 20 * networks[0]
    plain = float((residual * networks).sum() / (networks**2).sum())
    assert plain > 0.5
    assert np.all(shrink_factor(residual, networks, "subject") < 0.2 * plain)
    assert np.all(shrink_factor(networks, networks, "subject") == 1)
