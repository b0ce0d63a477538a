"""Scenes drawn for the simulated experiment: backgrounds with one or two objects of known categories."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from synbrain.simulate.objects import CATEGORIES, OBJECTS, Pen, any_colour, shade

MAX_OBJECTS = 2
SUPERSAMPLE = 2


@dataclass(frozen=True)
class Scenes:
    """What each image shows; row i is image (73k id) i, 0-based.

    Attributes:
        category: (n_images, 2) int8, index into CATEGORIES of the main and the second object; -1 is none.
        x, y: (n_images, 2) float32, centres, -1..1 from left to right and from top to bottom.
        size: (n_images, 2) float32, extent as a fraction of the image's side.
        contrast: (n_images, 2) float32, opacity over the background, 0..1.
    """

    category: NDArray[np.int8]
    x: NDArray[np.float32]
    y: NDArray[np.float32]
    size: NDArray[np.float32]
    contrast: NDArray[np.float32]

    def names(self) -> list[str]:
        """The category of each image's main object."""
        return [CATEGORIES[int(k)] for k in self.category[:, 0]]


def draw_scenes(n_images: int, seed: int) -> Scenes:
    """Choose what ``n_images`` scenes show; categories of the main object are balanced."""
    rng = np.random.default_rng([seed, 11])
    main = rng.permutation(np.arange(n_images) % len(CATEGORIES))
    second = (main + rng.integers(1, len(CATEGORIES), n_images)) % len(CATEGORIES)
    place = CATEGORIES.index("place")
    absent = (rng.random(n_images) > 0.25) | (second == place)
    category = np.stack([main, np.where(absent, -1, second)], axis=1)
    side = rng.choice([-1.0, 1.0], n_images)
    x = np.stack([rng.uniform(-0.45, 0.45, n_images), side * rng.uniform(0.5, 0.75, n_images)], axis=1)
    y = np.stack([rng.uniform(-0.3, 0.3, n_images), rng.uniform(-0.6, 0.6, n_images)], axis=1)
    # the second object keeps to the side that the main one leaves free
    x[:, 0] = np.where(category[:, 1] >= 0, -side * np.abs(x[:, 0]), x[:, 0])
    size = np.stack([rng.uniform(0.4, 0.85, n_images), rng.uniform(0.28, 0.4, n_images)], axis=1)
    contrast = rng.uniform(0.7, 1.0, (n_images, MAX_OBJECTS))
    is_place = category == place
    x, y = np.where(is_place, 0.3 * x, x), np.where(is_place, 0.3 * y, y)
    size = np.where(is_place, rng.uniform(0.85, 1.1, size.shape), size)
    small = np.float32
    return Scenes(
        category.astype(np.int8), x.astype(small), y.astype(small), size.astype(small), contrast.astype(small)
    )


def draw_image(scenes: Scenes, image: int, side: int, seed: int) -> NDArray[np.uint8]:
    """Draw one scene, (side, side, 3) uint8; the same for a seed whatever else is drawn."""
    rng = np.random.default_rng([seed, 12, image])
    big = side * SUPERSAMPLE
    canvas = _background(rng, big).convert("RGBA")
    for slot in range(MAX_OBJECTS):
        kind = int(scenes.category[image, slot])
        if kind < 0:
            continue
        layer = Image.new("RGBA", (big, big), (0, 0, 0, 0))
        centre = ((scenes.x[image, slot] + 1) * big / 2, (scenes.y[image, slot] + 1) * big / 2)
        name = CATEGORIES[kind]
        tilt = {"tool": rng.uniform(-1.5, 1.5), "place": 0.0, "word": 0.0}.get(name, rng.normal(0, 0.12))
        pen = Pen(ImageDraw.Draw(layer), centre, float(scenes.size[image, slot]) * big / 2, float(tilt))
        OBJECTS[name](pen, rng)
        alpha = float(scenes.contrast[image, slot])
        layer.putalpha(layer.getchannel("A").point(lambda value, alpha=alpha: round(value * alpha)))
        canvas = Image.alpha_composite(canvas, layer)
    return np.asarray(canvas.convert("RGB").resize((side, side), Image.Resampling.BOX), dtype=np.uint8)


def _background(rng: np.random.Generator, side: int) -> Image.Image:
    """A plain, shaded, horizon, striped or blotched ground; low in contrast beside the objects."""
    base = np.array(shade(any_colour(rng, 90, 200), rng.uniform(0.5, 1.05)), dtype=np.float32)
    base = base.mean() + 0.6 * (base - base.mean())
    down, across = np.mgrid[0:1:64j, 0:1:64j]
    kind = int(rng.integers(5))
    if kind == 1:
        turn = rng.uniform(0, 2 * math.pi)
        tone = 50 * (math.cos(turn) * (across - 0.5) + math.sin(turn) * (down - 0.5))
    elif kind == 2:
        tone = np.where(down > rng.uniform(0.5, 0.75), -35.0, 20.0)
    elif kind == 3:
        turn, waves = rng.uniform(0, math.pi), rng.uniform(3, 7)
        phase = 2 * math.pi * waves * (math.cos(turn) * across + math.sin(turn) * down)
        tone = rng.uniform(6, 16) * np.sin(phase)
    elif kind == 4:
        coarse = Image.fromarray(rng.normal(0, 18, (7, 7)).astype(np.float32))
        tone = np.asarray(coarse.resize((64, 64), Image.Resampling.BICUBIC))
    else:
        tone = np.zeros((64, 64))
    pixels = np.clip(base + tone[..., None], 0, 255).astype(np.uint8)
    return Image.fromarray(pixels).resize((side, side), Image.Resampling.BILINEAR)
