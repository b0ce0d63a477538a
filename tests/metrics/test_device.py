"""The same formulas on numpy's arrays, on tensors, and on tensors of a device that holds no values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from synbrain.metrics import device, distribution, intervals, low_rank, retrieval
from synbrain.noise import factors

RNG = np.random.default_rng(0)
SAMPLES, TRIALS, IMAGE = RNG.normal(1, 2, (40, 3, 5)), RNG.normal(1, 2, (6, 5)), np.array([0, 2, 1, 1, 2, 2])
PREDICTED, MEASURED = RNG.normal(size=(15, 6)).astype(np.float32), RNG.normal(size=(15, 6)).astype(np.float32)
PREDICTED[:, 1], MEASURED[:, 2] = 2, 3  # constant ones
WEIGHTS = intervals.image_weights(15, 20, seed=1)
GROUPS = np.array([[1, 1, 1, 1, 1, 1], [0, 1, 1, 0, 0, 1], [0, 0, 0, 0, 0, 0]], dtype=bool)


def crps(place: str) -> list[Any]:
    scores, inside = distribution.crps_and_covered(SAMPLES, TRIALS, IMAGE, (0.5, 0.9), place)
    return [scores, *inside.values()]


SCORES: dict[str, Callable[[str], list[Any]]] = {
    "replicates": lambda place: [
        intervals.voxel_r_replicates_of(GROUPS, WEIGHTS, PREDICTED, MEASURED, place)
    ],
    "crps": crps,
    "energy": lambda place: [distribution.energy_score(SAMPLES, TRIALS, IMAGE, place)],
    "cosine": lambda place: [retrieval.cosine_matrix(PREDICTED, MEASURED, centre=True, device=place)],
}


@pytest.mark.parametrize("name", SCORES)
def test_tensors_give_what_arrays_give(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = SCORES[name]("cpu")
    monkeypatch.setattr(device, "TENSORS", ("cpu",))
    assert isinstance(device.on(PREDICTED, "cpu"), torch.Tensor)
    for got, wanted in zip(SCORES[name]("cpu"), expected, strict=True):
        assert isinstance(got, np.ndarray)
        np.testing.assert_allclose(got, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", SCORES)
def test_all_of_a_score_is_computed_on_the_device(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors on "meta" carry a shape alone, and refuse to meet one of another device."""
    shapes = [part.shape for part in SCORES[name]("cpu")]
    back: list[str] = []

    def host(values: Any) -> np.ndarray:
        back.append(values.device.type)
        return np.zeros(tuple(values.shape))

    for module in (distribution, intervals, retrieval):
        monkeypatch.setattr(module, "host", host)
    monkeypatch.setattr(device, "TENSORS", ("meta",))
    got = SCORES[name]("meta")
    assert [part.shape for part in got] == shapes
    assert back
    assert set(back) == {"meta"}


@pytest.mark.parametrize("many", [True, False])  # principal axes, maximum likelihood
def test_noise_patterns_of_tensors(many: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    z = rng.normal(size=(120, 2)) @ rng.normal(size=(2, 30)) + 0.5 * rng.normal(size=(120, 30))
    z /= z.std(axis=0)
    image = np.arange(120) // 2
    monkeypatch.setattr(factors, "MANY_VOXELS", 10 if many else 1000)
    loadings, unique, scores = factors.fit_factors(z, image, (0, 1, 2, 4), 0)
    monkeypatch.setattr(device, "TENSORS", ("cpu",))
    of_tensors = factors.fit_factors(z, image, (0, 1, 2, 4), 0, "cpu")
    assert loadings.shape[1] == 2
    np.testing.assert_allclose(of_tensors[0] @ of_tensors[0].T, loadings @ loadings.T, atol=1e-9)
    np.testing.assert_allclose(of_tensors[1], unique, atol=1e-9)
    assert of_tensors[2] == pytest.approx(scores)


def test_noise_patterns_stay_on_the_device() -> None:
    z = torch.empty(120, 30, dtype=torch.float64, device="meta")
    loadings, unique = factors._principal_axes(z, 2, seed=0)
    assert (loadings.shape, unique.shape) == ((30, 2), (30,))
    density = low_rank.log_density_of(z, loadings, unique)
    assert density.shape == (120,)
    assert {part.device.type for part in (loadings, unique, density)} == {"meta"}


def test_apples_gpu_has_no_float64() -> None:
    assert isinstance(device.on(PREDICTED, "mps"), np.ndarray)
    assert device.with_float64("mps").type == "cpu"
    assert device.with_float64("cuda:1") == torch.device("cuda:1")
