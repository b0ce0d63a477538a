from __future__ import annotations

import json

import numpy as np
import pytest

from synbrain.baselines.mlp_autoencoder import MLPAE
from synbrain.baselines.mlp_parts import MLPConfig
from synbrain.baselines.registry import BASELINES
from synbrain.comparison.methods import METHODS
from synbrain.comparison.results import curves_path, load_result, result_path, save_result, stored_curves
from synbrain.evaluation.row import Row


@pytest.fixture
def saved(tmp_path):
    row = Row(
        values={"mse": 1.5, "crps": None, "pearson": float("nan")},
        replicates={"mse": np.array([1.0, 2.0])},
        per_voxel={"voxel_r": np.array([0.5, np.nan])},
        rois={"toy/one": {"n_voxels": 2, "voxel_r": 0.5}},
        notes={"crps": "why"},
    )
    path = result_path(tmp_path, "ridge", 3)
    save_result(path, row, identity="abc", seconds=2.0, seed=3)
    return path, row


def test_a_row_comes_back(saved):
    path, row = saved
    assert path.parts[-3:] == ("results", "ridge", "seed3.json")
    found, seconds = load_result(path, "abc")
    assert seconds == 2.0
    assert found.values == {"mse": 1.5, "crps": None, "pearson": None}
    assert (found.rois, found.notes) == (row.rois, row.notes)
    np.testing.assert_array_equal(found.replicates["mse"], row.replicates["mse"])
    np.testing.assert_array_equal(found.per_voxel["voxel_r"], row.per_voxel["voxel_r"])
    assert "NaN" not in path.read_text()


def test_another_identity_is_not_taken(saved):
    assert load_result(saved[0], "other") is None


def test_damage_is_not_taken(saved):
    path, _ = saved
    beside = path.with_suffix(".npz")
    whole = beside.read_bytes()
    for broken in (whole[:-20], whole[:60] + b"x" + whole[61:]):
        beside.write_bytes(broken)
        assert load_result(path, "abc") is None
    beside.unlink()
    assert load_result(path, "abc") is None
    path.write_text(json.dumps({"identity": "abc"}))
    assert load_result(path, "abc") is None
    path.write_text('{"identity": "ab')
    assert load_result(path, "abc") is None
    path.unlink()
    assert load_result(path, "abc") is None


def test_curves_of_mlp_systems_lie_beside_their_results(toy, registry, run, tmp_path, monkeypatch):
    small = MLPConfig(
        tokens=2, dim=4, hidden=8, blocks=1, epochs=2, second_epochs=3, depth=1, heads=2, sample_steps=2
    )  # fmt: skip
    monkeypatch.setitem(BASELINES, "mlp_ae", lambda: MLPAE(small))
    run("mlp_ae", registry={**registry, "mlp_ae": METHODS["mlp_ae"]}, seeds=1)
    found = stored_curves(tmp_path / "out", ["ridge", "mlp_ae"])
    assert list(found) == ["mlp_ae"]
    assert {n: len(epochs) for n, epochs in found["mlp_ae"]["seed0"].items()} == {
        "autoencoder": 2,
        "second": 3,
    }
    assert {"train", "mse", "soft_clip"} <= set(found["mlp_ae"]["seed0"]["autoencoder"][0])
    assert curves_path(result_path(tmp_path / "out", "mlp_ae", 0)).exists()
