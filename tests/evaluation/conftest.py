from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from synbrain.data.dataset import Dataset, DatasetInfo, Stimuli
from synbrain.data.space import Atlas, VoxelSpace
from synbrain.evaluation.measured import Measured, measure
from synbrain.features.tokens import TokenSet, split_pairs

N_VOXELS = 24
LOADINGS = np.random.default_rng(77).normal(0, 0.7, (N_VOXELS, 1))
NOISE = LOADINGS @ LOADINGS.T + np.eye(N_VOXELS)  # covariance of a trial around its image's mean


class Brain:
    """A known linear brain: its dataset, tokens, true means and true trials."""

    def __init__(
        self,
        folder: Path,
        n_train: int = 90,
        n_test: int = 40,
        repeats: tuple[int, int] = (3, 3),
        seed: int = 0,
    ) -> None:
        rng = np.random.default_rng(seed)
        n = n_train + n_test
        tokens = rng.normal(size=(n, 2, 4)).astype(np.float32)
        weights = np.random.default_rng(7).normal(size=(8, N_VOXELS))
        static = np.random.default_rng(8).normal(0, 4, N_VOXELS)
        self.means = (tokens.reshape(n, -1) @ weights / 3 + static).astype(np.float32)
        image = rng.permutation(np.repeat(np.arange(n), rng.integers(repeats[0], repeats[1] + 1, n)))
        eps = rng.multivariate_normal(np.zeros(N_VOXELS), NOISE, size=len(image))
        responses = (self.means[image] + eps).astype(np.float32)
        split = np.where(np.arange(n) % 13 < 9, "train", "test")
        trials = pd.DataFrame({"image": image, "session": 0, "repeat": 0, "split": split[image]})
        trials["repeat"] = trials.groupby("image").cumcount()
        images = pd.DataFrame({"name": [f"{i}.png" for i in range(n)], "split": split})
        atlas = Atlas(np.arange(N_VOXELS, dtype=np.int32) % 3, {1: "one", 2: "two"}, "drawn")
        self.space = VoxelSpace(N_VOXELS, atlases={"toy": atlas})
        self.info = DatasetInfo(
            name="toy",
            subject="s1",
            unit="percent",
            n_trials=len(image),
            n_voxels=N_VOXELS,
            n_images=n,
            stimuli=Stimuli(kind="folder", path="images"),
        )
        self.dataset = Dataset(folder, self.info, trials, images, responses, self.space)
        self.tokens = TokenSet("toy", "digest", {"final": tokens}, np.arange(n))
        self.test_images = self.dataset.image_rows("test")
        self.truth = self.means[self.test_images]

    def draw(self, images: np.ndarray, n_samples: int, seed: int) -> np.ndarray:
        """True trials of test images."""
        rng = np.random.default_rng(seed)
        eps = rng.multivariate_normal(np.zeros(N_VOXELS), NOISE, size=(n_samples, len(images)))
        return (self.truth[images] + eps).astype(np.float32)

    def measured(self, seed: int = 0) -> Measured:
        train, test = split_pairs(self.dataset, self.tokens)
        return measure(test, train, self.space, seed=seed, n_bootstrap=200)


@pytest.fixture
def make_brain(tmp_path: Path):
    return lambda **options: Brain(tmp_path, **options)


@pytest.fixture
def brain(make_brain) -> Brain:
    return make_brain()
