"""ncsnr from trials: right on known variances, whatever the repeats, sessions and blocks."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from synbrain.data import reliability
from synbrain.data.reliability import ncsnr_from_trials, ncsnr_of
from synbrain.errors import SynBrainError
from synbrain.metrics.ceiling import noise_ceiling

TRUE = np.array([0.0, 0.3, 0.7, 1.5])


def simulated(repeats: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Trials of unit noise and signal sd TRUE."""
    rng = np.random.default_rng(seed)
    image = np.repeat(np.arange(len(repeats)), repeats)
    signal = rng.normal(size=(len(repeats), len(TRUE))) * TRUE
    order = rng.permutation(len(image))
    return (signal[image] + rng.normal(size=(len(image), len(TRUE))))[order], image[order]


@pytest.mark.parametrize("ragged", [False, True])
def test_recovers_the_truth_for_equal_and_ragged_repeats(ragged: bool) -> None:
    repeats = np.random.default_rng(1).integers(1, 4, 3000) if ragged else np.full(3000, 3)
    trials, image = simulated(repeats)
    found = ncsnr_from_trials(trials, image)
    assert found.dtype == np.float32
    assert np.allclose(found[1:], TRUE[1:], atol=0.05)
    assert found[0] < 0.15


def test_drift_between_sessions_does_not_count() -> None:
    trials, image = simulated(np.full(2000, 3))
    session = np.random.default_rng(2).integers(0, 5, len(image))
    drifted = trials * (1 + session[:, None]) + 10 * session[:, None]
    found = ncsnr_from_trials(drifted, image, session)
    assert np.allclose(found[1:], TRUE[1:], atol=0.06)
    assert not np.allclose(ncsnr_from_trials(drifted, image)[1:], TRUE[1:], atol=0.06)


def test_rows_and_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    trials, image = simulated(np.full(50, 2))
    rows = np.flatnonzero(image % 2 == 0)
    expected = ncsnr_from_trials(trials[rows], image[rows])
    monkeypatch.setattr(reliability, "BLOCK_BYTES", 8 * len(rows))  # one voxel at a time
    assert np.array_equal(ncsnr_from_trials(trials, image[rows], rows=rows), expected)


def test_constant_voxel_has_zero() -> None:
    trials, image = simulated(np.full(50, 2))
    trials[:, 2] = 0.1
    session = np.arange(len(image)) % 2
    assert ncsnr_from_trials(trials, image)[2] == 0
    assert ncsnr_from_trials(trials, image, session)[2] == 0


def test_training_trials_are_preferred() -> None:
    trials, image = simulated(np.full(60, 2))
    table = pd.DataFrame({"image": image, "session": 0, "split": np.where(image < 20, "test", "train")})
    found, origin = ncsnr_of(trials, table)
    trials[image < 20] = 1e6  # test trials
    again, _ = ncsnr_of(trials, table)
    assert origin == "train"
    assert np.array_equal(found, again)  # type: ignore[arg-type]
    single = table[~((table["split"] == "train") & table.duplicated("image"))]
    assert ncsnr_of(trials[single.index], single.reset_index(drop=True))[1] == "test"


def test_one_training_image_that_was_repeated_tells_no_noise() -> None:
    """Half of the voxels of no signal had an ncsnr above 1, from one degree of freedom."""
    rng = np.random.default_rng(0)
    image = np.concatenate([np.arange(200), [7], np.repeat(np.arange(200, 260), 6)])
    table = pd.DataFrame({"image": image, "session": 0, "split": np.where(image < 200, "train", "test")})
    signal = rng.normal(size=(260, 100)) * np.repeat([0.5, 0.0], 50)
    found, origin = ncsnr_of(signal[image] + rng.normal(size=(len(image), 100)), table)
    assert origin == "test"
    assert found is not None
    assert np.all(found[:50] < 0.9)
    assert np.mean(found[50:] > 0.2) < 0.2


def test_without_repeats_there_is_none() -> None:
    table = pd.DataFrame({"image": range(5), "session": 0, "split": "train"})
    assert ncsnr_of(np.ones((5, 2)), table) == (None, None)
    once = pd.DataFrame({"image": [0, 1, 2, 3, 3], "session": 0, "split": "train"})
    assert ncsnr_of(np.random.default_rng(0).normal(size=(5, 2)), once) == (None, None)
    with pytest.raises(SynBrainError, match="no repeats"):
        ncsnr_from_trials(np.ones((5, 2)), np.arange(5))


@pytest.mark.parametrize("drift", [0.0, 1.0, 5.0])
@pytest.mark.parametrize(
    ("trials_each", "across"), [(3, True), (12, False), (12, True), (28, False), (28, True), (32, False)]
)
def test_sessions_of_few_trials_keep_their_signal_and_lose_their_drift(
    trials_each: int, across: bool, drift: float
) -> None:
    """Of three trials z-scored among themselves an ncsnr of 1 was .3; z-scored together, drift was signal."""
    rng = np.random.default_rng(3)
    n_sessions = 240 // trials_each if trials_each < 28 else 16
    session = np.repeat(np.arange(n_sessions), trials_each)
    if across:  # repeats in other sessions
        image = np.tile(rng.permutation(len(session) // 4), 4)
    else:
        image = session * (trials_each // 4) + np.tile(np.repeat(np.arange(trials_each // 4), 4), n_sessions)
    signal = rng.normal(size=(image.max() + 1, 200)) * np.repeat([0.7, 0.0], 100)
    shift = drift * rng.normal(size=(n_sessions, 200))
    found = ncsnr_from_trials(
        signal[image] + shift[session] + rng.normal(size=(len(image), 200)), image, session
    )
    assert np.median(found[:100]) == pytest.approx(0.7, abs=0.12)
    assert np.median(found[100:]) < 0.12


def test_a_voxel_that_is_constant_within_short_sessions_has_no_ncsnr() -> None:
    rng = np.random.default_rng(5)
    session, image = np.repeat(np.arange(12), 10), np.tile(rng.permutation(30), 4)
    trials = rng.normal(size=(30, 3))[image] + rng.normal(size=(120, 3))
    trials[:, 1] = 0.1 + 0.3 * session
    found = ncsnr_from_trials(trials, image, session)
    assert found[1] == 0
    assert np.isfinite(found).all()


def test_short_sessions_beside_long_ones() -> None:
    rng = np.random.default_rng(4)
    image = np.concatenate([np.tile(np.arange(60), 2), np.tile(np.arange(60, 66), 4)])
    session = np.concatenate([np.repeat([0, 1], 60), np.repeat([2, 3, 4], 8)])
    shift = np.array([0.0, 8.0, 1.0, -2.0, 3.0])[session][:, None]
    signal = rng.normal(size=(66, 300)) * np.repeat([1.0, 0.0], 150)
    found = ncsnr_from_trials(signal[image] + shift + rng.normal(size=(len(image), 300)), image, session)
    assert np.median(found[:150]) == pytest.approx(1, abs=0.1)
    assert np.median(found[150:]) < 0.15


def test_ceiling_of_ragged_repeats_is_nsds_formula() -> None:
    a, b, c = 5, 7, 11
    repeats = np.repeat([1, 2, 3], [a, b, c])
    expected = TRUE**2 / (TRUE**2 + (a / 1 + b / 2 + c / 3) / (a + b + c))
    assert np.allclose(noise_ceiling(TRUE, repeats), expected)
