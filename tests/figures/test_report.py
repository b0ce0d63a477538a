"""The report page: pictures for what the data allows, and no more."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from synbrain.data.space import Atlas, VoxelSpace
from synbrain.evaluation.row import TrialSummary
from synbrain.features.tokens import Pairs, TokenSet
from synbrain.figures.report import Shown, _pictures, draw_pictures, read_curves
from synbrain.metrics.voxel import voxel_r


def shown(repeats: int, space: VoxelSpace, with_samples: bool = True) -> Shown:
    rng = np.random.default_rng(0)
    n_images, n_voxels = 14, space.n_voxels
    mean = rng.normal(size=(n_images, n_voxels))
    image = np.repeat(np.arange(n_images), repeats)
    trials = (mean[image] + rng.normal(size=(len(image), n_voxels))).astype(np.float32)
    tokens = TokenSet("pixels", "d", {"final": np.zeros((n_images, 1, 1), np.float16)}, np.arange(n_images))
    samples = mean + rng.normal(size=(20, n_images, n_voxels))
    summary = TrialSummary(
        np.array([0.5, 0.9]),
        np.tile([[0.5], [0.9]], n_voxels),
        np.arange(n_voxels),
        np.cov(trials.T),
        np.cov(samples[:, 0].T),
    )
    return Shown(
        test=Pairs(tokens, trials, np.arange(len(image)), image),
        predictions={"synbrain": mean, "ridge": mean * 0.5},
        space=space,
        unit="percent signal change",
        in_mni=False,
        training_mean=np.zeros(n_voxels),
        draw=(lambda rows: samples[:, rows]) if with_samples else None,
        trials=summary if with_samples and repeats > 1 else None,
        variance_ratio=np.ones(n_voxels),
    )


@pytest.fixture
def volume() -> VoxelSpace:
    mask = np.zeros((6, 5, 4), dtype=bool)
    mask[:3, :4, :2] = True
    atlas = Atlas(np.repeat(np.array([1, 2], dtype=np.int32), 12), {1: "V1v", 2: "hV4"}, "made up")
    return VoxelSpace.from_mask(mask, np.eye(4), atlases={"prf": atlas})


def test_every_picture_for_a_volume_with_repeats(volume: VoxelSpace, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    points = [{"stage": "vae", "step": i, "split": "train", "loss": 1 / (i + 1)} for i in range(4)]
    log.write_text("\n".join(json.dumps(point) for point in points))
    written = draw_pictures(tmp_path / "out", shown(3, volume), log)
    names = {picture.path.name for picture in written}
    assert names == {
        "maps.png",
        "accuracy.png",
        "accuracy_by_roi.png",
        "trial_spread.png",
        "calibration.png",
        "noise_correlations.png",
        "training.png",
    }
    assert all(picture.path.exists() and picture.alt for picture in written)


def test_a_constant_voxel_takes_no_bar_from_its_roi(volume: VoxelSpace) -> None:
    data = shown(3, volume)
    data.test.responses[:, 0] = 1.0
    figure = next(figure for _, name, figure, _ in _pictures(data, None) if name == "accuracy_by_roi")
    axes = figure.axes[0]
    heights = [bar.get_height() for bar in axes.patches]
    r = voxel_r(data.predictions["synbrain"], data.test.repeat_means())
    assert heights[0] == pytest.approx(r[1:12].mean())
    assert np.isfinite(heights).all()
    assert np.isfinite(axes.collections[0].get_segments()).all()  # the lines at the noise ceiling


def test_units_without_positions_or_repeats_have_fewer_pictures(tmp_path: Path) -> None:
    assert draw_pictures(tmp_path, shown(1, VoxelSpace(24))) == []


def test_point_masses_show_no_spread(tmp_path: Path) -> None:
    written = draw_pictures(tmp_path, shown(3, VoxelSpace(24), with_samples=False))
    assert [picture.name for picture in written] == ["accuracy"]


def test_one_voxel_has_no_matrix(tmp_path: Path) -> None:
    written = draw_pictures(tmp_path, shown(3, VoxelSpace(1)))
    assert [picture.name for picture in written] == ["accuracy", "trial_spread", "calibration"]


def test_curves_keep_stages_and_splits_apart(tmp_path: Path) -> None:
    lines: list[dict[str, Any]] = [
        {"stage": "vae", "step": 1, "split": "train", "loss": 2.0, "lr": 0.1},
        {"stage": "vae", "step": 1, "split": "validation", "score": 4.0},
        {"stage": "mapper", "step": 1, "split": "validation", "score": 3.0},
        {"note": "passed over"},
    ]
    (tmp_path / "log").write_text("\n".join(json.dumps(line) for line in lines))
    curves = read_curves(tmp_path / "log")
    assert {stage: sorted(names) for stage, names in curves.items()} == {
        "vae": ["training loss", "validation loss"],
        "mapper": ["validation loss"],
    }
    assert curves["vae"]["training loss"].tolist() == [[1.0, 2.0]]
    assert curves["mapper"]["validation loss"].tolist() == [[1.0, 3.0]]
