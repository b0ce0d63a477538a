from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from synbrain.metrics import ceiling
from synbrain.metrics.voxel import pearson_within, voxel_r


def simulate(
    repeats: np.ndarray, n_voxels: int = 60, snr: float = 0.6, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True means (n_images, n_voxels), trials and their images; noise sd 1, signal sd ``snr``."""
    rng = np.random.default_rng(seed)
    means = rng.normal(0, snr, (len(repeats), n_voxels))
    image = np.repeat(np.arange(len(repeats)), repeats)
    return means, means[image] + rng.normal(size=(len(image), n_voxels)), image


def test_anova_against_scipy() -> None:
    _, trials, image = simulate(np.full(12, 4))
    signal, noise = ceiling.signal_and_noise(trials, image)
    groups = [trials[image == i, 0] for i in range(12)]
    f = stats.f_oneway(*groups).statistic
    within = np.mean([g.var(ddof=1) for g in groups])
    assert noise[0] == pytest.approx(within)
    assert signal[0] == pytest.approx(max(0.0, (f - 1) * within / 4))


@pytest.mark.parametrize("repeats", [np.full(400, 3), np.tile([1, 2, 3, 6], 100)])
def test_ncsnr_is_recovered_with_equal_and_ragged_repeats(repeats: np.ndarray) -> None:
    _, trials, image = simulate(repeats)
    order = np.random.default_rng(3).permutation(len(image))
    assert np.median(ceiling.ncsnr(trials[order], image[order])) == pytest.approx(0.6, abs=0.03)


def test_published_formula() -> None:
    snr = np.array([0.0, 0.5, 2.0])
    np.testing.assert_allclose(ceiling.noise_ceiling(snr, 3), snr**2 / (snr**2 + 1 / 3), atol=1e-12)
    ragged = np.array([1, 1, 2, 3])  # (A/1 + B/2 + C/3) / (A + B + C) of the NSD data manual
    left = (2 / 1 + 1 / 2 + 1 / 3) / 4
    np.testing.assert_allclose(ceiling.noise_ceiling(snr, ragged), snr**2 / (snr**2 + left), atol=1e-12)
    np.testing.assert_allclose(ceiling.correlation_ceiling(snr, 3) ** 2, ceiling.noise_ceiling(snr, 3))
    assert ceiling.noise_ceiling(np.array([np.inf]))[0] == 1


@pytest.mark.parametrize("repeats", [np.full(600, 3), np.tile([1, 2, 3], 200)])
def test_perfect_predictor_reaches_the_ceiling_and_not_more(repeats: np.ndarray) -> None:
    means, trials, image = simulate(repeats)
    targets = np.stack([trials[image == i].mean(axis=0) for i in range(len(repeats))])
    snr = ceiling.ncsnr(trials, image)
    reliable = np.ones(len(snr), dtype=bool)
    r = voxel_r(means, targets)
    fraction = ceiling.fraction_of_ceiling(r, ceiling.correlation_ceiling(snr, repeats), reliable)
    assert fraction == pytest.approx(1, abs=0.02)
    trial = ceiling.fraction_of_ceiling(
        voxel_r(means[image], trials), ceiling.correlation_ceiling(snr), reliable
    )
    assert trial == pytest.approx(1, abs=0.02)
    worse = voxel_r(means + np.random.default_rng(5).normal(0, 0.6, means.shape), targets)
    assert ceiling.fraction_of_ceiling(worse, ceiling.correlation_ceiling(snr, repeats), reliable) < 0.8


def test_ceiling_of_few_images_is_not_too_low() -> None:
    """Explained variance of the true means over many small experiments, equal and ragged."""
    for repeats in (np.full(10, 3), np.tile([1, 2, 3, 4], 3)):
        raw, corrected = [], []
        for seed in range(40):
            _, trials, image = simulate(repeats, n_voxels=200, snr=2.0, seed=seed)
            raw.append(ceiling.noise_ceiling(ceiling.ncsnr(trials, image), repeats).mean())
            corrected.append(ceiling.noise_ceiling(ceiling.ceiling_snr(trials, image), repeats).mean())
        truth = ceiling.noise_ceiling(np.array([2.0]), repeats)[0]
        assert np.mean(corrected) == pytest.approx(truth, abs=0.012)
        assert np.mean(raw) < truth - 0.012
    trials[:, 0] = 1.0
    snr = ceiling.ceiling_snr(trials, image)
    assert snr[0] == 0
    assert np.isfinite(snr).all()
    assert np.isnan(ceiling.ceiling_snr(trials[:3], np.arange(3))).all()


@pytest.mark.parametrize("n_images", [1, 2, 3])
def test_a_ceiling_of_three_images_is_not_known(n_images: int) -> None:
    """It came out as 1, for any noise."""
    trials = np.random.default_rng(0).standard_normal((n_images * 5, 4))
    assert np.isnan(ceiling.ceiling_snr(trials, np.repeat(np.arange(n_images), 5))).all()


def test_within_trial_ceiling_is_what_the_true_mean_reaches() -> None:
    means, trials, image = simulate(np.full(200, 3), n_voxels=300, snr=0.8)
    similarity = ceiling.repeat_similarity(trials, image, centre=True)
    reached = pearson_within(means[image], trials).mean()
    assert ceiling.within_ceiling(similarity) == pytest.approx(reached, abs=0.02)
    targets = trials.reshape(200, 3, 300).mean(axis=1)
    assert ceiling.within_ceiling(similarity, 3) == pytest.approx(
        pearson_within(means, targets).mean(), abs=0.02
    )


def test_within_image_ceiling_of_images_with_one_trial_and_with_thirty() -> None:
    """It was that of an average number of trials: the true mean scored .08 above it."""
    repeats = np.where(np.arange(200) % 2, 30, 1)
    means, trials, image = simulate(repeats, n_voxels=300, snr=0.6)
    targets = np.stack([trials[image == i].mean(axis=0) for i in range(200)])
    reached = pearson_within(means, targets).mean()
    similarity = ceiling.repeat_similarity(trials, image, centre=True)
    assert ceiling.within_ceiling(similarity, repeats) == pytest.approx(reached, abs=0.02)


def test_repeat_similarity_against_corrcoef() -> None:
    _, trials, image = simulate(np.array([3, 2, 1]))
    pairs = [(0, 1), (0, 2), (1, 2), (3, 4)]
    expected = np.mean([np.corrcoef(trials[i], trials[j])[0, 1] for i, j in pairs])
    assert ceiling.repeat_similarity(trials, image, centre=True) == pytest.approx(expected)


def test_unknown_without_repeats_and_zero_for_constant_voxels() -> None:
    _, trials, image = simulate(np.ones(5, dtype=int))
    assert np.isnan(ceiling.ncsnr(trials, image)).all()
    assert ceiling.repeat_similarity(trials, image, centre=True) is None
    assert ceiling.within_ceiling(None) is None
    _, trials, image = simulate(np.full(5, 3))
    trials[:, 0] = 4.0
    snr = ceiling.ncsnr(trials, image)
    assert snr[0] == 0
    assert np.isfinite(snr).all()
    none = np.zeros(len(snr), dtype=bool)
    assert ceiling.fraction_of_ceiling(snr, snr, none) is None


def test_stepping_up() -> None:
    assert ceiling.stepped_up(1.0) == 1
    assert ceiling.stepped_up(-0.1) == 0
    assert ceiling.stepped_up(0.5) == pytest.approx(np.sqrt(2 / 3))
    assert ceiling.stepped_up(0.5, 3) == pytest.approx(np.sqrt(0.75))
    assert ceiling.stepped_up(None) is None


@pytest.mark.parametrize("value", [0.1, -1e6 / 3, 0.0])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_a_constant_voxel_has_no_signal_whatever_its_rounding(value: float, kind: type) -> None:
    _, trials, image = simulate(np.tile([1, 2, 3, 5], 30), n_voxels=3)
    trials = trials.astype(kind)
    trials[:, 1] = value
    signal, noise = ceiling.signal_and_noise(trials, image)
    assert signal[1] == noise[1] == 0
    for ratio in (ceiling.ncsnr(trials, image), ceiling.ceiling_snr(trials, image)):
        assert ratio[1] == 0
        assert (ratio[[0, 2]] > 0.2).all()
