"""Training with MindAligner's alignment loss: which trials of the two subjects are compared, and how.

The two subjects saw different images. A trial of the new subject is paired with a trial of the known one
whose image is of the same category, by labels of any kind, or one of the nearest by its tokens.
Source: Da1yuqin/MindAligner (read, not copied), arXiv 2502.05034; there an index mistake lost the categories.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from synbrain.arrays import Float32, Rows
from synbrain.data.dataset import Dataset
from synbrain.data.marks import unpacked
from synbrain.decoding.decoder import Decoder
from synbrain.decoding.guards import Voxels, require_same_voxels, without
from synbrain.decoding.mindeye2.aligner import Aligner, Transfer
from synbrain.decoding.mindeye2.fit import TrainingStep
from synbrain.decoding.mindeye2.model import MindEye2
from synbrain.decoding.options import DecoderAdaptOptions, MindEye2Options
from synbrain.decoding.protocol import DecodingSubject
from synbrain.decoding.subjects import DecodingData
from synbrain.errors import SynBrainError
from synbrain.features.store import open_untuned
from synbrain.features.tokens import Pairs, pairs_of
from synbrain.files import digest_of
from synbrain.metrics.retrieval import cosine_matrix
from synbrain.networks.fit.batches import batch_rows
from synbrain.networks.fit.loop import Batch, derived_seed

EMBEDDING_LIMIT = 1.5  # values of image embeddings are clipped, then rows brought to unit length


@dataclass(frozen=True)
class Alignment:
    """Pairs of trials of a new and a known subject.

    Attributes:
        novel: the new subject.
        known: the known subject's training trials, in its own unit.
        known_mean, known_sd: (n_known_voxels,) float32, from the decoder.
        embeddings, known_embeddings: (n_images, d) float32 of unit length, of either subject's images.
        partners: for each image of ``novel.train`` the known subject's images that it may be paired with.
        weight: of the alignment loss.
        seed: of the weights that only the alignment loss has.
    """

    novel: DecodingSubject
    known: Pairs
    known_mean: Float32
    known_sd: Float32
    embeddings: Float32
    known_embeddings: Float32
    partners: list[Rows]
    weight: float
    seed: int = 0

    @property
    def record(self) -> dict[str, Any]:
        """For the decoder's card."""
        paired = sum(len(images) > 0 for images in self.partners)
        return {"alignment_weight": self.weight, "images_with_partners": paired}

    @property
    def identity(self) -> str:
        """Digest of the pairs; a checkpoint of other pairs is refused."""
        return digest_of([[images.tolist() for images in self.partners], self.weight])

    def step(self, method: MindEye2, names: list[str], config: MindEye2Options) -> TrainingStep:
        """The module whose loss is minimised."""
        with torch.random.fork_rng(devices=[]):  # FiLM and embedder are new: the seed decides on them too
            torch.manual_seed(derived_seed(self.seed, 44))
            return AlignedStep(method, names, config, self)

    def batch(self, n: int, turn: int, seed: int) -> Batch:
        """``n`` pairs: trials of the new subject in turn, partners drawn; z-scores of either subject."""
        train = self.novel.train
        usable = np.array([len(images) > 0 for images in self.partners])[train.image_of_trial]
        trials = np.flatnonzero(usable)[batch_rows(int(usable.sum()), n, turn, seed)]
        images = train.image_of_trial[trials]
        generator = np.random.default_rng([seed, turn, 5])
        partners = np.array([generator.choice(self.partners[image]) for image in images])
        shown = [np.flatnonzero(self.known.image_of_trial == image) for image in partners]
        known = self.known.trial_responses(np.array([generator.choice(rows) for rows in shown]))
        arrays = {
            "novel": self.novel.scaled(train.trial_responses(trials)),
            "known": ((known - self.known_mean) / self.known_sd).astype(np.float32),
            "novel_image": self.embeddings[images],
            "known_image": self.known_embeddings[partners],
        }
        return {name: torch.from_numpy(array) for name, array in arrays.items()}


class AlignedStep(TrainingStep):
    """MindEye2's loss through the frozen decoder plus the alignment loss, of one batch each.

    ``loss = MindEye2 + weight (MSE + .1 KL + .001 RDM)``; published, the two take alternating steps. FiLM and
    embedder are left behind after training.
    """

    def __init__(
        self, method: MindEye2, names: list[str], config: MindEye2Options, alignment: Alignment
    ) -> None:
        super().__init__(method, names, config)
        transfer = method.network.transfers[len(method.aligned) - 1]
        assert isinstance(transfer, Transfer)
        self.aligner = Aligner(*transfer.sizes, alignment.embeddings.shape[1])
        self.aligner.btm = transfer
        self.alignment = alignment

    def forward(self, voxels: Tensor, targets: Tensor, numbers: Tensor, **pairs: Tensor) -> dict[str, Tensor]:
        parts = super().forward(voxels, targets, numbers)
        loss = self.aligner.loss(
            pairs["novel"][:, None], pairs["known"][:, None], pairs["novel_image"], pairs["known_image"]
        )
        parts["alignment"] = loss.total
        return parts | {"loss": parts["loss"] + self.alignment.weight * loss.total}


