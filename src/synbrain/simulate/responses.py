"""What a simulated voxel answers to a scene, without noise: image structure early, categories late."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from synbrain.simulate.cortex import FLOC_CATEGORY, Cortex, smooth_field
from synbrain.simulate.objects import CATEGORIES
from synbrain.simulate.scenes import Scenes

SIDE = 64  # pixels at which image structure is measured
GRID = 16  # energy maps are pooled to this many cells a side
ORIENTATIONS, WAVELENGTHS = 4, (5.0, 10.0)
N_CHANNELS = ORIENTATIONS * len(WAVELENGTHS) + 3  # and luminance, red-green, blue-yellow
PLACES = (-0.5, 0.0, 0.5)  # centres of the three horizontal position channels of the category areas

# How strongly the voxels of a category area answer to the other categories, relative to their own.
KINSHIP: dict[str, dict[str, float]] = {
    "face": {"body": 0.35, "animal": 0.35},
    "body": {"face": 0.3, "animal": 0.5, "tool": 0.1},
    "place": {"vehicle": 0.3, "food": 0.1},
    "word": {"tool": 0.2, "face": 0.15, "vehicle": 0.15},
}


@dataclass(frozen=True)
class SceneFeatures:
    """What the simulated cortex sees of every image.

    Attributes:
        energy: (n_images, N_CHANNELS, GRID * GRID) float32; each channel has mean 1 over images.
        category: (n_images, n_categories, 3) float32, strength of a category by horizontal position.
    """

    energy: NDArray[np.float32]
    category: NDArray[np.float32]


def measure_energy(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Gabor amplitude, luminance and colour contrast on a coarse grid.

    Args:
        images: (n, side, side, 3) uint8.

    Returns:
        (n, N_CHANNELS, GRID * GRID) float32, not normalised.
    """
    small = np.stack(
        [np.asarray(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BOX)) for image in images]
    ).astype(np.float32)
    red, green, blue = np.moveaxis(small / 255, -1, 0)
    light = (red + green + blue) / 3
    spectrum = np.fft.fft2(light - light.mean(axis=(1, 2), keepdims=True))
    maps = [np.abs(np.fft.ifft2(spectrum * gabor)) for gabor in _gabor_bank()]
    maps += [light, np.abs(red - green), np.abs(blue - (red + green) / 2)]
    cell = SIDE // GRID
    stacked = np.stack(maps, axis=1).reshape(len(images), N_CHANNELS, GRID, cell, GRID, cell)
    pooled = stacked.mean(axis=(3, 5), dtype=np.float32)
    return np.asarray(pooled.reshape(len(images), N_CHANNELS, GRID * GRID), dtype=np.float32)


def _gabor_bank() -> list[NDArray[np.float64]]:
    """One-sided Gaussian band-pass filters in the frequency domain, so that |ifft| is an energy envelope."""
    fy, fx = np.meshgrid(np.fft.fftfreq(SIDE), np.fft.fftfreq(SIDE), indexing="ij")
    bank = []
    for wavelength in WAVELENGTHS:
        for k in range(ORIENTATIONS):
            turn = np.pi * k / ORIENTATIONS
            ox, oy = np.cos(turn) / wavelength, np.sin(turn) / wavelength
            bank.append(np.exp(-((fx - ox) ** 2 + (fy - oy) ** 2) / (2 * (0.4 / wavelength) ** 2)))
    return bank


def category_strength(scenes: Scenes) -> NDArray[np.float32]:
    """How strongly every image shows each category at three horizontal positions.

    Grows with the size of an object (power 0.5) and its contrast (power 0.5), as responses of
    category-selective areas do.

    Returns:
        (n_images, n_categories, 3) float32.
    """
    strength = np.zeros((len(scenes.category), len(CATEGORIES), len(PLACES)), dtype=np.float32)
    for slot in range(scenes.category.shape[1]):
        rows = np.flatnonzero(scenes.category[:, slot] >= 0)
        drive = (scenes.size[rows, slot] / 0.6) ** 0.5 * np.sqrt(scenes.contrast[rows, slot])
        away = scenes.x[rows, slot, None] - np.array(PLACES, dtype=np.float32)
        strength[rows, scenes.category[rows, slot]] += drive[:, None] * np.exp(-(away**2) / (2 * 0.5**2))
    return strength


