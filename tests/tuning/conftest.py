from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from synbrain.data.dataset import Dataset, DatasetInfo, Stimuli, load_dataset, write_tables
from synbrain.data.space import VoxelSpace
from synbrain.features.encoders import get_encoder
from synbrain.training.leakage import training_images
from synbrain.tuning.subjects import TuningSubject, decode_pixels, stand_ins, tuning_subject


def build(
    folder: Path, *, n_train: int = 24, n_test: int = 4, n_units: int = 3, seed: int = 0,
    pictures: int | None = None, signal: float = 1.0, repeats: int = 2,
) -> Dataset:  # fmt: skip
    """Pictures of noise on colours, and units that answer to the colour (``signal``) and to chance.

    Args:
        pictures: seed of the pictures; that of everything if left out.
    """
    draw = np.random.default_rng([seed if pictures is None else pictures, 1])
    colour = draw.uniform(40, 215, (n_train + n_test, 3))
    noise = draw.normal(0, 30, (n_train + n_test, 40, 40, 3))
    grey = (colour[:, None, None] + noise).clip(0, 255).astype(np.uint8)
    (folder / "stimuli").mkdir(parents=True)
    names = [f"image{i}.png" for i in range(len(grey))]
    for name, pixels in zip(names, grey, strict=True):
        Image.fromarray(pixels).save(folder / "stimuli" / name)
    split = np.array(["train"] * n_train + ["test"] * n_test)
    rng = np.random.default_rng([seed, 2])
    mean = signal * (colour - 128) / 50 @ rng.normal(size=(3, n_units)) + (1 - signal) * rng.normal(
        size=(len(grey), n_units)
    )
    image = rng.permutation(np.repeat(np.arange(len(grey)), repeats))
    responses = 5 + mean[image] + 0.3 * rng.normal(size=(len(image), n_units))
    trials = pd.DataFrame(
        {
            "image": image.astype(np.int32),
            "session": np.zeros(len(image), np.int16),
            "repeat": pd.Series(image).groupby(image).cumcount().astype(np.int16),
            "split": split[image],
        }
    )
    np.save(folder / "responses.npy", responses.astype(np.float32))
    info = DatasetInfo(
        name=folder.name, subject="s", unit="a.u.", n_trials=len(image), n_voxels=n_units,
        n_images=len(grey), stimuli=Stimuli(kind="folder", path="stimuli"),
    )  # fmt: skip
    images = pd.DataFrame({"name": names, "split": split})
    write_tables(folder, info, trials, images, VoxelSpace(n_voxels=n_units))
    return load_dataset(folder)


@pytest.fixture(scope="session")
def make_dataset() -> Callable[..., Dataset]:
    return build


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> list[Dataset]:
    """Two datasets of other pictures, 3 and 5 units."""
    folder = tmp_path_factory.mktemp("pair")
    return [build(folder / "a", seed=1), build(folder / "b", seed=2, n_units=5)]


@pytest.fixture(scope="session")
def subjects(pair: list[Dataset], tmp_path_factory: pytest.TempPathFactory) -> list[TuningSubject]:
    """The pair as a tuning sees it at 32 pixels, three tenths of the images held out."""
    images = training_images(pair)
    preprocess = get_encoder("efficientnet-lite0", size=32).preprocess
    files = [tmp_path_factory.mktemp("pixels") / "pixels.npy" for _ in pair]
    pixels = [
        decode_pixels(d, i.rows, preprocess, f, False) for d, i, f in zip(pair, images, files, strict=True)
    ]
    same = stand_ins(images, pixels)
    return [
        tuning_subject(d, i, p, stands_in=same, fraction=0.3, seed=0, loss="squared", ceiling_weights=False)
        for d, i, p in zip(pair, images, pixels, strict=True)
    ]
