"""The truth behind a simulated tree: noise-free means and the noise process, for tests and the oracle row."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from synbrain.describe import counted
from synbrain.errors import SynBrainError
from synbrain.files import open_array
from synbrain.simulate.noise import TrialNoise

TRUTH, CATEGORIES_CSV = "truth", "image_categories.csv"
MEAN, NOISE, NCSNR = "mean.npy", "noise.npz", "ncsnr.npy"


def truth_folder(source: Path, subject: int) -> Path:
    """Where a simulated tree keeps the truth of subject 1, 2, ..."""
    return Path(source) / TRUTH / f"subj{subject:02d}"


@dataclass(frozen=True)
class Truth:
    """The true response distribution of one simulated subject.

    Voxels are those with nsdgeneral > 0, in the C order of the volume. Nothing but tests and the oracle
    row may read it.

    Attributes:
        means: (n_images, n_voxels) float32, percent signal change, row = 73k id (0-based); memory-mapped.
        noise: the noise process.
        ncsnr: (n_voxels,) float32, true signal sd over noise sd.
    """

    means: NDArray[np.float32]
    noise: TrialNoise
    ncsnr: NDArray[np.float32]

    @classmethod
    def load(cls, source: Path, subject: int) -> Truth:
        """Open the truth of ``subject`` (from 1) in the tree ``source`` written by ``synbrain simulate``.

        Raises:
            SynBrainError: where the tree is no simulated one or lacks the subject.
        """
        folder = truth_folder(source, subject)
        if not (folder / NOISE).exists():
            raise SynBrainError(
                f"{source} holds no truth of subject {subject}",
                "point to a tree that `synbrain simulate` wrote; measured data has no oracle",
            )
        return cls(open_array(folder / MEAN), TrialNoise.load(folder / NOISE), open_array(folder / NCSNR))

    @property
    def n_voxels(self) -> int:
        return int(self.means.shape[1])

    def mean(self, nsd_ids: Any) -> NDArray[np.float32]:
        """Noise-free responses (n, n_voxels) float32, percent signal change, to 0-based 73k ids (n,)."""
        return np.array(self.means[self._checked(nsd_ids)], dtype=np.float32)

    def sample(self, nsd_ids: Any, n_samples: int, seed: int) -> NDArray[np.float32]:
        """Single trials (n_samples, n, n_voxels) float32, percent signal change, from the true process.

        Every trial is independent of every other one: a trial's session is taken as unknown.
        """
        mean = self.mean(nsd_ids)
        rng = np.random.default_rng([seed, 90])
        return np.stack([self.noise.sample(mean, rng) for _ in range(n_samples)])

    def variance(self, nsd_ids: Any) -> NDArray[np.float64]:
        """Trial variance (n, n_voxels) float64, (percent signal change) squared, of each image."""
        return self.noise.variance(self.mean(nsd_ids))

    def _checked(self, nsd_ids: Any) -> NDArray[np.int64]:
        ids = np.asarray(nsd_ids, dtype=np.int64)
        if ids.size and (ids.min() < 0 or ids.max() >= len(self.means)):
            raise SynBrainError(
                f"ids from {ids.min()} to {ids.max()} in a tree of {counted(len(self.means), 'image')}",
                "give 0-based 73k ids of this tree",
            )
        return ids


def image_categories(source: Path) -> pd.DataFrame:
    """What each simulated image shows: columns nsdId (0-based), category, second, x, y, size, contrast.

    Raises:
        SynBrainError: where ``source`` is no simulated tree.
    """
    path = Path(source) / TRUTH / CATEGORIES_CSV
    if not path.exists():
        raise SynBrainError(f"{path} is missing", "point to a tree that `synbrain simulate` wrote")
    return pd.read_csv(path, keep_default_na=False)
