"""What a linear path predicts for its own training images when it has not seen them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from synbrain.errors import SynBrainError
from synbrain.files import atomic_path
from synbrain.linear.path import LinearPath
from synbrain.metrics.voxel import blocks

FILE = "held_out.safetensors"


@dataclass(frozen=True)
class HeldOutScores:
    """Cross-validated scores of a :class:`LinearPath`, by image.

    A path knows its training images' responses in part, so what it predicts for them says too much about how
    well it will predict others. Whoever builds on its predictions (linear/prior.py) and meets one of these
    images again takes these scores to judge by.

    Attributes:
        marks: (n_images, 6) uint8, what tells the images apart (training/leakage.py).
        scores: (n_images, r) float32; times the path's ``mixing``, plus its intercept, they are responses.
    """

    marks: NDArray[np.uint8]
    scores: NDArray[np.float32]

    def rows_of(
        self, marks: Sequence[bytes], also: Mapping[bytes, Sequence[bytes]] | None = None
    ) -> NDArray[np.int64]:
        """(len(marks),) the row of each image, -1 for an image that is not among them.

        Args:
            marks: of the images.
            also: mark -> those of the same picture in other files.
        """
        row = {mark.tobytes(): i for i, mark in enumerate(self.marks)}
        names = ((mark, *(also or {}).get(mark, ())) for mark in marks)
        return np.array([next((row[n] for n in each if n in row), -1) for each in names], dtype=np.int64)

    def save(self, folder: Path) -> list[str]:
        """Write into ``folder`` and return the file names written."""
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(folder / FILE) as partial:
            save_file({"marks": self.marks, "scores": self.scores}, partial)
        return [FILE]

    @classmethod
    def load(cls, folder: Path) -> HeldOutScores:
        """Read what :meth:`save` wrote."""
        return cls(**load_file(folder / FILE))


def held_out_scores(
    path: LinearPath, out_of_fold: NDArray[np.float32], sd: NDArray[np.float32], marks: Sequence[bytes]
) -> HeldOutScores:
    """Scores whose responses come nearest to cross-validated predictions.

    Args:
        path: fitted on all the images.
        out_of_fold: (n_images, n_voxels), each image predicted without it.
        sd: (n_voxels,) unit in which voxels count alike.
        marks: of the images.
    """
    if len(marks) != len(out_of_fold):
        raise SynBrainError(
            f"{len(marks)} images are marked, {len(out_of_fold)} predicted", "mark the training images alone"
        )
    unit = np.maximum(sd.astype(np.float64), 1e-12)
    inverse = np.linalg.pinv(path.mixing / unit)
    scores = np.empty((len(out_of_fold), inverse.shape[1]), dtype=np.float32)
    for images in blocks(*out_of_fold.shape):
        scores[images] = (out_of_fold[images] - path.intercept) / unit @ inverse
    packed_marks = np.frombuffer(b"".join(marks), dtype=np.uint8).reshape(len(marks), -1)
    return HeldOutScores(packed_marks, scores)
