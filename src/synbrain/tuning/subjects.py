"""What tuning sees of a subject: pictures as grey levels on disk, and what its units answered on average."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from synbrain.arrays import Float32, Rows
from synbrain.data.dataset import Dataset
from synbrain.data.thumbnails import COARSE_SIDE, VERSIONS
from synbrain.errors import SynBrainError
from synbrain.features.look_alikes import families, least_marks
from synbrain.features.preprocessing import Preprocessing
from synbrain.features.tokens import Pairs, TokenSet, pairs_of
from synbrain.files import digest_of, new_array, open_array
from synbrain.metrics.ceiling import signal_and_noise, tells_noise
from synbrain.progress import track
from synbrain.training.leakage import TrainingImages
from synbrain.tuning.unused import note_no_ceiling

CEILING_TRIALS = 4000  # single trials from which noise ceilings are estimated at most
BLOCK = 256
LEAST_RATE = 1e-6  # that rates are divided by


@dataclass(frozen=True)
class TuningSubject:
    """One subject's training images, split by image into those tuned on and those held out.

    Attributes:
        dataset: its recordings.
        name: unique in a tuning.
        pixels: (n_images, 3, size, size) uint8 memory map, the images that may be trained on.
        targets: (n_images, n_units) float32, repeat means in the unit of the loss.
        mean, sd: (n_units,) float32: response = mean + sd * z.
        offset, scale: (n_units,) float32: response = offset + scale * target.
        weights: (n_units,) float32, of units in the loss, mean 1.
        train, held_out: rows of ``pixels``.
        images: what the rows of ``pixels`` are.
    """

    dataset: Dataset
    name: str
    pixels: NDArray[np.uint8]
    targets: Float32
    mean: Float32
    sd: Float32
    offset: Float32
    scale: Float32
    weights: Float32
    train: Rows
    held_out: Rows
    images: TrainingImages

    @property
    def tuned_marks(self) -> list[bytes]:
        """Of the images that the encoder is tuned on."""
        return [self.images.marks[row] for row in self.train]

    @property
    def identity(self) -> str:
        """Digest of what a checkpoint must agree on."""
        targets = hashlib.sha256(self.targets.tobytes()).hexdigest()
        return digest_of([self.name, [m.hex() for m in self.images.marks], self.train.tolist(), targets])


def is_held_out(mark: bytes, fraction: float, seed: int) -> bool:
    """Whether the image with this mark is held out: the same in every dataset that shows it.

    >>> sum(is_held_out(bytes([i]), 0.5, 0) for i in range(200)) in range(80, 120)
    True
    """
    drawn = hashlib.sha256(mark + seed.to_bytes(8, "big", signed=True)).digest()[:8]
    return int.from_bytes(drawn, "big") < fraction * 2**64


def stand_ins(images: Sequence[TrainingImages], pixels: Sequence[NDArray[np.uint8]]) -> dict[bytes, bytes]:
    """Mark of each image of all datasets -> a mark that all versions of its picture have in common.

    Args:
        images: of each dataset.
        pixels: (n_images, 3, size, size) uint8 of each dataset.
    """
    marks = [mark for part in images for mark in part.marks]
    _, firsts = np.unique(np.array(marks), return_index=True)  # one file in two datasets is one picture
    small = torch.cat([_small(part[i : i + BLOCK]) for part in pixels for i in range(0, len(part), BLOCK)])
    known = [marks[i] for i in firsts]
    family = families({"": small.numpy()}, firsts, alike=(VERSIONS,))
    return least_marks(known, family)


def _small(pixels: NDArray[np.uint8]) -> torch.Tensor:
    """(n, 1, COARSE_SIDE ** 2) float32: small grey pictures without their mean."""
    grey = torch.from_numpy(np.array(pixels)).float().mean(dim=1, keepdim=True)
    flat = torch.nn.functional.adaptive_avg_pool2d(grey, COARSE_SIDE).flatten(2)
    return flat - flat.mean(dim=2, keepdim=True)


def tuning_subject(
    dataset: Dataset, images: TrainingImages, pixels: NDArray[np.uint8], *, stands_in: Mapping[bytes, bytes],
    fraction: float, seed: int, loss: str, ceiling_weights: bool,
) -> TuningSubject:  # fmt: skip
    """Split the images, and scale the repeat means by those that are tuned on.

    Args:
        dataset: of the subject.
        images: that may be tuned on.
        pixels: of these images.
        stands_in: of :func:`stand_ins`; versions of one picture are held out together.
        fraction, seed: of the images held out.
        loss, ceiling_weights: as ``TuneOptions`` has them.

    Raises:
        SynBrainError: where too few images are left on one side, or counts are negative.
    """
    is_out = np.array([is_held_out(stands_in[mark], fraction, seed) for mark in images.marks], dtype=bool)
    if is_out.all() or is_out.sum() < 2:
        raise SynBrainError(
            f"{len(is_out)} training images of {dataset.path} cannot be split into tuned and held-out ones",
            "give more images, or another --validation-fraction",
        )
    pairs = _pairs(dataset, images)
    if ceiling_weights and not tells_noise(pairs.repeats()):
        note_no_ceiling(dataset.info.name)
    means = pairs.repeat_means()
    train = np.flatnonzero(~is_out)
    mean, sd = means[train].mean(axis=0), means[train].std(axis=0)
    sd = np.where(sd > 1e-6 * np.maximum(np.abs(mean), 1e-30), sd, 1.0).astype(np.float32)
    offset, scale = mean, sd
    if loss == "poisson":
        if (means < 0).any():
            raise SynBrainError(f"{dataset.path} has negative responses", "take --loss squared")
        offset, scale = np.zeros_like(mean), np.maximum(mean, LEAST_RATE)
    targets = (means - offset) / scale
    return TuningSubject(
        dataset=dataset,
        name=dataset.info.name,
        pixels=pixels,
        targets=targets.astype(np.float32),
        mean=mean,
        sd=sd,
        offset=offset,
        scale=scale,
        weights=_unit_weights(pairs.take(train), ceiling_weights),
        train=train,
        held_out=np.flatnonzero(is_out),
        images=images,
    )


def _pairs(dataset: Dataset, images: TrainingImages) -> Pairs:
    """Trials of the images; no tokens are there yet."""
    none = TokenSet("", "", {}, np.arange(dataset.n_images, dtype=np.int64))
    pairs = pairs_of(dataset, none, "train")
    return pairs.take(dataset.image_rows("train").searchsorted(images.rows))


def _unit_weights(pairs: Pairs, by_ceiling: bool) -> Float32:
    """Share of signal in the variance of repeat means, mean 1; ones where it is not known."""
    ones = np.ones(pairs.n_voxels, dtype=np.float32)
    repeats = pairs.repeats()
    if not by_ceiling or not tells_noise(repeats):
        return ones
    trials = pairs.some_trials(CEILING_TRIALS, (0,))
    signal, noise = signal_and_noise(pairs.trial_responses(trials), pairs.image_of_trial[trials])
    left = float(np.mean(1 / np.maximum(repeats, 1)))
    if not np.isfinite(signal).all():  # of a single image
        return ones
    ceiling = np.maximum(signal / np.maximum(signal + noise * left, 1e-30), 0.02)
    return np.asarray(ceiling / ceiling.mean(), dtype=np.float32)


def decode_pixels(
    dataset: Dataset, rows: Rows, preprocess: Preprocessing, file: Path, show_progress: bool
) -> NDArray[np.uint8]:
    """(n, 3, size, size) uint8 memory map of images ``rows``, resized; made once, then opened."""
    if not file.exists():
        with new_array(file, (len(rows), 3, preprocess.size, preprocess.size), np.uint8) as pixels:
            for i, row in enumerate(
                track(rows, f"decode {dataset.info.name}", unit="image", show=show_progress)
            ):
                pixels[i] = preprocess.resized(dataset.load_image(int(row))).round().clamp(0, 255).byte()
    array: NDArray[np.uint8] = open_array(file)
    return array


def check_names(datasets: Sequence[Dataset]) -> None:
    """Readouts are told apart by the datasets' names."""
    names = [dataset.info.name for dataset in datasets]
    if len(set(names)) != len(names):
        raise SynBrainError(f"two datasets have one name: {names}", "prepare them with different --name")
