from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from torch.nn import functional as F

from synbrain.features.preprocessing import EFFICIENTNET_LITE, clip_preprocessing, resize_tensor_bicubic


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)


def cubic(t: np.ndarray, a: float = -0.75) -> np.ndarray:
    t = np.abs(t)
    near = (a + 2) * t**3 - (a + 3) * t**2 + 1
    far = a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a
    return np.where(t <= 1, near, np.where(t < 2, far, 0.0))


def aligned_matrix(n_in: int, n_out: int) -> np.ndarray:
    """(n_out, n_in) bicubic weights, corners aligned, border pixels repeated."""
    matrix = np.zeros((n_out, n_in))
    for i in range(n_out):
        x = i * (n_in - 1) / (n_out - 1)
        for j in range(int(np.floor(x)) - 1, int(np.floor(x)) + 3):
            matrix[i, np.clip(j, 0, n_in - 1)] += cubic(np.array(x - j))
    return matrix


def by_hand(pixels: np.ndarray, size: int) -> np.ndarray:
    """The reference's CLIP input in float64 numpy and scipy: (3, size, size)."""
    x = pixels.astype(np.float64) / 255
    factors = [side / size for side in x.shape[:2]]
    if max(factors) > 1:
        for axis, factor in enumerate(factors):
            sigma = max((factor - 1) / 2, 0.001)
            window = int(max(4 * sigma, 3))
            window = window if window % 2 else window + 1
            offsets = np.arange(window) - window // 2
            kernel = np.exp(-0.5 * (offsets / sigma) ** 2)
            x = ndimage.correlate1d(x, kernel / kernel.sum(), axis=axis, mode="mirror")
    rows, columns = (aligned_matrix(n, size) for n in x.shape[:2])
    x = np.einsum("ia,jb,abc->cij", rows, columns, x, optimize=True)
    mean = np.array([0.48145466, 0.4578275, 0.40821073])[:, None, None]
    std = np.array([0.26862954, 0.26130258, 0.27577711])[:, None, None]
    return (x - mean) / std


@pytest.mark.parametrize(("height", "width"), [(425, 425), (30, 41), (600, 100), (224, 224)])
def test_clip_input_equals_the_references_recipe_computed_independently(height: int, width: int) -> None:
    pixels = picture(height, width)
    ours = clip_preprocessing(224)(Image.fromarray(pixels))
    assert ours.shape == (3, 224, 224)
    assert ours.dtype == torch.float32
    np.testing.assert_allclose(ours.numpy(), by_hand(pixels, 224), atol=2e-4)


# kornia 0.9.0: geometry.resize(ramp, (4, 4), "bicubic", align_corners=True, antialias=True)[KORNIA_AT]
KORNIA_AT = ([0, 0, 1, 2], [0, 1, 2, 3], [0, 2, 3, 3])
KORNIA_VALUES = [6.7324, 107.0729, 1100.1216, 2525.657]


def test_clip_resize_equals_values_that_kornia_gave() -> None:
    ramp = torch.arange(3 * 9 * 7, dtype=torch.float32).reshape(3, 9, 7) ** 1.5
    ours = resize_tensor_bicubic(ramp, 4)
    np.testing.assert_allclose(ours[KORNIA_AT].numpy(), KORNIA_VALUES, rtol=1e-5)


@pytest.mark.parametrize("side", [112, 425])
def test_efficientnet_input_is_the_whole_image_by_antialiased_bicubic(side: int) -> None:
    pixels = (
        picture(side, side) // 2 + 64
    )  # no overshoot beyond 0..255, which PIL cuts off between its passes
    ours = EFFICIENTNET_LITE(Image.fromarray(pixels)).numpy()
    whole = torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1)[None]
    theirs = F.interpolate(whole, size=(224, 224), mode="bicubic", antialias=True, align_corners=False)[0]
    expected = (theirs.clamp(0, 255).numpy() - 127) / 128
    assert ours.shape == (3, 224, 224)
    assert np.abs(ours - expected).max() <= 1.51 / 128  # PIL rounds to grey levels after each of two passes
    assert np.abs(ours - expected).mean() < 0.4 / 128


def test_grey_and_transparent_images_are_read_as_rgb() -> None:
    grey = Image.fromarray(picture(20, 20)[..., 0])
    as_rgb = EFFICIENTNET_LITE(grey.convert("RGB"))
    assert torch.equal(EFFICIENTNET_LITE(grey), as_rgb)
    assert EFFICIENTNET_LITE(grey.convert("RGBA")).shape == (3, 224, 224)
