"""Pictures show what they are given: files appear, values land where they belong."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from synbrain.data.fsaverage import on_surface
from synbrain.data.space import VoxelSpace
from synbrain.figures.accuracy import accuracy_against_ceiling, accuracy_by_roi, training_curves
from synbrain.figures.adaptation import curve_figure
from synbrain.figures.consistency import consistency_figure
from synbrain.figures.spread import calibration, noise_covariance, trial_spread
from synbrain.figures.style import save_png
from synbrain.figures.surface import scatter_maps, surface_maps


@pytest.fixture
def space() -> VoxelSpace:
    """A ball of voxels around the right FFA and one around the left occipital pole, MNI mm."""
    affine = np.diag([3.0, 3.0, 3.0, 1.0])
    affine[:3, 3] = [-78, -112, -60]
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in (54, 40, 40)], indexing="ij"), axis=-1)
    places = grid @ affine[:3, :3].T + affine[:3, 3]
    near = [np.linalg.norm(places - centre, axis=-1) < 10 for centre in ([40, -50, -18], [-12, -94, 2])]
    return VoxelSpace.from_mask(near[0] | near[1], affine)


def test_maps_land_on_their_hemisphere(space: VoxelSpace) -> None:
    sides = np.sign(space.coordinates()[:, 0])[None]
    projected = on_surface(space, sides, in_mni=True)
    assert np.nanmin(projected["right"]) == pytest.approx(1.0)
    assert np.nanmax(projected["left"]) == pytest.approx(-1.0)
    assert 20 < np.isfinite(projected["left"]).sum() < 2000


def test_surface_and_scatter_maps_are_drawn(space: VoxelSpace, tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(1, space.n_voxels))
    for number, draw in enumerate((surface_maps, scatter_maps)):
        path = tmp_path / f"{number}.png"
        save_png(draw(space, {"measured": values, "synthetic": values}, ["one"], "%"), path, dpi=40)
        pixels = np.asarray(Image.open(path).convert("RGB"), dtype=int)
        coloured = np.ptp(pixels, axis=2) > 60
        assert coloured.sum() > 50


def test_every_chart_is_drawn(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    ceiling = np.r_[rng.uniform(0, 1, 20), np.nan]
    figures = {
        "ceiling": accuracy_against_ceiling({"synbrain": ceiling * 0.8, "ridge": ceiling * 0.7}, ceiling),
        "roi": accuracy_by_roi({"prf/V1v": {"synbrain": 0.5, "ridge": 0.4}, "floc/FFA-1": {"ridge": 0.2}}),
        "curves": training_curves({"vae": {"train": np.array([[0, 1.0], [1, 0.5]])}}),
        "spread": trial_spread(
            [rng.normal(size=(3, 2))] * 4, *rng.normal(size=(2, 9, 4, 2)), ["a", "b"], "%"
        ),
        "calibration": calibration(
            {"all": rng.uniform(0.5, 1.5, 30)}, np.linspace(0, 1, 5), {"all": np.linspace(0, 1, 5)}
        ),
        "noise": noise_covariance(np.corrcoef(rng.normal(size=(6, 9))), np.corrcoef(rng.normal(size=(6, 9)))),
    }
    for name, figure in figures.items():
        save_png(figure, tmp_path / f"{name}.png", dpi=40)
        assert np.asarray(Image.open(tmp_path / f"{name}.png")).std() > 1


def test_bars_of_areas_have_their_ceiling() -> None:
    bars = {"V1": {"synbrain": 0.5, "ridge": 0.4}, "FFA": {"synbrain": 0.2, "ridge": 0.3}}
    axes = accuracy_by_roi(bars, ceiling={"V1": 0.7}).axes[0]  # FFA: not known
    (lines,) = axes.collections
    (drawn,) = [segment for segment in lines.get_segments() if len(segment)]
    assert drawn[0][1] == 0.7
    assert "noise ceiling" in [text.get_text() for text in axes.get_legend().get_texts()]


@pytest.mark.parametrize(("last", "scale"), [(0.5, "linear"), (0.05, "log")])
def test_losses_are_on_a_logarithmic_axis_only_over_decades(last: float, scale: str) -> None:
    figure = training_curves({"vae": {"training loss": np.array([[0, 1.0], [1, last]])}})
    assert figure.axes[0].get_yscale() == scale


def test_a_legend_tells_trials_from_predictive_draws() -> None:
    rng = np.random.default_rng(0)
    figure = trial_spread([rng.normal(size=(3, 1))] * 4, *rng.normal(size=(2, 9, 4, 1)), ["a"], "%")
    named = {text.get_text() for text in figure.legends[0].get_texts()}
    assert named == {"synthetic trials", "predictive draws", "measured repeats"}


def test_the_adaptation_curve_shows_its_means_whatever_the_intervals() -> None:
    """Two draws give intervals of a t with one degree of freedom: wider than all correlations there are."""
    wide = {"draws": [-2.0, 2.3], "images": None}
    point = {"n_images": 10, "adapted": 0.2, "scratch": 0.1, "ridge": 0.15, "full": 0.3, "base": None}
    points = [point | {"intervals": dict.fromkeys(("adapted", "scratch", "ridge"), wide)}]
    axes = curve_figure({"curve": points, "dataset": "me", "base_subjects": ["other"]}).axes[0]
    low, high = axes.get_ylim()
    assert -1 < low < 0 < 0.3 < high < 1


def test_shuffled_controls_are_grey_and_names_of_areas_do_not_overlap() -> None:
    rows = {
        name: {"measured": 0.5, "measured, shuffled": 0.1} for name in [f"midventral{i}" for i in range(9)]
    }
    report = SimpleNamespace(selectivity={}, profiles=rows, trials={})
    axes = consistency_figure(report).axes[0]  # type: ignore[arg-type]
    red, green, blue, _ = axes.containers[1].patches[0].get_facecolor()
    assert max(red, green, blue) - min(red, green, blue) < 0.1
    assert {label.get_rotation() for label in axes.get_xticklabels()} == {45.0}
