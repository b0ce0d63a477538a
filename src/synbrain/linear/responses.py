"""Repeat means in the coordinates in which the linear path is fitted, and predictions on their way back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from synbrain.arrays import Float32, Rows
from synbrain.linear.noise_units import NoiseUnits
from synbrain.linear.ridge import FoldLayout
from synbrain.metrics.voxel import blocks, mean_defined, voxel_r


@dataclass(frozen=True)
class Responses:
    """Repeat means in the coordinates in which they are fitted, and the way back.

    Attributes:
        measured: (n_images, n_voxels) float32, in the responses' unit.
        folds: (n_images,).
        laid: (n_voxels, n_places) float32, fitted coordinates around the mean, laid out by folds.
        layout: of the images.
        units: of the fitted coordinates.
    """

    measured: Float32
    folds: Rows
    laid: Tensor
    layout: FoldLayout
    units: NoiseUnits

    @classmethod
    def of(cls, measured: Float32, folds: Rows, layout: FoldLayout, units: NoiseUnits) -> Responses:
        """Change coordinates; the free intercept makes up for the means."""
        fitted = units.into(measured - measured.mean(axis=0))
        by_voxel = torch.from_numpy(np.ascontiguousarray(fitted.T)).to(layout.place.device)
        return cls(measured, folds, layout.lay_columns(by_voxel), layout, units)

    def back(self, predicted: Tensor) -> Float32:
        """(n_images, n_voxels) float32 in the responses' unit, from (n_voxels, n_places)."""
        n_voxels, mean = self.measured.shape[1], self.measured.mean(axis=0)
        out = np.empty((len(self.measured), n_voxels), dtype=np.float32)
        for images in blocks(len(out), n_voxels):  # each in four steps, of which the whole would take 2 GiB
            of_images = predicted[:, self.layout.place[images]].cpu().numpy()
            out[images] = self.units.back(np.ascontiguousarray(of_images.T)) + mean
        return out

    def patterns_back(self, expand: Tensor) -> Float32:
        """(r, n_voxels) float32 in the responses' unit."""
        return self.units.back(expand.cpu().numpy())

    def voxels_back(self) -> Float32 | None:
        """(n_voxels, n_voxels) as :meth:`patterns_back` of single voxels; None where units change nothing."""
        if self.units.unchanged:
            return None
        return self.patterns_back(torch.eye(len(self.laid), device=self.laid.device))

    def r(self, predicted: Float32) -> float | None:
        """Mean over voxels of the correlation of (n_images, n_voxels) with what was measured."""
        return mean_defined(voxel_r(predicted, self.measured))[0]
