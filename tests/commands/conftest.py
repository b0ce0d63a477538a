"""A dataset with pixels tokens and a linear run of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from synbrain.cli import main
from synbrain.data.dataset import load_dataset
from synbrain.data.space import VoxelSpace
from synbrain.features.encoders import get_encoder
from synbrain.linear.path import LinearPath
from synbrain.model.parts import RunConfig, SubjectPart
from synbrain.model.synbrain import SynBrain

N_VOXELS, N_IMAGES, REPEATS = 6, 24, 5


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    source = tmp_path / "source"
    (source / "images").mkdir(parents=True)
    rows = []
    for i in range(N_IMAGES):
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(
            source / "images" / f"{i:02}.png"
        )
        rows += [(f"{i:02}.png", r, "test" if i >= 20 else "train") for r in range(REPEATS)]
    pd.DataFrame(rows, columns=["image", "repeat", "split"]).to_csv(source / "trials.csv", index=False)
    responses = rng.normal(1, np.arange(1, N_VOXELS + 1), (len(rows), N_VOXELS)).astype(np.float32)
    np.save(source / "responses.npy", responses)
    assert main(["prepare", "table", str(source), str(tmp_path / "data")]) == 0
    assert main(["features", str(tmp_path / "data"), "--encoder", "pixels"]) == 0
    return tmp_path / "data"


@pytest.fixture
def run(tmp_path: Path, dataset: Path) -> Path:
    encoder = get_encoder("pixels")
    stage = encoder.default_layer
    shape = encoder.layers[stage]
    zeros = np.zeros(N_VOXELS, dtype=np.float32)
    linear = LinearPath(
        {stage: np.random.default_rng(0).normal(0, 1e-3, (shape[0] * shape[1], 2)).astype(np.float16)},
        np.ones((2, N_VOXELS), dtype=np.float32), 1 + zeros, {stage: shape}, {},
    )  # fmt: skip
    unit = load_dataset(dataset).info.unit
    part = SubjectPart("s", VoxelSpace(n_voxels=N_VOXELS), unit, zeros, 1 + zeros, linear=linear)
    config = RunConfig(encoder="pixels", encoder_digest=encoder.digest, linear_layers=(stage,))
    return SynBrain(config, {"s": part}).save_pretrained(tmp_path / "run")
