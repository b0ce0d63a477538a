"""A picture in another size is the same picture, whatever the two sizes are."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from synbrain.data.thumbnails import SIDE, copies, thumbnail
from synbrain.simulate.scenes import draw_image, draw_scenes


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    scenes = draw_scenes(60, seed=3)
    return [Image.fromarray(draw_image(scenes, i, 112, seed=3)) for i in range(60)]


@pytest.mark.parametrize("size", [(40, 40), (48, 48), (50, 60), (65, 72), (100, 100), (150, 131)])
def test_copies_of_any_size_are_found(pictures: list[Image.Image], size: tuple[int, int]) -> None:
    """Cells of whole pixels shift where a side is no multiple of 32: a tenth was missed at 40 pixels."""
    small = np.stack([thumbnail(picture) for picture in pictures])
    other = np.stack([thumbnail(p.resize(size, Image.Resampling.BICUBIC)) for p in pictures])
    assert sorted(copies(other, small)) == [(i, i) for i in range(len(pictures))]


@pytest.mark.parametrize("times", [1, 2, 7])
def test_whole_cells_are_means(times: int) -> None:
    grey = np.random.default_rng(0).integers(0, 256, (SIDE * times, SIDE * times), dtype=np.uint8)
    means = grey.reshape(SIDE, times, SIDE, times).mean(axis=(1, 3))
    assert np.abs(thumbnail(Image.fromarray(grey)) - means).max() <= 0.5 + 1e-4


def test_a_picture_smaller_than_a_thumbnail_keeps_its_mean() -> None:
    grey = np.random.default_rng(1).integers(0, 256, (5, 9), dtype=np.uint8)
    small = thumbnail(Image.fromarray(grey))
    assert small.shape == (SIDE, SIDE)
    assert abs(float(small.mean()) - float(grey.mean())) < 0.5