def known_subject(base: Decoder, name: str | None) -> str:
    """The subject whose decoder a new one goes through: ``name``, or the first.

    Raises:
        SynBrainError: where the base has none of that name, or is no MindEye2.
    """
    subjects = base.method.subjects if isinstance(base.method, MindEye2) else ()
    known = name or next(iter(subjects), None)
    if known not in subjects:
        raise SynBrainError(
            f"the decoder has no subject {known!r} with a layer of its own",
            f"choose among {', '.join(subjects)}" if subjects else "train one with --method mindeye2",
        )
    return str(known)


def make_alignment(
    base: Decoder, data: DecodingData, dataset: Dataset, known_data: Dataset, options: DecoderAdaptOptions
) -> Alignment:
    """Pair the new subject's training images with the known subject's.

    Args:
        base: with the known subject.
        data: the new subject's training images, targets in the base's token space.
        dataset: the new subject's.
        known_data: the known subject's dataset; its test images, and those of the new subject, are left out.
        options: known subject, labels or number of neighbours, weight.

    Raises:
        SynBrainError: a dataset that is not the known subject's, labels that name no image, no pairs, or an
            adaptation that is not MindAligner's.
    """
    if options.adaptation != "mindaligner":
        raise SynBrainError(
            "known data for an adaptation by fine-tuning", "pass --adaptation mindaligner, or leave them out"
        )
    known, novel = known_subject(base, options.known), data.subjects[0]
    subject = base.subjects[known]
    theirs_is = base.name_of(known_data)
    if theirs_is not in (None, known):
        raise SynBrainError(
            f"{known_data.path} is of {theirs_is}, the known subject is {known}", f"pass --known {theirs_is}"
        )
    require_same_voxels(
        Voxels.of(known_data),
        Voxels(f"the known subject {known!r}", subject.n_voxels, subject.unit),
        "pass the dataset that the decoder was trained on to --known-data",
    )
    source = base.targets.source
    known_data, tokens = open_untuned(known_data, source.encoder, [source.layer])
    pairs = pairs_of(known_data, tokens, "train")
    rows = known_data.image_rows("train")
    tested = data.known_pictures.with_copies(unpacked(data.test_images), known_data)
    pairs = pairs.take(np.searchsorted(rows, without(known_data, rows, tested)))
    own, theirs = novel.targets, base.targets.of(pairs.tokens)
    if options.labels is None:
        partners = _neighbours(own, theirs, min(options.neighbours, len(theirs)))
    else:
        labels = read_labels(options.labels)
        partners = _same_label(
            _labels_of(dataset, novel.train.tokens.image_rows, labels),
            _labels_of(known_data, pairs.tokens.image_rows, labels),
        )
    if not any(len(images) for images in partners):
        raise SynBrainError(
            "no image of the new subject has a partner among the known subject's",
            "give labels of both subjects' images, or leave --labels out to pair by tokens",
        )
    return Alignment(
        novel, pairs, subject.mean, subject.sd, _embeddings(own), _embeddings(theirs), partners,
        options.alignment_weight, options.seed,
    )  # fmt: skip


def read_labels(path: Path) -> dict[str, str]:
    """Image -> label, from a CSV whose first two columns are an image's name or number, and its label.

    Raises:
        SynBrainError: a file that is no such table.
    """
    try:
        table = pd.read_csv(path, dtype=str)
        images, labels = table.iloc[:, 0], table.iloc[:, 1]
    except (OSError, ValueError, IndexError) as error:
        raise SynBrainError(
            f"{path} holds no labels ({' '.join(str(error).split())})",
            "give a CSV with a column of image names and a column of labels",
        ) from error
    return {str(i): str(label) for i, label in zip(images, labels, strict=True) if isinstance(label, str)}


def _labels_of(dataset: Dataset, rows: Rows, labels: dict[str, str]) -> list[str | None]:
    """Label of each image by its name, its name without the suffix, or its number in NSD."""
    table = dataset.images.iloc[rows]
    names = table["name"].astype(str).tolist()
    numbers = table["nsd_id"].astype(str).tolist() if "nsd_id" in table else names
    named = [
        labels.get(name, labels.get(Path(name).stem, labels.get(number)))
        for name, number in zip(names, numbers, strict=True)
    ]
    if not any(named):
        raise SynBrainError(f"the labels name no image of {dataset.path}", "use the names in images.parquet")
    return named


def _same_label(own: Sequence[str | None], theirs: Sequence[str | None]) -> list[Rows]:
    known = np.array(["" if label is None else label for label in theirs])
    return [np.flatnonzero(known == label) if label else np.empty(0, np.int64) for label in own]


def _neighbours(own: Float32, theirs: Float32, n: int) -> list[Rows]:
    similarity = cosine_matrix(own, theirs)
    return list(np.argsort(-similarity, axis=1, kind="stable")[:, :n])


def _embeddings(targets: Float32) -> Float32:
    flat = targets.reshape(len(targets), -1).clip(-EMBEDDING_LIMIT, EMBEDDING_LIMIT)
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    return np.asarray(flat / np.maximum(length, 1e-12), dtype=np.float32)
