"""What an ROI does over images, and which categories its voxels prefer."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from synbrain.arrays import Float64, Mask

# ventral and dorsal parts, and patches of NSD's localizer; VO-1 and VO-2 are areas of their own
PART = re.compile(r"(V\d)[vd]|(FFA|FBA|VWFA)-[12]")
UNNAMED = re.compile(r"label \d+")  # a value that no file names


def roi_profiles(responses: NDArray[Any], rois: dict[str, Mask]) -> dict[str, Float64]:
    """Mean response of each ROI to each image.

    Args:
        responses: (n_images, n_voxels), any unit.
        rois: ROI -> (n_voxels,) bool, at least one voxel each.

    Returns:
        ROI -> (n_images,) float64.
    """
    return {
        name: np.asarray(responses[:, mask].mean(axis=1), dtype=np.float64) for name, mask in rois.items()
    }


def merged_rois(masks: dict[str, Mask], min_voxels: int = 10) -> dict[str, Mask]:
    """ROIs under names that subjects share: parts of one area joined, small ones left out.

    "prf-visualrois/V1v" and ".../V1d" become "V1"; "floc-faces/FFA-1" and "FFA-2" become "FFA". What two
    atlases call alike are two areas, and numbers without a name say nothing: these become "V1 (atlas)".

    Args:
        masks: as :meth:`VoxelSpace.roi_masks` gives them.
        min_voxels: areas with fewer voxels are left out.

    >>> ones, none = np.ones(3, dtype=bool), np.zeros(3, dtype=bool)
    >>> list(merged_rois({"a/V1v": ones, "a/V1d": none, "a/label 1": ones, "b/hV4": ones}, 1))
    ['V1', 'label 1 (a)', 'hV4']
    """
    joined: dict[tuple[str, str], Mask] = {}
    for name, mask in masks.items():
        atlas, _, label = name.rpartition("/")
        key = _area_of(label), atlas
        joined[key] = joined[key] | mask if key in joined else mask
    areas = [area for area, _ in joined]
    return {
        area if areas.count(area) == 1 and not UNNAMED.fullmatch(area) else f"{area} ({atlas})": mask
        for (area, atlas), mask in joined.items()
        if mask.sum() >= min_voxels
    }


def _area_of(label: str) -> str:
    """The area that a label is of, or is a part of."""
    part = PART.fullmatch(label)
    return label if part is None else part[1] or part[2]


def pearson(a: NDArray[Any], b: NDArray[Any]) -> float | None:
    """Pearson correlation of two (n,) series; None where one is constant or shorter than three."""
    if len(a) < 3 or np.std(a) == 0 or np.std(b) == 0:
        return None
    return float(np.corrcoef(a, b)[0, 1])


def selectivity(responses: NDArray[Any], preferred: Mask) -> Float64:
    """Welch's t of each voxel for images of a category against all others.

    Args:
        responses: (n_images, n_voxels).
        preferred: (n_images,) bool, True for images of the category; two of each kind at least.

    Returns:
        (n_voxels,) float64; 0 where a voxel does not vary.
    """
    if min(preferred.sum(), (~preferred).sum()) < 2:
        raise ValueError("selectivity needs two images of the category and two others")
    values = np.asarray(responses, dtype=np.float64)
    t = stats.ttest_ind(values[preferred], values[~preferred], axis=0, equal_var=False).statistic
    return np.nan_to_num(np.asarray(t, dtype=np.float64), posinf=0.0, neginf=0.0)


def pattern_consistency(
    trials: NDArray[Any], image_of_trial: NDArray[Any], mean_map: NDArray[Any]
) -> float | None:
    """Mean Pearson across voxels between two trials of one image, the mean map taken off first.

    Args:
        trials: (n_trials, n_voxels) of one ROI.
        image_of_trial: (n_trials,) which image each showed.
        mean_map: (n_voxels,), e.g. the training mean; left in, it would make any two trials alike.

    Returns:
        In [-1, 1]; None where no image has two trials or the ROI has fewer than three voxels.
    """
    centred = np.asarray(trials, dtype=np.float64) - mean_map
    centred -= centred.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(centred, axis=1)
    if trials.shape[1] < 3:
        return None
    similarities = []
    for image in np.unique(image_of_trial):
        rows = np.flatnonzero((image_of_trial == image) & (norms > 0))
        if len(rows) < 2:
            continue
        unit = centred[rows] / norms[rows, None]
        similar = unit @ unit.T
        similarities.append(similar[np.triu_indices(len(rows), 1)].mean())
    return float(np.mean(similarities)) if similarities else None
