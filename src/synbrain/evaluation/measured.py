"""What all rows of one table are scored against: test trials, training statistics, reliability."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synbrain.arrays import Float64, Rows
from synbrain.data.space import VoxelSpace
from synbrain.errors import SynBrainError
from synbrain.features.scale import Scale
from synbrain.features.tokens import Pairs
from synbrain.metrics.ceiling import (
    FEWEST_IMAGES,
    RELIABLE,
    ceiling_snr,
    ncsnr,
    signal_and_noise,
    tells_noise,
)
from synbrain.metrics.device import Device
from synbrain.metrics.intervals import N_BOOTSTRAP, image_weights
from synbrain.metrics.voxel import blocks

BLOCK_VALUES = 2**23  # response values of one block of trials or samples
COVARIANCE_VOXELS = 400  # noise covariances are compared on that many voxels, drawn with the seed


@dataclass(frozen=True)
class Measured:
    """The measured side of a score table.

    Attributes:
        test: test images with their trials.
        train: training images with their trials; only statistics are taken from it.
        space: ROI labels and ncsnr.
        scale: mean and sd of the training trials, the dataset's unit.
        seed: of retrieval subsets, bootstrap and voxel choice.
        n_bootstrap: number of bootstrap samples over test images.
        device: where what is heavy is scored: products over voxels, scores of draws, the bootstrap.
    """

    test: Pairs
    train: Pairs
    space: VoxelSpace
    scale: Scale
    seed: int = 0
    n_bootstrap: int = N_BOOTSTRAP
    device: Device = "cpu"

    @property
    def mean(self) -> Float64:
        """(n_voxels,) float64, the mean map of the training trials."""
        return self.scale.mean

    @property
    def sd(self) -> Float64:
        """(n_voxels,) float64 over the training trials; 0 for constant voxels."""
        return self.scale.sd

    @cached_property
    def repeat_means(self) -> NDArray[np.float32]:
        """(n_images, n_voxels) float32, mean over each test image's trials."""
        return self.test.repeat_means()

    @cached_property
    def repeats(self) -> Rows:
        """(n_images,) trials of each test image."""
        return self.test.repeats()

    @property
    def has_repeats(self) -> bool:
        """Whether enough test images were repeated to score variability."""
        return tells_noise(self.repeats)

    @cached_property
    def signal_noise(self) -> tuple[Float64, Float64] | None:
        """Signal and noise variance (n_voxels,) of the test trials; None without repeats."""
        if not self.has_repeats or self.test.n_images < 2:
            return None
        parts = [
            signal_and_noise(self.test_trials(voxels), self.test.image_of_trial)
            for voxels in blocks(self.test.n_voxels, self.test.n_trials, BLOCK_VALUES)
        ]
        return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])

    @cached_property
    def snr(self) -> Float64 | None:
        """(n_voxels,) ncsnr of the test trials, or of few images or without repeats the space's; or None."""
        if self.has_repeats and self.test.n_images >= FEWEST_IMAGES:
            parts = [
                ceiling_snr(self.test_trials(voxels), self.test.image_of_trial)
                for voxels in blocks(self.test.n_voxels, self.test.n_trials, BLOCK_VALUES)
            ]
            return np.concatenate(parts)
        if self.space.ncsnr is not None:
            return self.space.ncsnr.astype(np.float64)
        return None

    @cached_property
    def reliable(self) -> NDArray[np.bool_]:
        """(n_voxels,) bool, ncsnr at least .2 on the training trials, else the space's, else the test's."""
        if tells_noise(self.train.repeats()):
            parts = [
                ncsnr(self.train.responses[:, voxels][self.train.trials], self.train.image_of_trial)
                for voxels in blocks(self.train.n_voxels, len(self.train.responses), BLOCK_VALUES)
            ]
            snr = np.concatenate(parts)
        elif self.space.ncsnr is not None:
            snr = self.space.ncsnr.astype(np.float64)
        elif self.snr is not None:
            snr = self.snr
        else:
            snr = np.full(self.test.n_voxels, np.inf)
        return np.asarray((snr >= RELIABLE) & (self.sd > 0))

    @cached_property
    def covariance_voxels(self) -> Rows:
        """Voxels on which noise covariances are compared: reliable or not, of non-zero training sd."""
        alive = np.flatnonzero(self.sd > 0)
        if len(alive) <= COVARIANCE_VOXELS:
            return alive
        chosen = np.random.default_rng(self.seed).choice(alive, COVARIANCE_VOXELS, replace=False)
        return np.sort(chosen)

    @cached_property
    def weights(self) -> Float64:
        """(n_bootstrap, n_images) of the bootstrap over test images; the same for every row."""
        return image_weights(self.test.n_images, self.n_bootstrap, self.seed)

    def test_trials(self, voxels: slice) -> NDArray[np.float32]:
        """(n_trials, width) float32, all test trials of some voxels."""
        return np.asarray(self.test.responses[:, voxels][self.test.trials], dtype=np.float32)

    def standardised(self, responses: NDArray[Any]) -> NDArray[np.float32]:
        """(..., n_alive) z-scored with training statistics; voxels of zero training sd are dropped.

        A point mass (a view of one sample, ``baselines.protocol.point_mass``) stays a view.
        """
        if responses.ndim == 3 and responses.strides[0] == 0:
            one = self.standardised(responses[0])
            return np.broadcast_to(one, (len(responses), *one.shape))
        alive = self.sd > 0
        mean, sd = self.mean[alive].astype(np.float32), self.sd[alive].astype(np.float32)
        return np.asarray((responses[..., alive] - mean) / sd, dtype=np.float32)

    def image_blocks(self, n_samples: int) -> Iterator[tuple[int, Rows, NDArray[np.float32], Rows]]:
        """Test images a few at a time: (number, image rows, their trials, row in the block per trial)."""
        for number, part in enumerate(
            blocks(self.test.n_images, n_samples * self.test.n_voxels, BLOCK_VALUES)
        ):
            shown = np.flatnonzero(
                (self.test.image_of_trial >= part.start) & (self.test.image_of_trial < part.stop)
            )
            local = self.test.image_of_trial[shown] - part.start
            yield number, np.arange(part.start, part.stop), self.test.trial_responses(shown), local


def measure(
    test: Pairs,
    train: Pairs,
    space: VoxelSpace,
    *,
    seed: int = 0,
    n_bootstrap: int = N_BOOTSTRAP,
    device: Device = "cpu",
) -> Measured:
    """Gather what rows are scored against.

    Raises:
        SynBrainError: where there are no test images, or test and training voxels differ.
    """
    if test.n_images == 0 or test.n_trials == 0:
        raise SynBrainError("there are no test images", "mark some trials as `test`, by image")
    if not test.n_voxels == train.n_voxels == space.n_voxels:
        raise SynBrainError(
            f"{test.n_voxels} test, {train.n_voxels} training and {space.n_voxels} space voxels",
            "take all three from one dataset",
        )
    return Measured(test, train, space, Scale.of_trials(train), seed, n_bootstrap, device)
