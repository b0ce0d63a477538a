"""What every baseline must do, whatever it is; runs over the whole registry."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from synbrain.baselines.linear_reg import LinearReg, LinearRegConfig
from synbrain.baselines.mindsimulator import MindSimulator
from synbrain.baselines.mlp_autoencoder import MLPAE, MLPVAE
from synbrain.baselines.mlp_parts import MLPConfig
from synbrain.baselines.protocol import ResponseModel
from synbrain.baselines.registry import BASELINES, make_baseline
from synbrain.errors import SynBrainError

POINT_MASSES = {"mean_map", "shuffled", "nearest", "ridge", "banded_ridge", "linear_reg", "mlp_ae", "mlp_vae"}
SMALL = MLPConfig(
    tokens=2, dim=8, hidden=16, blocks=1, epochs=2, second_epochs=2, depth=1, heads=2, sample_steps=4
)  # fmt: skip
QUICK: dict[str, Callable[[], ResponseModel]] = {  # sizes alone differ from the registry's
    "linear_reg": lambda: LinearReg(LinearRegConfig(hidden=8, epochs=3)),
    "mlp_ae": lambda: MLPAE(SMALL),
    "mlp_vae": lambda: MLPVAE(SMALL),
    "mindsimulator": lambda: MindSimulator(SMALL),
    "mindsimulator_1": lambda: MindSimulator(SMALL, n_average=1),
}


def make(name: str) -> ResponseModel:
    default = make_baseline(name)
    quick = QUICK[name]() if name in QUICK else default
    assert type(quick) is type(default)
    return quick


@pytest.fixture(params=sorted(BASELINES))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_contract(name: str, make_pairs) -> None:
    train, test, _ = make_pairs()
    before = train.responses.copy()
    model = make(name)
    assert isinstance(model, ResponseModel)
    assert model.fit(train, seed=3) is model
    predicted = model.predict(test.tokens)
    assert predicted.shape == (test.n_images, train.n_voxels)
    assert predicted.dtype == np.float32
    assert np.isfinite(predicted).all()
    np.testing.assert_allclose(model.predict(test.tokens), predicted, rtol=1e-5)  # predicting changes nothing
    order = np.array([3, 0, 7])
    np.testing.assert_allclose(model.predict(test.tokens.take(order)), predicted[order], atol=5e-3)
    samples = model.sample(test.tokens, 4, seed=5)
    assert samples.shape == (4, test.n_images, train.n_voxels)
    assert samples.dtype == np.float32
    assert np.isfinite(samples).all()
    np.testing.assert_array_equal(samples, model.sample(test.tokens, 4, seed=5))
    if name in POINT_MASSES:
        np.testing.assert_allclose(samples, np.broadcast_to(predicted, samples.shape), rtol=1e-5)
    else:
        assert not np.allclose(samples, model.sample(test.tokens, 4, seed=6))
    np.testing.assert_array_equal(train.responses, before)


def test_the_seed_decides_alone(name: str, make_pairs) -> None:
    train, test, _ = make_pairs(n_images=40)
    first, second = (make(name).fit(train, seed=1).predict(test.tokens) for _ in range(2))
    np.testing.assert_allclose(first, second, rtol=1e-5, atol=1e-5)


def test_constant_voxels_are_predicted_as_they_are(name: str, make_pairs) -> None:
    train, test, _ = make_pairs(n_images=40)
    train.responses[:, 2] = 4.0
    model = make(name).fit(train)
    np.testing.assert_allclose(model.predict(test.tokens)[:, 2], 4.0, atol=1e-3)
    assert np.isfinite(model.sample(test.tokens, 2)).all()


def test_scale_of_the_responses_carries_over(name: str, make_pairs) -> None:
    """Percent signal change or raw int16: predictions follow the unit."""
    train, test, _ = make_pairs(n_images=40)
    predicted = make(name).fit(train).predict(test.tokens)
    train.responses[:] *= 300
    np.testing.assert_allclose(make(name).fit(train).predict(test.tokens), 300 * predicted, rtol=2e-2)


def test_unknown_name_is_told() -> None:
    with pytest.raises(SynBrainError, match="choose among"):
        make_baseline("gnet")
