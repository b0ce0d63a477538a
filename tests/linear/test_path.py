"""The stored linear path: exact arithmetic, refusals, a round trip."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from synbrain.errors import SynBrainError
from synbrain.features.tokens import TokenSet
from synbrain.linear.path import LinearPath, joined

RNG = np.random.default_rng(0)
TOKENS = TokenSet(
    "e",
    "d",
    {"a": RNG.normal(size=(9, 4, 3)).astype(np.float16), "b": RNG.normal(size=(9, 2, 5)).astype(np.float32)},
    np.array([8, 0, 3, 3]),
)


def make(dtype: str = "float32") -> LinearPath:
    rng = np.random.default_rng(1)
    return LinearPath(
        projections={
            "a": rng.normal(size=(12, 3)).astype(dtype),
            "b": rng.normal(size=(10, 3)).astype(dtype),
        },
        mixing=rng.normal(size=(3, 7)).astype(np.float32),
        intercept=rng.normal(size=7).astype(np.float32),
        shapes={"a": (4, 3), "b": (2, 5)},
        about={"n_images": 4},
    )


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_the_mean_is_the_sum_over_layers(dtype: str) -> None:
    path = make(dtype)
    flat = {layer: TOKENS.read(layer).reshape(4, -1) for layer in "ab"}
    expected = (
        sum(flat[s] @ path.projections[s].astype(np.float64) for s in "ab") @ path.mixing + path.intercept
    )
    found = path.predict(TOKENS)
    assert found.dtype == np.float32
    assert found.shape == (4, 7)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(found[2], found[3])  # the same stored row


def test_it_loads_alone(tmp_path: Path) -> None:
    path = make("float16")
    path.save(tmp_path)
    loaded = LinearPath.load(tmp_path)
    np.testing.assert_array_equal(loaded.predict(TOKENS), path.predict(TOKENS))
    assert loaded.projections["a"].dtype == np.float16
    assert (loaded.layers, loaded.about) == (["a", "b"], {"n_images": 4})


def test_tokens_of_another_shape_or_without_a_layer_are_refused() -> None:
    with pytest.raises(SynBrainError, match="not \\['b'\\]"):
        make().predict(TOKENS.only("a"))
    other = TokenSet("e", "d", {"a": np.zeros((9, 3, 4), np.float32), "b": TOKENS.layers["b"]}, TOKENS.rows)
    with pytest.raises(SynBrainError, match="was fitted on"):
        make().predict(other)


@pytest.mark.parametrize("columns", [7, 3])
def test_a_sum_of_paths_drops_no_voxel(columns: int) -> None:
    """Also where a column stands for a voxel and there are more voxels than columns are asked for."""
    rng = np.random.default_rng(2)
    mixings = [np.eye(7), rng.normal(size=(columns, 7))]
    paths = [
        LinearPath(
            {layer: rng.normal(size=(size, len(mixing))).astype(np.float32) for layer, size in of.items()},
            mixing.astype(np.float32),
            rng.normal(size=7).astype(np.float32),
            {layer: TOKENS.shapes[layer] for layer in of},
            {},
        )
        for mixing, of in zip(mixings, ({"a": 12, "b": 10}, {"b": 10}), strict=True)
    ]
    shares = rng.random((2, 7))
    expected = sum(share * path.predict(TOKENS) for share, path in zip(shares, paths, strict=True))
    made = joined(paths, shares, TOKENS, np.ones(7, np.float32), 3, "float32")
    np.testing.assert_allclose(made.predict(TOKENS), expected, rtol=1e-4, atol=1e-4)


def test_a_sum_of_paths_that_share_columns_is_bounded() -> None:
    """Predictions of rank 3 are kept whole in 3 columns, of two paths of 3 columns each."""
    one = make()
    two = LinearPath(one.projections, 2 * one.mixing, one.intercept, one.shapes, {})
    made = joined([one, two], np.array([[0.5] * 7, [1.0] * 7]), TOKENS, np.ones(7, np.float32), 3, "float32")
    assert made.mixing.shape == (3, 7)
    expected = 0.5 * one.predict(TOKENS) + two.predict(TOKENS)
    np.testing.assert_allclose(made.predict(TOKENS), expected, rtol=1e-4, atol=1e-4)
