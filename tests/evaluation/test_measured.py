from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from synbrain.data.space import VoxelSpace
from synbrain.errors import SynBrainError
from synbrain.evaluation import measured as module
from synbrain.evaluation.ceiling_row import ceiling_row
from synbrain.evaluation.measured import measure


def test_constant_voxels_have_no_spread(brain) -> None:
    brain.dataset.responses[:, 4] = 0.1
    m = brain.measured()
    assert m.sd[4] == 0
    assert not m.reliable[4]
    assert m.standardised(m.repeat_means).shape == (m.test.n_images, 23)
    assert 4 not in m.covariance_voxels


def test_blocks_of_images_hold_every_trial_once(brain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK_VALUES", 24 * 20 * 7)  # seven images at a time
    m = brain.measured()
    seen = np.zeros(m.test.n_images)
    for _, images, trials, local in m.image_blocks(20):
        assert len(images) <= 7
        np.add.at(seen, images[local], 1)
        means = np.stack([trials[local == i].mean(axis=0) for i in range(len(images))])
        np.testing.assert_allclose(means, m.repeat_means[images], rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(seen, m.repeats)


def test_reliability_comes_from_training_trials(brain) -> None:
    m = brain.measured()
    test_rows = m.test.trials
    brain.dataset.responses[test_rows] = 0.0
    assert brain.measured().reliable.any()
    assert brain.measured().snr is not None
    np.testing.assert_array_equal(brain.measured().snr, 0)


def test_ncsnr_of_the_space_stands_in_where_nothing_is_repeated(make_brain) -> None:
    single = make_brain(repeats=(1, 1))
    assert single.measured().snr is None
    assert not single.measured().has_repeats
    single.space = replace(single.space, ncsnr=np.full(24, 0.5, dtype=np.float32))
    np.testing.assert_allclose(single.measured().snr, 0.5)
    assert single.measured().reliable.all()


def test_one_test_image_has_no_ceiling_and_no_fraction_of_it(make_brain) -> None:
    row = ceiling_row(make_brain(n_train=9, n_test=1, repeats=(9, 9)).measured())
    assert row.values["voxel_r"] is None
    assert row.values.get("voxel_r_fraction") is None


def test_one_image_that_was_repeated_is_no_ceiling_and_no_reliability(make_brain) -> None:
    """One degree of freedom: noise passed for signal, and its ceiling came out near .6."""
    single = make_brain(repeats=(1, 1))
    image = single.dataset.trials["image"]
    single.dataset.trials["image"] = image.replace({1: 0, 10: 9})  # a training image and a test image
    measured = single.measured()
    assert sorted(set(measured.repeats)) == [1, 2]
    assert measured.snr is None
    assert measured.signal_noise is None
    single.space = replace(single.space, ncsnr=np.zeros(24, dtype=np.float32))
    assert not single.measured().reliable.any()


def test_sizes_must_agree(brain) -> None:
    m = brain.measured()
    with pytest.raises(SynBrainError, match="one dataset"):
        measure(m.test, m.train, VoxelSpace(3))