@dataclass(frozen=True)
class Tuning:
    """How the voxels of one subject weigh the scene features.

    Attributes:
        field: (n_voxels, GRID * GRID) float32, receptive fields, each summing to 1.
        channel: (n_voxels, N_CHANNELS) float32, not negative, weights of the energy channels.
        exponent: (n_voxels,) float32, compressive nonlinearity (Kay et al. 2013).
        category: (n_voxels, n_categories) float32; position: (n_voxels, 3) float32.
        late: (n_voxels,) float32, share of the category part in the response, 0..1.
    """

    field: NDArray[np.float32]
    channel: NDArray[np.float32]
    exponent: NDArray[np.float32]
    category: NDArray[np.float32]
    position: NDArray[np.float32]
    late: NDArray[np.float32]


def make_tuning(rng: np.random.Generator, cortex: Cortex) -> Tuning:
    """Draw the tuning of a subject's voxels from their areas; neighbours are tuned alike."""
    n, mm, prf = cortex.n_voxels, cortex.mm, cortex.prf
    early = prf > 0
    size_of_area = np.array([0.7, 0.22, 0.22, 0.28, 0.28, 0.36, 0.36, 0.5])[prf]
    size = size_of_area * (1 + 0.8 * np.where(early, cortex.eccentricity, 0))
    lateral = np.where(cortex.right, -1.0, 1.0)  # the visual field is crossed
    x = np.where(early, cortex.eccentricity * np.cos(cortex.angle), 0.3 * lateral)
    y = np.where(early, -cortex.eccentricity * np.sin(cortex.angle), 0.0)
    centres = (np.arange(GRID) + 0.5) / GRID * 2 - 1
    across = np.exp(-((centres - x[:, None]) ** 2) / (2 * size[:, None] ** 2))
    down = np.exp(-((centres - y[:, None]) ** 2) / (2 * size[:, None] ** 2))
    field = (down[:, :, None] * across[:, None, :]).reshape(n, -1)
    channel = np.exp(0.8 * smooth_field(rng, mm, 8.0, N_CHANNELS).T + 0.25 * rng.normal(size=(n, N_CHANNELS)))
    channel[:, -2:] *= np.where(prf == 7, 2.0, 0.7)[:, None]  # hV4 cares for colour
    channel[:, -3] *= 0.3

    category = 0.9 * smooth_field(rng, mm, 14.0, len(CATEGORIES)).T
    category += 0.15 * rng.normal(size=category.shape)
    late = np.clip(0.6 + 0.25 * smooth_field(rng, mm, 12.0, 1)[0] + (mm[:, 1] + 70) / 120, 0.1, 0.95)
    for volume, own in FLOC_CATEGORY.items():
        rows = np.flatnonzero(cortex.floc[volume] > 0)
        profile = np.array([1.0 if c == own else KINSHIP[own].get(c, 0.0) for c in CATEGORIES])
        category[rows] = 1.6 * profile + 0.15 * category[rows]
        late[rows] = rng.uniform(0.8, 0.97, len(rows))
    late = np.where(early, np.where(prf == 7, 0.3, 0.05), late)
    preferred = 0.25 * lateral[:, None] + 0.1 * rng.normal(size=(n, 1))
    position = np.exp(-((np.array(PLACES) - preferred) ** 2) / (2 * 1.2**2))
    exponent = np.where(early, rng.uniform(0.7, 1.0, n), 0.8)
    small = np.float32
    return Tuning(
        (field / field.sum(axis=1, keepdims=True)).astype(small),
        (channel / channel.sum(axis=1, keepdims=True)).astype(small),
        exponent.astype(small),
        category.astype(small),
        position.astype(small),
        late.astype(small),
    )


def respond(
    tuning: Tuning, features: SceneFeatures, rows: slice
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The early and the late part of the responses to some images, each (n, n_voxels), unscaled."""
    energy = features.energy[rows]
    early = np.zeros((len(energy), len(tuning.late)), dtype=np.float32)
    for channel in range(energy.shape[1]):
        early += (energy[:, channel] @ tuning.field.T) * tuning.channel[:, channel]
    strength = features.category[rows]
    late = np.zeros_like(early)
    for place in range(strength.shape[2]):
        late += (strength[:, :, place] @ tuning.category.T) * tuning.position[:, place]
    return early**tuning.exponent, late
