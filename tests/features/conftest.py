from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from synbrain.data.dataset import Dataset, DatasetInfo, Stimuli, load_dataset, write_tables
from synbrain.data.space import VoxelSpace
from synbrain.features.encoders import Encoder, get_encoder


def noise_images(n: int, height: int = 40, width: int = 56, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, height, width, 3), dtype=np.uint8)


def build(
    folder: Path,
    rows: list[int] | None = None,
    brick: Path | None = None,
    n_images: int = 7,
    with_images: bool = True,
) -> Dataset:
    """Two trials of each image, shuffled; the last two images are test images."""
    names = [f"image{i}.png" for i in range(n_images)]
    images = pd.DataFrame({"name": names, "split": ["train"] * (n_images - 2) + ["test"] * 2})
    folder.mkdir(parents=True, exist_ok=True)
    if brick is None:
        stimuli = Stimuli(kind="folder", path="stimuli")
        (folder / "stimuli").mkdir(exist_ok=True)
        for name, pixels in zip(names, noise_images(n_images), strict=True):
            Image.fromarray(pixels).save(folder / "stimuli" / name)
    else:
        assert rows is not None
        images["row"] = np.array(rows, dtype=np.int32)
        stimuli = Stimuli(kind="hdf5", path=str(brick))
    order = np.random.default_rng(1).permutation(np.repeat(np.arange(n_images), 2))
    trials = pd.DataFrame(
        {
            "image": order.astype(np.int32),
            "session": np.zeros(len(order), np.int16),
            "repeat": pd.Series(order).groupby(order).cumcount().astype(np.int16),
            "split": images["split"].to_numpy()[order],
        }
    )
    responses = np.random.default_rng(2).normal(size=(len(trials), 3)).astype(np.float32)
    np.save(folder / "responses.npy", responses)
    info = DatasetInfo(
        name="tiny",
        subject="s1",
        unit="a.u.",
        n_trials=len(trials),
        n_voxels=3,
        n_images=n_images,
        stimuli=stimuli,
    )
    write_tables(folder, info, trials, images, VoxelSpace(n_voxels=3))
    return load_dataset(folder)


@pytest.fixture
def make_dataset() -> Callable[..., Dataset]:
    return build


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return build(tmp_path / "ds")


@pytest.fixture
def brick(tmp_path: Path) -> Path:
    path = tmp_path / "stimuli.hdf5"
    with h5py.File(path, "w") as file:
        file["imgBrick"] = noise_images(12, 20, 20, seed=3)
    return path


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP vision tower of random weights: 5 x 5 patches of 14 pixels, 16 channels, 3 layers."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    config = transformers.CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=70,
        patch_size=14,
        initializer_factor=20.0,
    )
    transformers.CLIPVisionModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def weights_of(clip_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str | None]:
    """The weights of a registered encoder: those that have none of their own get small random ones."""
    transformers = pytest.importorskip("transformers")
    small = {
        "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 70,
        "patch_size": 14, "initializer_range": 0.3,
    }  # fmt: skip
    kinds = {
        "dinov2": ("Dinov2", {"mlp_ratio": 2}),
        "mae": ("ViTMAE", {"intermediate_size": 32}),
        "siglip": ("SiglipVision", {"intermediate_size": 32}),
    }
    folders = {"clip": str(clip_folder)}
    for name, (kind, sizes) in kinds.items():
        folders[name] = str(tmp_path_factory.mktemp(name))
        torch.manual_seed(0)
        config = getattr(transformers, f"{kind}Config")(**small, **sizes)
        getattr(transformers, f"{kind}Model")(config).save_pretrained(folders[name])
    return folders.get


@pytest.fixture(scope="session")
def encoder_of(weights_of: Callable[[str], str | None]) -> Callable[[str], Encoder]:
    """Every registered encoder by name, made once; vision transformers have random weights."""
    made: dict[str, Encoder] = {}

    def get(name: str) -> Encoder:
        if name not in made:
            made[name] = get_encoder(name, weights=weights_of(name))
        return made[name]

    return get
