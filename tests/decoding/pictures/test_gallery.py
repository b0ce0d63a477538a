from __future__ import annotations

import numpy as np
import pytest

from synbrain.decoding.pictures.gallery import SIDE, PixelDecoder, nearest_images, small
from synbrain.errors import SynBrainError


@pytest.fixture(scope="module")
def scenes() -> tuple[np.ndarray, np.ndarray]:
    """60 pictures of one coloured half each, and tokens that know the colours with some noise."""
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (60, 2, 3))
    pictures = np.repeat(np.repeat(colours[:, :, None], 20, axis=1), 40, axis=2).astype(np.uint8)
    tokens = colours.reshape(60, 2, 3) / 255 + 0.02 * rng.standard_normal((60, 2, 3))
    return tokens.astype(np.float32), pictures


def test_the_pixel_decoder_finds_what_the_tokens_know(scenes: tuple[np.ndarray, np.ndarray]) -> None:
    tokens, pictures = scenes
    decoder = PixelDecoder.fit(tokens[:45], pictures[:45])
    decoded = decoder.render(tokens[45:])
    assert decoded.shape == (15, SIDE, SIDE, 3)
    assert decoded.dtype == np.uint8
    wanted = np.stack([small(picture) for picture in pictures[45:]])
    error = np.abs(decoded / 255 - wanted).mean()
    grey = np.abs(np.stack([small(p) for p in pictures[:45]]).mean(axis=0) - wanted).mean()
    assert error < 0.3 * grey
    again = PixelDecoder.restore(decoder.state())
    np.testing.assert_array_equal(again.render(tokens[45:]), decoded)


def test_tokens_that_know_nothing_give_the_mean_picture(scenes: tuple[np.ndarray, np.ndarray]) -> None:
    tokens, pictures = scenes
    blind = np.random.default_rng(1).standard_normal(tokens.shape).astype(np.float32)
    decoded = PixelDecoder.fit(blind[:45], pictures[:45]).render(blind[45:]) / 255
    mean = np.stack([small(picture) for picture in pictures[:45]]).mean(axis=0)
    assert np.abs(decoded - mean).mean() < 0.03


def test_bad_input_of_the_pixel_decoder(scenes: tuple[np.ndarray, np.ndarray]) -> None:
    tokens, pictures = scenes
    with pytest.raises(SynBrainError, match="tokens of 10 images for 9 pictures"):
        PixelDecoder.fit(tokens[:10], pictures[:9])
    with pytest.raises(SynBrainError, match="4 images"):
        PixelDecoder.fit(tokens[:4], pictures[:4])
    with pytest.raises(SynBrainError, match="fitted on 6"):
        PixelDecoder.fit(tokens, pictures).render(np.zeros((1, 3, 3), dtype=np.float32))


def test_nearest_images(scenes: tuple[np.ndarray, np.ndarray]) -> None:
    tokens, _ = scenes
    noisy = tokens[:7] + 0.01
    nearest = nearest_images(noisy, tokens, n=3)
    assert nearest.shape == (7, 3)
    np.testing.assert_array_equal(nearest[:, 0], np.arange(7))
    with pytest.raises(SynBrainError, match="bank of 2"):
        nearest_images(noisy, tokens[:2])
    with pytest.raises(SynBrainError, match="the decoder's encoder"):
        nearest_images(noisy[:, :1], tokens)
