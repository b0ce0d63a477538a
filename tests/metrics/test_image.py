from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import correlation
from skimage.color import rgb2gray
from skimage.metrics import structural_similarity
from torchmetrics.functional import pearson_corrcoef

from synbrain.metrics import image


@pytest.fixture
def images() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    seen = rng.random((4, 24, 20, 3))
    return np.clip(seen + rng.normal(0, 0.2, seen.shape), 0, 1), seen


def test_ssim_against_scikit_image(images: tuple[np.ndarray, np.ndarray]) -> None:
    decoded, seen = images
    settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    expected = [
        structural_similarity(rgb2gray(a), rgb2gray(b), **settings)
        for a, b in zip(decoded, seen, strict=True)
    ]
    np.testing.assert_allclose(image.structural_similarity(decoded, seen), expected, rtol=1e-9)
    np.testing.assert_allclose(image.structural_similarity(seen, seen), 1)
    grey = rgb2gray(seen)
    np.testing.assert_allclose(
        image.structural_similarity(rgb2gray(decoded), grey), image.structural_similarity(decoded, seen)
    )
    with pytest.raises(ValueError, match="shape"):
        image.structural_similarity(seen, seen[:, :12])
    with pytest.raises(ValueError, match="11"):
        image.structural_similarity(seen[:, :8, :8], seen[:, :8, :8])


def test_pixel_correlation_and_distance_against_others(images: tuple[np.ndarray, np.ndarray]) -> None:
    decoded, seen = images
    flat = decoded.reshape(4, -1), seen.reshape(4, -1)
    expected = pearson_corrcoef(torch.tensor(flat[0]).T, torch.tensor(flat[1]).T).numpy()
    np.testing.assert_allclose(image.pixel_correlation(decoded, seen), expected, rtol=1e-6)
    distances = [correlation(a, b) for a, b in zip(*flat, strict=True)]
    np.testing.assert_allclose(image.correlation_distance(decoded, seen), distances, rtol=1e-9)


def test_two_way_identification_by_hand() -> None:
    seen = np.eye(3)
    assert image.two_way_identification(seen, seen) == 1
    # the first two swapped: each loses to the other and wins against the third or ties
    swapped = seen[[1, 0, 2]]
    r_own, r_other = -0.5, 1.0  # correlations of centred unit vectors
    wins = [r_own > r_other, None, r_own > r_other, None, True, True]
    expected = np.mean([0.5 if w is None else float(w) for w in wins])
    assert image.two_way_identification(swapped, seen) == pytest.approx(expected)


def test_features_that_are_not_finite_are_refused() -> None:
    """They compared with nothing: wins below zero, and an identification that looked like a bad decoder's."""
    features = np.random.default_rng(0).normal(size=(4, 9))
    broken = features.copy()
    broken[1, 2] = np.nan
    for decoded, seen in ((broken, features), (features, broken)):
        with pytest.raises(ValueError, match="not finite"):
            image.two_way_identification(decoded, seen)


def test_two_way_identification_against_a_plain_loop_and_chance() -> None:
    rng = np.random.default_rng(1)
    seen = rng.normal(size=(30, 12))
    decoded = seen + rng.normal(0, 2, seen.shape)
    r = np.corrcoef(decoded, seen)[:30, 30:]
    expected = np.mean([r[i, i] > r[i, j] for i in range(30) for j in range(30) if i != j])
    assert image.two_way_identification(decoded, seen) == pytest.approx(expected)
    shares = [image.two_way_identification(decoded[rng.permutation(30)], seen) for _ in range(40)]
    assert np.mean(shares) == pytest.approx(0.5, abs=0.03)
    assert image.two_way_identification(np.ones((30, 12)), seen) == 0.5
