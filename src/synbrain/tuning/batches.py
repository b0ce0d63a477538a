"""Batches of a tuning: images of all subjects, with what the units of each image's subject answered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from synbrain.arrays import Rows
from synbrain.networks.fit.batches import batch_rows, share_of
from synbrain.networks.fit.loop import Batch, derived_seed
from synbrain.tuning.subjects import TuningSubject


@dataclass(frozen=True)
class Batches:
    """The images that are tuned on, of all subjects together, in batches that mix them.

    A batch of one subject alone would train its readouts in some steps only, and pull the network from one
    subject to the next: with nine V4 sessions the first epoch then ends at r = .39 instead of .54
    (docs/research/tuning.md).

    Attributes:
        subjects: who saw the images.
        size: images in a batch, over all processes.
        contrast: share by which brightness and contrast vary.
        seed: of order and variation.
        taught: of each subject (n_images, units of all subjects), what teachers predict; or None.
    """

    subjects: Sequence[TuningSubject]
    size: int
    contrast: float
    seed: int
    taught: Sequence[NDArray[np.float16]] | None = None

    @cached_property
    def whose(self) -> Rows:
        """(n_images,) number of the subject who saw each image."""
        return np.repeat(np.arange(len(self.subjects)), [len(s.train) for s in self.subjects])

    @cached_property
    def rows(self) -> Rows:
        """(n_images,) row of each image among those of its subject."""
        return np.concatenate([s.train for s in self.subjects])

    def read(self, step: int, process: int = 0, n_processes: int = 1) -> Batch:
        """One process's share of the batch of ``step``: the arguments of ``TuningNetwork.forward``."""
        drawn = batch_rows(len(self.rows), self.size, step, derived_seed(self.seed, 34))
        mine = np.sort(share_of(drawn, process, n_processes))  # subject by subject
        images = list(zip(self.whose[mine], self.rows[mine], strict=True))
        pixels = torch.from_numpy(np.stack([self.subjects[which].pixels[row] for which, row in images]))
        if self.contrast:
            pixels = varied(pixels, self.contrast, derived_seed(self.seed, 32, step, process))
        most = max(len(subject.sd) for subject in self.subjects)
        targets, weights = np.zeros((2, len(images), most), np.float32)
        for i, (which, row) in enumerate(images):
            subject = self.subjects[which]
            n_units = len(subject.sd)
            targets[i, :n_units], weights[i, :n_units] = subject.targets[row], subject.weights
        batch = {
            "pixels": pixels,
            "targets": torch.from_numpy(targets),
            "weights": torch.from_numpy(weights),
            "subject": torch.from_numpy(self.whose[mine]),
        }
        if self.taught is None:
            return batch
        taught = [self.taught[which][row] for which, row in images]
        return batch | {"taught": torch.from_numpy(np.stack(taught)).float()}


def varied(pixels: torch.Tensor, share: float, seed: int) -> torch.Tensor:
    """Grey levels (n, 3, h, w) with other brightness and contrast, by at most ``share``; nothing moves.

    Flips, crops and shifts would move what a receptive field sees, so there are none.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = 1 + share * (2 * torch.rand(2, len(pixels), 1, 1, 1, generator=generator) - 1)
    grey = pixels.float()
    mean = grey.mean(dim=(1, 2, 3), keepdim=True)
    return ((grey - mean) * drawn[0] + mean * drawn[1]).clamp(0, 255)
