"""One page on a run: scores with controls and ceiling, maps, accuracy, trial spread, training curves."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from synbrain.analysis.profiles import merged_rois
from synbrain.arrays import Rows
from synbrain.data.fsaverage import has_surface
from synbrain.data.space import VoxelSpace
from synbrain.evaluation.row import TrialSummary
from synbrain.features.tokens import Pairs
from synbrain.figures.accuracy import accuracy_against_ceiling, accuracy_by_roi, training_curves
from synbrain.figures.spread import calibration, noise_covariance, trial_spread
from synbrain.figures.style import save_png
from synbrain.figures.surface import scatter_maps, surface_maps
from synbrain.metrics.ceiling import FEWEST_IMAGES, ceiling_snr, correlation_ceiling, tells_noise
from synbrain.metrics.distribution import within_image_squares
from synbrain.metrics.voxel import voxel_r

N_MAP_IMAGES = 3
N_SPREAD_IMAGES = 12
N_NOISE_VOXELS = 150
LEAST_NOISE_VOXELS = 3  # a matrix of noise correlations says something
MIN_ROI_VOXELS = 10
COARSE = ("hemisphere", "streams")  # atlases that overlap all others: too much for one picture


@dataclass(frozen=True)
class Shown:
    """The arrays that the pictures show, all on test images.

    Attributes:
        test: the test trials with their tokens.
        predictions: model name -> (n_images, n_voxels), the expected response.
        space: of the voxels.
        unit: of the responses.
        in_mni: whether the space's mm are MNI (simulated subjects); native scans are drawn as dots.
        training_mean: (n_voxels,), the mean map, subtracted in the maps so that the image shows.
        draw: image rows -> (n_samples, n, n_voxels), the model's synthetic trials of a few images; None
            where it has none.
        predictive: the same for predictive draws.
        stimulus: position of a test image -> its picture, where the stimuli can be read.
        trials: what scoring summed over all synthetic trials.
        variance_ratio: (n_voxels,), synthetic over measured trial variance.
    """

    test: Pairs
    predictions: dict[str, NDArray[Any]]
    space: VoxelSpace
    unit: str
    in_mni: bool
    training_mean: NDArray[Any]
    draw: Callable[[Rows], NDArray[Any]] | None = None
    predictive: Callable[[Rows], NDArray[Any]] | None = None
    stimulus: Callable[[int], Image.Image] | None = None
    trials: TrialSummary | None = None
    variance_ratio: NDArray[Any] | None = None


@dataclass(frozen=True)
class Drawn:
    """A picture on disk: its name, its heading, what it shows, and the same for who cannot see it."""

    name: str
    heading: str
    path: Path
    caption: str
    alt: str


def draw_pictures(folder: Path, shown: Shown, training_log: Path | None = None) -> list[Drawn]:
    """Draw every picture that the data allow into ``folder``, as PNG files.

    Args:
        folder: made where it is missing.
        shown: what the pictures show.
        training_log: ``training/log.jsonl`` of the run, if there is one.
    """
    drawn = []
    for heading, name, figure, caption in _pictures(shown, training_log):
        path = folder / f"{name}.png"
        save_png(figure, path)
        alt = ALTS[name].format(shown.space.unit_names)
        drawn.append(Drawn(name, heading, path, caption, f"{alt} {caption}"))
    return drawn


ALTS = {
    "maps": "Rows of brains: stimuli above measured, expected and single-trial maps.",
    "accuracy": "Scatter plots of {}: accuracy against noise ceiling.",
    "accuracy_by_roi": "Bars of accuracy by ROI, with lines at the noise ceiling.",
    "trial_spread": "Violins of trials and predictive draws with dots of measured trials, for two {}.",
    "calibration": "Boxes of variance ratios beside a reliability curve.",
    "noise_correlations": "Two matrices of noise correlations and a scatter plot of their entries.",
    "training": "Lines of losses over training steps.",
}


def _pictures(shown: Shown, training_log: Path | None) -> list[tuple[str, str, Any, str]]:
    """(heading, file name, figure, caption) of every picture that the data allows."""
    made: list[tuple[str, str, Any, str]] = []
    test = shown.test
    means, trials = test.repeat_means(), test.trial_responses()
    model = next(iter(shown.predictions))
    space = shown.space
    if has_surface(space, shown.in_mni) or space.has_coordinates:
        made.append(_maps(shown, means))
    repeated = tells_noise(test.repeats())
    r = {name: voxel_r(predicted, means) for name, predicted in shown.predictions.items()}
    ceiling = None
    if repeated and test.n_images >= FEWEST_IMAGES:
        ceiling = correlation_ceiling(ceiling_snr(trials, test.image_of_trial), test.repeats())
        words = (
            f"Each dot is a {space.unit_name}. On the line, the model would predict as well as the repeats "
        )
        words += "allow."
        figure = accuracy_against_ceiling(r, ceiling, space.unit_name)
        made.append(("Accuracy against the noise ceiling", "accuracy", figure, words))
    rois = noticeable_rois(shown.space)
    if rois:
        scored = np.isfinite(r[model])  # not the constant ones: one would leave its ROI without a bar
        table = {
            roi: {name: float(np.mean(values[mask & scored])) for name, values in r.items()}
            for roi, mask in rois.items()
            if (mask & scored).any()
        }
        words = "Pearson across test images against the repeat mean, averaged over the "
        words += f"{space.unit_names} of each ROI."
        limit = {}
        if ceiling is not None:
            limit = {roi: float(np.mean(ceiling[rois[roi] & scored])) for roi in table}
        if limit:
            words += " Lines are the mean noise ceiling there."
        made.append(("Accuracy by ROI", "accuracy_by_roi", accuracy_by_roi(table, ceiling=limit), words))
    if repeated and shown.trials is not None and np.diag(np.atleast_2d(shown.trials.synthetic)).max() > 0:
        made += _spread(shown, shown.trials, trials, r[model], rois)
    if training_log is not None and training_log.exists():
        curves = read_curves(training_log)
        if curves:
            words = "Losses as trained; validation images come out of the training images."
            made.append(("Training", "training", training_curves(curves), words))
    return made


def _maps(shown: Shown, means: NDArray[Any]) -> tuple[str, str, Any, str]:
    """Measured and synthetic maps of the images that differ most from the mean map."""
    base = shown.training_mean
    model = next(iter(shown.predictions))
    strength = np.linalg.norm(means - base, axis=1)
    chosen = np.argsort(-strength)[: 4 * N_MAP_IMAGES : 4]
    rows = {"measured": means[chosen] - base}
    rows |= {"expected response": shown.predictions[model][chosen] - base}
    if shown.draw is not None:
        rows |= {"one synthetic trial": shown.draw(chosen)[0] - base}
    titles = [f"test image {int(i)}" for i in chosen]
    draw = surface_maps if has_surface(shown.space, shown.in_mni) else scatter_maps
    stimuli = None if shown.stimulus is None else [shown.stimulus(int(i)) for i in chosen]
    words = (
        "Mean over repeats (measured), the response that the model expects, and one synthetic trial, each "
        "minus the mean map of the training trials. Images are picked by the size of the measured response, "
        "not by how well they are predicted."
    )
    return (
        "Measured and synthetic responses",
        "maps",
        draw(shown.space, rows, titles, shown.unit, stimuli),
        words,
    )


def noticeable_rois(space: VoxelSpace) -> dict[str, NDArray[np.bool_]]:
    """ROI masks without atlases that overlap all others and without areas of a few voxels."""
    masks = {name: mask for name, mask in space.roi_masks().items() if name.split("/")[0] not in COARSE}
    return merged_rois(masks, MIN_ROI_VOXELS)


def _spread(
    shown: Shown,
    summary: TrialSummary,
    trials: NDArray[Any],
    accuracy: NDArray[Any],
    rois: dict[str, NDArray[np.bool_]],
) -> list[tuple[str, str, Any, str]]:
    """Trial spread of two voxels, calibration by ROI, and noise correlations."""
    assert shown.draw is not None
    assert shown.variance_ratio is not None
    image = shown.test.image_of_trial
    voxels = np.argsort(-accuracy)[[0, len(accuracy) // 4]]
    images = np.flatnonzero(shown.test.repeats() > 1)[:N_SPREAD_IMAGES]
    measured = [trials[image == i][:, voxels] for i in images]
    unit_name, unit_names = shown.space.unit_name, shown.space.unit_names
    names = [f"best predicted {unit_name} (r = {accuracy[voxels[0]]:.2f})"]
    names += [f"{unit_name} at the upper quartile (r = {accuracy[voxels[1]]:.2f})"]
    drawn = shown.draw(images)[:, :, voxels]
    predictive = drawn if shown.predictive is None else shown.predictive(images)[:, :, voxels]
    spread = trial_spread(measured, drawn, predictive, names, shown.unit)
    ratio = shown.variance_ratio
    groups = {"all": np.isfinite(ratio)} | {name: mask & np.isfinite(ratio) for name, mask in rois.items()}
    groups = {name: mask for name, mask in groups.items() if mask.any()}
    figure = calibration(
        {name: ratio[mask] for name, mask in groups.items()},
        summary.levels,
        {name: summary.covered[:, mask].mean(axis=1) for name, mask in groups.items()},
    )
    made = [
        (
            f"How trials vary: two {unit_names}",
            "trial_spread",
            spread,
            "Dots are measured repeats of a test image. Dark shapes are synthetic trials around the expected "
            "response: they are as wide as the dots are apart. Light shapes hold the error of the expected "
            "response too: the dots should lie in them.",
        ),
        (
            "Calibration of the trial distribution",
            "calibration",
            figure,
            "Left: variance of synthetic trials within images over that of measured ones, per "
            f"{unit_name} (grey band: 0.9 to 1.1). Right: how many measured trials fall into the central "
            "predictive intervals.",
        ),
    ]
    return made + _noise(summary, trials, image, rois, unit_names)


def _noise(
    summary: TrialSummary,
    trials: NDArray[Any],
    image: Rows,
    rois: dict[str, NDArray[np.bool_]],
    unit_names: str,
) -> list[tuple[str, str, Any, str]]:
    """Noise correlations with the ROIs named; nothing where there are too few voxels for a matrix."""
    squares, _ = within_image_squares(trials, image)
    inside = {name: mask[summary.voxels] for name, mask in rois.items()}
    place = _noise_voxels(squares[summary.voxels], inside)
    if len(place) < LEAST_NOISE_VOXELS:
        return []
    correlations = [_correlation(of[np.ix_(place, place)]) for of in (summary.measured, summary.synthetic)]
    names = ["" for _ in place]
    for name, mask in reversed(inside.items()):
        names = [name if mask[v] else old for v, old in zip(place, names, strict=True)]
    words = f"Correlations between {unit_names} of what varies over repeats of an image"
    words += f"; {unit_names} grouped by ROI." if rois else "."
    return [
        (
            "Noise correlations",
            "noise_correlations",
            noise_covariance(correlations[0], correlations[1], names),
            words,
        )
    ]


def _correlation(covariance: NDArray[Any]) -> NDArray[Any]:
    sd = np.sqrt(np.maximum(np.diag(covariance), 1e-12))
    return np.asarray(covariance / np.outer(sd, sd))


def _noise_voxels(squares: NDArray[Any], rois: dict[str, NDArray[np.bool_]]) -> NDArray[Any]:
    """At most N_NOISE_VOXELS of the voxels that vary, in the order of the ROIs."""
    n_voxels = len(squares)
    group = np.full(n_voxels, len(rois))
    for number, mask in enumerate(rois.values()):
        group[mask & (group == len(rois))] = number
    order = np.lexsort((np.arange(n_voxels), group))
    order = order[squares[order] > 0]
    kept = np.linspace(0, len(order) - 1, min(N_NOISE_VOXELS, len(order))).astype(int)
    return np.asarray(order[kept])


def read_curves(log: Path) -> dict[str, dict[str, NDArray[Any]]]:
    """Training curves of a ``log.jsonl``: stage -> curve name -> (n_points, 2) step and value.

    Lines are JSON objects with "stage", "step" and "split"; the training loss and the validation loss (by its
    name there "score": the smaller, the better) are taken, other values are passed over.
    """
    shown = {"train": "loss", "validation": "score"}
    points: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for line in log.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        split = entry.get("split")
        value = entry.get(shown.get(split, ""))
        if {"stage", "step"} <= entry.keys() and isinstance(value, int | float):
            name = f"{'training' if split == 'train' else split} loss"
            curve = points.setdefault(str(entry["stage"]), {}).setdefault(name, [])
            curve.append((float(entry["step"]), float(value)))
    return {
        stage: {name: np.array(values) for name, values in curves.items()} for stage, curves in points.items()
    }
