"""Where the voxels of a simulated subject lie, and which visual areas they belong to.

Voxels are taken from the cortical ribbon of fsaverage5 (bundled with nilearn), in MNI-like mm, so that
maps of a simulated subject land on the right place of a cortical surface.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from synbrain.errors import SynBrainError

PRF_LABELS = {1: "V1v", 2: "V1d", 3: "V2v", 4: "V2d", 5: "V3v", 6: "V3d", 7: "hV4"}
FLOC_LABELS: dict[str, dict[int, str]] = {
    "floc-faces": {1: "OFA", 2: "FFA-1", 3: "FFA-2", 4: "mTL-faces", 5: "aTL-faces"},
    "floc-bodies": {1: "EBA", 2: "FBA-1", 3: "FBA-2", 4: "mTL-bodies"},
    "floc-places": {1: "OPA", 2: "PPA", 3: "RSC"},
    "floc-words": {1: "OWFA", 2: "VWFA-1", 3: "VWFA-2", 4: "mfs-words", 5: "mTL-words"},
}
STREAM_LABELS = {
    1: "early",
    2: "midventral",
    3: "midlateral",
    4: "midparietal",
    5: "ventral",
    6: "lateral",
    7: "parietal",
}
FLOC_CATEGORY = {"floc-faces": "face", "floc-bodies": "body", "floc-places": "place", "floc-words": "word"}

# Centres (|x|, y, z) in MNI mm, with radius, close to group averages of the localizer literature.
AREAS: dict[str, tuple[tuple[float, float, float], float]] = {
    "OFA": ((39, -80, -10), 10),
    "FFA-1": ((38, -62, -16), 9),
    "FFA-2": ((40, -46, -20), 9),
    "EBA": ((48, -72, 4), 13),
    "FBA-1": ((44, -54, -15), 8),
    "FBA-2": ((43, -38, -22), 8),
    "OPA": ((33, -84, 20), 11),
    "PPA": ((25, -46, -10), 12),
    "RSC": ((15, -55, 13), 10),
    "OWFA": ((45, -72, -9), 8),
    "VWFA-1": ((49, -62, -9), 8),
    "VWFA-2": ((49, -50, -15), 9),
}
CALCARINE = ((9.0, -98.0, -2.0), (9.0, -74.0, 5.0))  # occipital pole to the anterior end, |x| y z
EARLY_BORDERS = (8.0, 12.5, 17.0)  # mm from the calcarine line: outer borders of V1, V2, V3
HV4: tuple[tuple[float, float, float], float] = ((28, -78, -14), 11)


@dataclass(frozen=True)
class Cortex:
    """The voxels of one simulated subject, in the C order of its nsdgeneral mask.

    Attributes:
        shape: (x, y, z) of the voxel grid.
        affine: (4, 4) float64, voxel indices to MNI-like mm.
        index: (n_voxels,) int64, positions in the flattened grid, C order, increasing.
        ribbon: (n_ribbon,) int64, all cortical voxels of the grid, of which nsdgeneral is a part.
        mm: (n_voxels, 3) float64, centres.
        right: (n_voxels,) bool, right hemisphere.
        prf, stream: (n_voxels,) int32, label values of prf-visualrois and streams; 0 is none.
        floc: label values of each floc volume; 0 is none.
        eccentricity, angle: (n_voxels,) float64, receptive-field centre in the early areas: fraction of
            the image's half width, and radians (0 right, pi/2 up); meaningless elsewhere.
    """

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]
    index: NDArray[np.int64]
    ribbon: NDArray[np.int64]
    mm: NDArray[np.float64]
    right: NDArray[np.bool_]
    prf: NDArray[np.int32]
    stream: NDArray[np.int32]
    floc: dict[str, NDArray[np.int32]]
    eccentricity: NDArray[np.float64]
    angle: NDArray[np.float64]

    @property
    def n_voxels(self) -> int:
        return len(self.index)


@lru_cache(maxsize=2)
def _ribbon_points(steps: int) -> NDArray[np.float64]:
    """Points (n, 3) mm inside the fsaverage5 grey matter, every triangle filled with ``steps`` per side."""
    from nilearn.datasets import fetch_surf_fsaverage  # slow to import, and only needed here
    from nilearn.surface import load_surf_mesh

    surfaces = fetch_surf_fsaverage("fsaverage5")
    fractions = [
        (a / steps, b / steps, 1 - (a + b) / steps) for a in range(steps + 1) for b in range(steps + 1 - a)
    ]
    clouds = []
    for side in ("left", "right"):
        white, pial = (load_surf_mesh(surfaces[f"{layer}_{side}"]) for layer in ("white", "pial"))
        for depth in np.linspace(0.15, 0.85, max(2, steps)):
            layer = (1 - depth) * white.coordinates + depth * pial.coordinates
            corners = layer[white.faces]
            clouds += [np.tensordot(corners, weights, axes=(1, 0)) for weights in fractions]
    return np.concatenate(clouds).astype(np.float64)


def make_cortex(
    rng: np.random.Generator, shape: tuple[int, int, int], voxel_mm: float, n_voxels: int
) -> Cortex:
    """Place ``n_voxels`` voxels of ``voxel_mm`` on the visual cortex of one subject.

    Areas are moved by a few mm and scaled in radius, at random, so that subjects differ.

    Raises:
        SynBrainError: where the grid holds fewer cortical voxels than asked for.
    """
    affine = np.diag([voxel_mm] * 3 + [1.0])
    affine[:3, 3] = (-voxel_mm * (shape[0] - 1) / 2, -110.0, -48.0)
    points = _ribbon_points(1 if voxel_mm > 3 else 3)
    voxel = np.rint((points - affine[:3, 3]) / voxel_mm).astype(np.int64)
    inside = ((voxel >= 0) & (voxel < np.array(shape))).all(axis=1)
    ribbon, counts = np.unique(np.ravel_multi_index(voxel[inside].T, shape), return_counts=True)
    ribbon = ribbon[counts >= 0.35 * np.median(counts)]  # voxels that the ribbon barely touches are left out
    if len(ribbon) < n_voxels:
        raise SynBrainError(
            f"a grid of {shape} voxels of {voxel_mm} mm holds {len(ribbon)} cortical voxels, not {n_voxels}",
            "choose a larger grid, smaller voxels or fewer of them",
        )
    grid = np.stack(np.unravel_index(ribbon, shape), axis=1)
    mm = np.asarray(grid * voxel_mm + affine[:3, 3], dtype=np.float64)
    reach = _reach(mm)
    chosen = np.sort(np.argsort(reach, kind="stable")[:n_voxels])
    mm = mm[chosen]
    right = mm[:, 0] > 0
    prf, eccentricity, angle = _early_areas(mm, right, rng)
    floc = _selective_areas(mm, prf > 0, rng)
    return Cortex(
        shape=shape,
        affine=affine,
        index=ribbon[chosen],
        ribbon=ribbon,
        mm=mm,
        right=right,
        prf=prf,
        stream=_streams(mm, prf),
        floc=floc,
        eccentricity=eccentricity,
        angle=angle,
    )


def _folded(mm: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.stack([np.abs(mm[:, 0]), mm[:, 1], mm[:, 2]], axis=1)


def _to_calcarine(mm: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Distance in mm to the calcarine line and the position along it (0 pole, 1 anterior end)."""
    start, end = (np.array(p) for p in CALCARINE)
    away = _folded(mm) - start
    along = np.clip(away @ (end - start) / ((end - start) @ (end - start)), 0, 1)
    return np.linalg.norm(away - along[:, None] * (end - start), axis=1), along


