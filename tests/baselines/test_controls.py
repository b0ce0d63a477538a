from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsRegressor

from synbrain.baselines.controls import MeanMap, Nearest, Shuffled
from synbrain.baselines.ridge import Ridge
from synbrain.metrics.voxel import voxel_r


def test_mean_map_is_the_mean_of_the_trials(make_pairs) -> None:
    train, test, _ = make_pairs()
    predicted = MeanMap().fit(train).predict(test.tokens)
    np.testing.assert_allclose(predicted, np.repeat(train.trial_responses().mean(0)[None], 20, 0), rtol=1e-5)


def test_nearest_against_sklearn(make_pairs) -> None:
    train, test, _ = make_pairs()
    flat = [side.tokens.read("final").reshape(side.n_images, -1) for side in (train, test)]
    neighbour = KNeighborsRegressor(1).fit(flat[0], train.repeat_means())
    got = Nearest().fit(replace(train, tokens=train.tokens.only("final"))).predict(test.tokens)
    np.testing.assert_allclose(got, neighbour.predict(flat[1]), rtol=1e-5)


def test_nearest_finds_training_images_themselves(make_pairs) -> None:
    train, _, _ = make_pairs()
    np.testing.assert_allclose(Nearest().fit(train).predict(train.tokens), train.repeat_means(), rtol=1e-6)


def test_shuffled_falls_to_chance_where_ridge_does_not(make_pairs) -> None:
    train, test, means = make_pairs(n_images=200)
    truth = means[200:]
    assert voxel_r(Ridge().fit(train).predict(test.tokens), truth).mean() > 0.95
    r = [voxel_r(Shuffled().fit(train, seed=s).predict(test.tokens), truth).mean() for s in range(3)]
    assert np.mean(r) == pytest.approx(0, abs=0.25)
