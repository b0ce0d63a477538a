"""A toy dataset that is made in a second: for examples in docstrings and a first look."""

from __future__ import annotations

import tempfile
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from synbrain.data.dataset import Dataset, load_dataset
from synbrain.features.options import FeatureOptions
from synbrain.features.store import make_tokens
from synbrain.prepare.table import prepare_table

N_IMAGES, N_TEST, N_REPEATS, N_VOXELS, SIDE = 60, 20, 2, 12, 4


def toy_dataset(folder: str | Path | None = None, seed: int = 0) -> Dataset:
    """Sixty coloured patchworks, each shown twice to twelve voxels that like some colours in some places.

    Args:
        folder: where to make it; None: a temporary folder, made once for each seed.
        seed: of voxels and noise; the pictures are the same for all seeds.

    Returns:
        A dataset with tokens of the encoder ``pixels`` (layer ``grid4``).

    >>> dataset = toy_dataset()
    >>> dataset.responses.shape, len(dataset.image_rows("test"))
    ((120, 12), 20)
    """
    if folder is None:
        return load_dataset(_temporary(seed))
    folder = Path(folder)
    source = folder / "recordings"
    (source / "images").mkdir(parents=True)
    patches = np.random.default_rng(0).integers(0, 256, (N_IMAGES, SIDE, SIDE, 3), dtype=np.uint8)
    rng = np.random.default_rng([seed, 1])
    tuning = rng.standard_normal((SIDE * SIDE * 3, N_VOXELS)) / 8
    lines, responses = ["image,repeat,split"], []
    for number, patch in enumerate(patches):
        name = f"patchwork{number:02d}.png"
        Image.fromarray(patch).resize((64, 64), Image.Resampling.NEAREST).save(source / "images" / name)
        for repeat in range(N_REPEATS):
            lines.append(f"{name},{repeat},{'test' if number >= N_IMAGES - N_TEST else 'train'}")
            drive = (patch.reshape(-1) / 128 - 1) @ tuning
            responses.append(drive + rng.standard_normal(N_VOXELS) / 3)
    (source / "trials.csv").write_text("\n".join(lines) + "\n")
    np.save(source / "responses.npy", np.array(responses, dtype=np.float32))
    dataset = prepare_table(source, folder / "dataset", unit="arbitrary unit", name=f"toy{seed}")
    make_tokens(dataset, FeatureOptions(encoder="pixels", layers=["grid4"], device="cpu"))
    return dataset


@lru_cache
def _temporary(seed: int) -> Path:
    folder = tempfile.mkdtemp(prefix="synbrain-toy-")
    return toy_dataset(folder, seed).path