def _reach(mm: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far each place lies outside the visual areas, in mm: nsdgeneral takes the nearest."""
    folded = _folded(mm)
    reach = _to_calcarine(mm)[0] - EARLY_BORDERS[2]
    for centre, radius in [*AREAS.values(), HV4]:
        reach = np.minimum(reach, np.linalg.norm(folded - np.array(centre), axis=1) - radius)
    return np.asarray(reach)


def _early_areas(
    mm: NDArray[np.float64], right: NDArray[np.bool_], rng: np.random.Generator
) -> tuple[NDArray[np.int32], NDArray[np.float64], NDArray[np.float64]]:
    distance, along = _to_calcarine(mm + rng.normal(0, 1.0, 3))
    borders = np.array(EARLY_BORDERS) * rng.uniform(0.92, 1.08)
    (_, y0, z0), (_, y1, z1) = CALCARINE
    dorsal = mm[:, 2] > z0 + (z1 - z0) * np.clip((mm[:, 1] - y0) / (y1 - y0), 0, 1)
    area = np.searchsorted(borders, distance)  # 0 V1, 1 V2, 2 V3, 3 beyond
    prf = np.where(area < 3, 1 + 2 * area + dorsal, 0)
    centre = np.array(HV4[0]) + rng.normal(0, 2.0, 3)
    near = np.linalg.norm(_folded(mm) - centre, axis=1) < HV4[1]
    prf = np.where(near & ((prf == 0) | (prf == 5)), 7, prf)
    # Retinotopy: anterior is peripheral; the angle runs from the horizontal meridian in the calcarine
    # sulcus to the vertical one at the V1/V2 border, and back in V2; ventral cortex sees the upper field.
    inner = np.concatenate([[0.0], borders])[np.minimum(area, 3)]
    outer = np.concatenate([borders, [borders[2] + 8]])[np.minimum(area, 3)]
    across = np.clip((distance - inner) / (outer - inner), 0, 1)
    polar = np.where(area % 2 == 0, across, 1 - across) * np.pi / 2
    polar = np.where(dorsal & (prf != 7), -polar, polar)
    angle = np.where(right, np.pi - polar, polar)  # the right hemisphere sees the left field
    eccentricity = np.clip(0.06 + 0.85 * along + rng.normal(0, 0.05, len(mm)), 0.03, 0.95)
    return prf.astype(np.int32), eccentricity, angle


def _selective_areas(
    mm: NDArray[np.float64], taken: NDArray[np.bool_], rng: np.random.Generator
) -> dict[str, NDArray[np.int32]]:
    """Each free voxel goes to the area whose centre is nearest in units of the area's radius."""
    nearest = np.full(len(mm), 1.0)
    label = np.full(len(mm), "", dtype=object)
    for name, (centre, radius) in AREAS.items():
        for side in (-1, 1):
            # words prefer the left hemisphere, faces the right one
            bias = 1.0 + 0.15 * side * (("FA" in name and "WFA" not in name) - ("WFA" in name))
            place = np.array([side * centre[0], *centre[1:]]) + rng.normal(0, 2.0, 3)
            far = np.linalg.norm(mm - place, axis=1) / (radius * bias * rng.uniform(0.85, 1.15))
            won = (far < nearest) & ~taken
            nearest, label = np.where(won, far, nearest), np.where(won, name, label)
    return {
        volume: np.sum([value * (label == name) for value, name in names.items()], axis=0).astype(np.int32)
        for volume, names in FLOC_LABELS.items()
    }


def _streams(mm: NDArray[np.float64], prf: NDArray[np.int32]) -> NDArray[np.int32]:
    across, y, z = _folded(mm).T
    middle = y < -68
    ventral, parietal = z < -5, (z > 12) & (across < 36)
    stream = np.where(ventral, np.where(middle, 2, 5), np.where(parietal, np.where(middle, 4, 7), 0))
    stream = np.where(stream == 0, np.where(middle, 3, 6), stream)
    return np.where((prf > 0) & (prf < 7), 1, stream).astype(np.int32)


def smooth_field(
    rng: np.random.Generator, mm: NDArray[np.float64], length_mm: float, n_fields: int
) -> NDArray[np.float64]:
    """Random maps that vary smoothly over space: (n_fields, n_voxels), mean 0 and variance about 1.

    Random Fourier features of a Gaussian kernel of length ``length_mm`` (Rahimi and Recht, NIPS 2007).
    """
    waves = rng.normal(0, 1 / length_mm, (3, 96))
    phases = rng.uniform(0, 2 * np.pi, 96)
    weights = rng.normal(0, np.sqrt(2 / 96), (n_fields, 96))
    return np.asarray(weights @ np.cos(mm @ waves + phases).T)
