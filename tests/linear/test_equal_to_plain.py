"""The fast fit is the plain one: float32 in closed form against float64 by refitting, on every storage."""

from __future__ import annotations

import numpy as np
import pytest

from fixtures.plain_path import plain_linear_path
from synbrain.features.tokens import Pairs, TokenSet
from synbrain.linear import patterns, ridge, scratch, voxels
from synbrain.linear.config import LinearPathConfig
from synbrain.linear.fit import fit_linear_path

# every candidate is near to being chosen: with few alphas none is left out before it is compared
CONFIG = LinearPathConfig(
    windows=2, side=3, alphas=(1.0, 10.0), n_folds=4, keep=3, rank=9, components=4, dtype="float32"
)


def made() -> tuple[Pairs, TokenSet]:
    """Two layers, ragged repeats, correlated noise; folds of unequal size."""
    rng = np.random.default_rng(0)
    n, fresh, n_voxels = 42, 20, 25
    layers = {"a": rng.normal(size=(n + fresh, 16, 5)), "b": rng.normal(1, 1, (n + fresh, 3, 4))}
    layers = {layer: x.astype(np.float32) for layer, x in layers.items()}
    signal = sum(
        x.reshape(len(x), -1) @ rng.normal(size=(x[0].size, 5)) / np.sqrt(x[0].size) for x in layers.values()
    )
    truth = signal @ rng.normal(size=(5, n_voxels)) + 3
    image = np.sort(np.concatenate([np.arange(n), rng.integers(0, n, 50)]))
    noise = rng.normal(size=(len(image), n_voxels)) + 2 * rng.normal(size=(len(image), 1))
    tokens = TokenSet("e", "d", layers, np.arange(n))
    responses = (truth[image] + 1.5 * noise).astype(np.float32)
    new = TokenSet("e", "d", layers, np.arange(n, n + fresh))
    return Pairs(tokens, responses, np.arange(len(image)), image), new


@pytest.fixture(scope="module")
def plain() -> tuple[np.ndarray, np.ndarray]:
    pairs, new = made()
    return plain_linear_path(pairs, new, CONFIG, seed=3)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {(ridge, "SINGLE_PRECISION_CONDITION"): 1e9},
        {(scratch, "MEMORY_BYTES"): 0},
        {(voxels, "SINGLE_BYTES"): 0},
        {(patterns, "DENSE_VOXELS"): 0},
    ],
    ids=["as it is", "float32 factors", "arrays on disk", "float16 predictions", "subspace iteration"],
)
def test_it_is_the_plain_path(
    changes: dict, plain: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    for (module, name), value in changes.items():
        monkeypatch.setattr(module, name, value)
    pairs, new = made()
    fit = fit_linear_path(pairs, CONFIG, seed=3)
    unit = plain[0].std()
    np.testing.assert_allclose(fit.out_of_fold, plain[0], atol=3e-3 * unit)
    np.testing.assert_allclose(fit.path.predict(new), plain[1], atol=3e-3 * unit)
