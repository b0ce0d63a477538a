"""``synbrain calibrate``: the noise changes, the mean does not."""

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
from synbrain.model import SynBrain
from synbrain.models.linear_path import LinearPath
from synbrain.run_parts import RunConfig, SubjectPart

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
    stage = encoder.default_stage
    shape = encoder.stages[stage]
    zeros = np.zeros(N_VOXELS, dtype=np.float32)
    linear = LinearPath(
        {stage: np.random.default_rng(0).normal(0, 1e-3, (shape[0] * shape[1], 2)).astype(np.float16)},
        np.ones((2, N_VOXELS), dtype=np.float32), 1 + zeros, {stage: shape}, {},
    )  # fmt: skip
    unit = load_dataset(dataset).info.unit
    part = SubjectPart("s", VoxelSpace(n_voxels=N_VOXELS), unit, zeros, 1 + zeros, linear=linear)
    config = RunConfig(encoder="pixels", encoder_digest=encoder.digest, linear_stages=(stage,))
    return SynBrain(config, {"s": part}).save_pretrained(tmp_path / "run")


def test_the_noise_is_refitted_and_the_mean_kept(run: Path, dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "calibrated"
    assert main(["calibrate", str(run), str(dataset), "--out", str(out)]) == 0
    old, new = SynBrain.from_pretrained(run), SynBrain.from_pretrained(out)
    picture = np.zeros((1, 8, 8, 3), dtype=np.uint8)
    np.testing.assert_array_equal(new.predict(picture), old.predict(picture))
    assert old.subject().noise is None
    sd = np.sqrt(new.subject().noise.noise_variance)
    np.testing.assert_allclose(sd, np.arange(1, N_VOXELS + 1), rtol=0.25)
    assert new.sample(picture, 5).std(axis=0).min() > 0
    assert "source" in (out / "README.md").read_text()


def test_an_existing_run_and_other_voxels_are_refused(
    run: Path, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["calibrate", str(run), str(dataset), "--out", str(run)]) == 2
    assert "--overwrite" in capsys.readouterr().err
    model = SynBrain.from_pretrained(run)
    part = model.subject()
    fewer = SubjectPart(
        "s", VoxelSpace(n_voxels=3), part.unit, part.response_mean[:3], part.response_sd[:3],
        linear=LinearPath(part.linear.projections, part.linear.mixing[:, :3], part.linear.intercept[:3],
                          part.linear.shapes, {}),
    )  # fmt: skip
    other = SynBrain(model.config, {"s": fewer}).save_pretrained(tmp_path / "other")
    assert main(["calibrate", str(other), str(dataset), "--out", str(tmp_path / "o2")]) == 2
    assert "6 voxels" in capsys.readouterr().err
    assert not (tmp_path / "o2").exists()
