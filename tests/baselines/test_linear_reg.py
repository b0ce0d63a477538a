from __future__ import annotations

import numpy as np
import torch

from synbrain.baselines.linear_reg import LinearReg, LinearRegConfig
from synbrain.metrics.voxel import voxel_r


def test_it_learns_a_linear_brain_and_has_two_layers(make_pairs) -> None:
    train, test, means = make_pairs(n_images=200)
    model = LinearReg(LinearRegConfig(hidden=24, lr=1e-2, epochs=20)).fit(train)
    assert voxel_r(model.predict(test.tokens), means[200:]).mean() > 0.8
    layers = list(model.network)
    assert [type(layer) for layer in layers] == [torch.nn.Linear, torch.nn.Linear]
    assert layers[0].out_features == 24


def test_it_is_affine_in_the_tokens(make_pairs) -> None:
    train, test, _ = make_pairs(n_images=60)
    model = LinearReg(LinearRegConfig(hidden=8, epochs=2)).fit(train)
    a, b = test.tokens.take(np.array([0])), test.tokens.take(np.array([1]))
    middle = {s: ((a.read(s) + b.read(s)) / 2).astype(np.float32) for s in ("final", "early")}
    between = type(a)("toy", "abc", middle, np.array([0]))
    np.testing.assert_allclose(
        model.predict(between), (model.predict(a) + model.predict(b)) / 2, rtol=1e-4, atol=1e-4
    )


def test_global_random_state_is_untouched(make_pairs) -> None:
    train, _, _ = make_pairs(n_images=40)
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    LinearReg(LinearRegConfig(hidden=4, epochs=1)).fit(train)
    assert torch.rand(1) == expected
