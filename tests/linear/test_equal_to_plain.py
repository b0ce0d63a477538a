"""The fast fit is the plain one: float32 in closed form against float64 by refitting, on every storage."""

from __future__ import annotations

import numpy as np
import pytest

from fixtures.plain_path import plain_linear_path
from fixtures.small_path import CONFIG, made
from synbrain.linear import patterns, ridge, scratch, voxels
from synbrain.linear.fit import fit_linear_path


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
    made_fast = fit_linear_path(pairs, CONFIG, seed=3)
    unit = plain[0].std()
    np.testing.assert_allclose(made_fast.out_of_fold, plain[0], atol=3e-3 * unit)
    np.testing.assert_allclose(made_fast.path.predict(new), plain[1], atol=3e-3 * unit)
