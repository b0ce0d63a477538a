"""Noise units: an exact change of coordinates that tells shared noise from independent noise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synbrain.features.tokens import Pairs, TokenSet
from synbrain.linear.noise_units import POWER, no_units, noise_units


def make_pairs(trials: np.ndarray, repeats: int) -> Pairs:
    n_images = len(trials) // repeats
    tokens = TokenSet("e", "d", {"grid": np.zeros((n_images, 1, 1), dtype=np.float16)}, np.arange(n_images))
    image_of_trial = np.repeat(np.arange(n_images), repeats)
    return Pairs(tokens, trials.astype(np.float32), np.arange(len(trials)), image_of_trial)


def noisy(n_images: int, n_voxels: int, *, shared: float, repeats: int = 3, seed: int = 0) -> Pairs:
    """Strong signal, unit noise in every voxel, and one shared pattern of noise of variance ``shared``."""
    rng = np.random.default_rng(seed)
    signal = np.repeat(5 * rng.normal(size=(n_images, n_voxels)), repeats, axis=0)
    pattern = rng.choice([-1, 1], n_voxels) / np.sqrt(n_voxels)
    n = n_images * repeats
    noise = rng.normal(size=(n, n_voxels)) + np.sqrt(shared) * rng.normal(size=(n, 1)) * pattern
    return make_pairs(signal + noise, repeats)


@given(st.integers(0, 10_000), st.integers(2, 40), st.sampled_from([0.0, 20.0, 200.0]))
def test_into_and_back_is_the_identity(seed: int, n_voxels: int, shared: float) -> None:
    pairs = noisy(30, n_voxels, shared=shared, seed=seed)
    units = noise_units(pairs, pairs.repeat_means().astype(np.float64))
    x = np.random.default_rng(seed).normal(size=(5, n_voxels))
    np.testing.assert_allclose(units.back(units.into(x)), x, rtol=1e-5, atol=1e-5)
    assert ((units.factors > 0) & (units.factors <= 1)).all()


def test_constant_voxels_change_nothing() -> None:
    """They have none of the variance that a pattern stands out of: patterns of the others were lost."""
    pairs = noisy(60, 30, shared=8.0)
    dead = np.full((pairs.n_trials, 40), 3.0, dtype=np.float32)
    both = make_pairs(np.concatenate([np.asarray(pairs.responses), dead], axis=1), 3)
    alone, beside = (noise_units(p, p.repeat_means().astype(np.float64)) for p in (pairs, both))
    assert len(alone.factors) == 1
    np.testing.assert_allclose(beside.factors, alone.factors, rtol=1e-5)
    np.testing.assert_allclose(np.abs(beside.patterns[:30]), np.abs(alone.patterns), atol=1e-5)
    assert not beside.patterns[30:].any()


def test_shared_noise_is_found_at_its_true_size_and_halved_in_the_log() -> None:
    pairs = noisy(400, 60, shared=30.0)
    units = noise_units(pairs, pairs.repeat_means().astype(np.float64))
    assert units.factors.shape == (1,)
    size = units.factors[0] ** (-2 / POWER)  # of the pattern's noise variance, in that of other patterns
    assert size == pytest.approx(31, rel=0.15)


def test_independent_noise_has_no_patterns_but_units() -> None:
    rng = np.random.default_rng(1)
    sd = np.linspace(0.5, 3, 80)
    signal = np.repeat(rng.normal(size=(150, 80)), 2, axis=0)
    pairs = make_pairs(signal + sd * rng.normal(size=(300, 80)), 2)
    units = noise_units(pairs, pairs.repeat_means().astype(np.float64))
    assert len(units.factors) == 0
    np.testing.assert_allclose(units.sd, sd, rtol=0.25)


def test_units_know_nothing_of_the_repeat_means() -> None:
    pairs = noisy(100, 20, shared=20.0)
    moved = np.repeat(np.random.default_rng(5).normal(size=(100, 20)), 3, axis=0).astype(np.float32)
    other = Pairs(pairs.tokens, pairs.responses + moved, pairs.trials, pairs.image_of_trial)
    a, b = (noise_units(p, p.repeat_means().astype(np.float64)) for p in (pairs, other))
    np.testing.assert_allclose(a.sd, b.sd, rtol=1e-4)
    np.testing.assert_allclose(a.factors, b.factors, rtol=1e-4)


def test_without_repeats_units_are_the_sd_of_responses() -> None:
    rng = np.random.default_rng(2)
    y = rng.normal(size=(40, 6)) * np.arange(6)  # the first voxel is constant
    units = noise_units(make_pairs(y, 1), y)
    np.testing.assert_allclose(units.sd[1:], y.std(axis=0)[1:])
    assert units.sd[0] == 1
    x = rng.normal(size=(3, 6))
    np.testing.assert_array_equal(no_units(6).into(x), x)
