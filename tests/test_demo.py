"""One real end-to-end run: the demo at its smallest size, every file it promises, honest rows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from synbrain import SynBrain, load_dataset
from synbrain.cli import main


@pytest.mark.slow
def test_demo_from_nothing_to_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "demo"
    assert main(["demo", "--out", str(out), "--size", "tiny", "--samples", "20"]) == 0
    printed = capsys.readouterr().out
    assert "[7/7]" in printed
    scores = json.loads((out / "scores.json").read_text())
    rows = scores["scores"]
    assert {"synbrain", "mean_map", "ridge", "ceiling", "oracle"} <= rows.keys()
    assert scores["n_test_images"] == 12
    assert rows["synbrain"]["voxel_r"] > rows["mean_map"]["voxel_r"] + 0.1
    assert rows["synbrain"]["voxel_r"] >= 0.8 * rows["ridge"]["voxel_r"]
    assert rows["oracle"]["voxel_r"] > rows["synbrain"]["voxel_r"]
    assert 0.5 < rows["synbrain"]["variance_ratio"] < 2.0
    pictures = {path.stem for path in (out / "figures").glob("*.png")}
    assert {"maps", "accuracy", "trial_spread", "calibration", "noise_correlations", "training"} <= pictures
    assert (out / "report.html").read_text().count("data:image/png") == len(pictures)

    decoded = out / "decoded"
    assert (decoded / "decoded.png").stat().st_size > 10_000
    kinds = {path.name for path in decoded.iterdir() if path.is_dir()}
    assert kinds == {"seen", "measured-mean", "measured-trial", "synthetic-mean", "synthetic-trial"}
    assert all(len(list((decoded / kind).glob("*.png"))) == 6 for kind in kinds)

    assert f"{rows['ridge']['voxel_r']:.4g}" in (out / "run" / "README.md").read_text()

    synthetic = np.load(out / "synthetic.npy", mmap_mode="r")
    dataset, model = load_dataset(out / "dataset"), SynBrain.from_pretrained(out / "run")
    assert synthetic.shape == (8, 4, dataset.n_voxels)
    images = sorted((out / "new-images").glob("*.png"))
    again = model.sample(images, n_samples=8, seed=0)
    np.testing.assert_allclose(synthetic, again, rtol=1e-4, atol=1e-4)

    assert main(["demo", "--out", str(out), "--size", "tiny"]) == 2
    assert "--overwrite" in capsys.readouterr().err
