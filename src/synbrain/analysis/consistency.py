"""Does a synthetic brain behave like its subject? ROI profiles, selectivity and patterns, with controls.

The paper (section 4, figures 5, 8 and 9) shows maps; this measures the same claims on test images. For each
ROI the adapted model is compared with the subject's measured responses and with its full-data model. Two
controls say what such a number means: the same comparison with another subject (between-subject) and with
the images in random order (shuffled).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synbrain.analysis.profiles import pattern_consistency, pearson, roi_profiles, selectivity
from synbrain.arrays import Mask

N_SHUFFLES = 200


@dataclass(frozen=True)
class Source:
    """Responses of one brain, real or synthetic, to a list of images.

    Attributes:
        images: (n_images,) names that are the same for every subject (NSD ids, file names).
        responses: (n_images, n_voxels), repeat means or expected responses.
        rois: ROI -> (n_voxels,) bool, under names that subjects share.
    """

    images: NDArray[Any]
    responses: NDArray[Any]
    rois: dict[str, Mask]


def aligned(a: Source, b: Source) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of ``a`` and of ``b`` that show the same images, in the same order."""
    _, rows_a, rows_b = np.intersect1d(a.images, b.images, return_indices=True)
    return rows_a, rows_b


def profile_agreement(a: Source, b: Source) -> dict[str, float | None]:
    """ROI -> Pearson over shared images between the two brains' mean responses of that ROI."""
    rows_a, rows_b = aligned(a, b)
    one, two = roi_profiles(a.responses[rows_a], a.rois), roi_profiles(b.responses[rows_b], b.rois)
    return {roi: pearson(one[roi], two[roi]) for roi in one if roi in two}


def shuffled_agreement(a: Source, b: Source, seed: int = 0) -> dict[str, float | None]:
    """ROI -> mean |r| of :func:`profile_agreement` with the images of ``b`` in random order."""
    rows_a, rows_b = aligned(a, b)
    one, two = roi_profiles(a.responses[rows_a], a.rois), roi_profiles(b.responses[rows_b], b.rois)
    rng = np.random.default_rng(seed)
    values_of: dict[str, float | None] = {}
    for roi in one:
        if roi not in two:
            continue
        values = [pearson(one[roi], rng.permutation(two[roi])) for _ in range(N_SHUFFLES)]
        values_of[roi] = _mean_size(values)
    return values_of


def selectivity_agreement(a: Source, b: Source, category: dict[Any, str]) -> dict[str, float | None]:
    """Category -> how alike two brains' selectivity is.

    Of the same voxels (one subject, measured and synthetic): Pearson across voxels between the two maps of
    Welch's t. Of different subjects: Pearson across shared ROIs between the ROIs' mean t.

    Args:
        a, b: two brains.
        category: image name -> category.
    """
    rows_a, rows_b = aligned(a, b)
    kinds = np.array([category.get(name, "") for name in a.images[rows_a]])
    return _agreement(a, b, _t_maps(a, rows_a, kinds), _t_maps(b, rows_b, kinds))


def shuffled_selectivity(
    a: Source, b: Source, category: dict[Any, str], seed: int = 0
) -> dict[str, float | None]:
    """Category -> mean |r| of :func:`selectivity_agreement` with the responses of ``a`` in random order."""
    rng = np.random.default_rng(seed)
    rows_a, rows_b = aligned(a, b)
    kinds = np.array([category.get(name, "") for name in a.images[rows_a]])
    of_b = _t_maps(b, rows_b, kinds)
    values_of = [
        _agreement(a, b, _t_maps(a, rng.permutation(len(a.images))[rows_a], kinds), of_b)
        for _ in range(N_SHUFFLES)
    ]
    return {kind: _mean_size([one[kind] for one in values_of]) for kind in of_b}


def _t_maps(source: Source, rows: NDArray[np.int64], kinds: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Category -> (n_voxels,) Welch's t over ``rows``, where two images at least are in it and out of it."""
    values_of = {}
    for kind in sorted(set(kinds) - {""}):
        preferred = kinds == kind
        if min(preferred.sum(), (~preferred).sum()) >= 2:
            values_of[kind] = selectivity(source.responses[rows], preferred)
    return values_of


def _agreement(
    a: Source, b: Source, maps_a: dict[str, NDArray[Any]], maps_b: dict[str, NDArray[Any]]
) -> dict[str, float | None]:
    """Category -> Pearson of two brains' maps, across voxels or, where voxels differ, across shared ROIs."""
    same_voxels = a.responses.shape[1] == b.responses.shape[1] and all(
        roi in b.rois and np.array_equal(a.rois[roi], b.rois[roi]) for roi in a.rois
    )
    if not same_voxels:
        shared = [roi for roi in a.rois if roi in b.rois]
        maps_a, maps_b = (
            {kind: np.array([t[source.rois[roi]].mean() for roi in shared]) for kind, t in maps.items()}
            for source, maps in ((a, maps_a), (b, maps_b))
        )
    return {kind: pearson(maps_a[kind], maps_b[kind]) for kind in maps_a}


def trial_consistency(
    trials: NDArray[Any],
    image_of_trial: NDArray[Any],
    samples: NDArray[Any],
    mean_map: NDArray[Any],
    rois: dict[str, Mask],
) -> dict[str, dict[str, float | None]]:
    """ROI -> consistency of its pattern over measured repeats, and over synthetic trials.

    Args:
        trials: (n_trials, n_voxels), measured.
        image_of_trial: (n_trials,), row of ``samples``' second axis.
        samples: (n_samples, n_images, n_voxels), synthetic trials of the same images.
        mean_map: (n_voxels,), taken off both.
        rois: ROI -> (n_voxels,) bool.
    """
    n_samples, n_images, n_voxels = samples.shape
    flat = samples.reshape(n_samples * n_images, n_voxels)
    shown = np.tile(np.arange(n_images), n_samples)
    return {
        roi: {
            "measured": pattern_consistency(trials[:, mask], image_of_trial, mean_map[mask]),
            "synthetic": pattern_consistency(flat[:, mask], shown, mean_map[mask]),
        }
        for roi, mask in rois.items()
    }


def agreement_table(
    subject: Source, synthetic: dict[str, Source], others: dict[str, Source], seed: int = 0
) -> dict[str, dict[str, float | None]]:
    """ROI -> every comparison of its profile.

    Args:
        subject: the subject's measured repeat means on test images.
        synthetic: model name ("adapted", "full") -> its expected responses for the same subject.
        others: name of another subject -> its measured responses, the between-subject control.
        seed: of the shuffled control.
    """
    columns: dict[str, dict[str, float | None]] = {}
    for name, source in synthetic.items():
        columns[f"{name} vs measured"] = profile_agreement(source, subject)
    if "adapted" in synthetic and "full" in synthetic:
        columns["adapted vs full"] = profile_agreement(synthetic["adapted"], synthetic["full"])
    first = next(iter(synthetic))
    between = [profile_agreement(synthetic[first], other) for other in others.values()]
    if between:
        columns[f"{first} vs other subjects"] = {
            roi: _mean([values.get(roi) for values in between]) for roi in subject.rois
        }
    columns[f"{first} vs measured, shuffled (absolute r)"] = shuffled_agreement(
        synthetic[first], subject, seed
    )
    return {roi: {name: values.get(roi) for name, values in columns.items()} for roi in subject.rois}


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _mean_size(values: list[float | None]) -> float | None:
    """Mean without signs."""
    return _mean([None if value is None else abs(value) for value in values])
