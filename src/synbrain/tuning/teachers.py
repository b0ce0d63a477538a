"""Encoders tuned before as teachers: what their readouts predict is learned beside what was measured.

Of an image one subject's responses are known. Teachers say what the units of all the other subjects would
answer, without noise, and several teachers are distilled into one network that way (Hinton et al. 2015).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from synbrain.arrays import Float32, Rows
from synbrain.data.dataset import Dataset
from synbrain.data.marks import unpacked
from synbrain.errors import SynBrainError
from synbrain.features.encoder import Encoder
from synbrain.features.encoders import get_encoder
from synbrain.features.tokens import TokenSet
from synbrain.features.tuned_folder import READOUT, READOUTS, digest_in, read_config, tuned_folder
from synbrain.files import new_array, open_array
from synbrain.model.parts import SubjectPart
from synbrain.model.synbrain import SynBrain
from synbrain.progress import track
from synbrain.tuning.network import as_rates
from synbrain.tuning.subjects import LEAST_RATE, TuningSubject

IMAGES = 64  # whose tokens are held at a time


@dataclass(frozen=True)
class Teacher:
    """An encoder tuned before, not opened yet.

    Attributes:
        given: what it was asked for by.
        folder: where it lies.
        config: content of its ``config.json``.
    """

    given: str
    folder: Path
    config: dict[str, Any]

    @classmethod
    def of(cls, given: str, datasets: Sequence[Dataset]) -> Teacher:
        """By folder or hub id, of an encoder that was tuned on ``datasets`` (and perhaps on others).

        Raises:
            SynBrainError: where no tuned encoder is there, or one that lacks a dataset.
        """
        folder = tuned_folder(given)
        if folder is None:
            raise SynBrainError(f"the teacher {given} is no tuned encoder", "give folders of `tune-encoder`")
        teacher = cls(given, folder, read_config(folder))
        told = {d["name"]: d["units"] for d in teacher.config["datasets"]}
        lacking = [d.info.name for d in datasets if told.get(d.info.name) != d.n_voxels]
        if lacking:
            raise SynBrainError(
                f"the teacher {given} was not tuned on {', '.join(lacking)}",
                "give teachers that were tuned on the same datasets",
            )
        return teacher

    @property
    def predicts_rates(self) -> bool:
        """Whether it was tuned by a Poisson loss, whose last nonlinearity its stored readouts lack."""
        return bool(self.config.get("options", {}).get("loss") == "poisson")

    @property
    def about(self) -> dict[str, str]:
        """Name and digest, for the card of who is taught."""
        return {"name": str(self.config["name"]), "digest": digest_in(self.folder)}


def require_teachers(teachers: Sequence[Teacher], subjects: Sequence[TuningSubject]) -> None:
    """Refuse teachers that saw an image that may not be seen here.

    Raises:
        SynBrainError: naming the teacher and the mend.
    """
    tuned = {mark for subject in subjects for mark in subject.tuned_marks}
    held = {subject.images.marks[row] for subject in subjects for row in subject.held_out}
    for teacher in teachers:
        seen = set(unpacked(teacher.config["tuned_on"]))
        if seen & held:
            raise SynBrainError(
                f"the teacher {teacher.given} was tuned on {len(seen & held)} images that are held out here",
                "tune the teachers with the same --validation-fraction and --seed",
            )
        if seen - tuned:
            raise SynBrainError(
                f"the teacher {teacher.given} was tuned on {len(seen - tuned)} images that are not tuned on "
                "here",
                "tune the teachers on the same datasets, with the same ones kept out",
            )


def taught_targets(
    teachers: Sequence[Teacher], subjects: Sequence[TuningSubject], files: Sequence[Path],
    device: torch.device, show_progress: bool,
) -> list[NDArray[np.float16]]:  # fmt: skip
    """Mean over teachers of what they predict for the images of each subject.

    Args:
        teachers: that :func:`require_teachers` lets pass.
        subjects: whose images they are, and whose units stand side by side.
        files: of each subject, made where they are missing.
        device: of the teachers.
        show_progress: show a bar.

    Returns:
        Of each subject (n_images, units of all subjects) float16 memory maps, in the unit of the targets.
    """
    if not all(file.exists() for file in files):
        opened = [
            (get_encoder(str(t.folder), device=device), _readouts(t, subjects), t.predicts_rates)
            for t in teachers
        ]
        for subject, file in zip(subjects, files, strict=True):
            if not file.exists():
                shape = (len(subject.pixels), sum(len(s.sd) for s in subjects))
                with new_array(file, shape, np.float16) as array:
                    _fill(array, opened, subject, subjects, show_progress)
    return [open_array(file) for file in files]


Opened = tuple[Encoder, list[SubjectPart], bool]  # a teacher, its readouts, whether they predict rates


def _readouts(teacher: Teacher, subjects: Sequence[TuningSubject]) -> list[SubjectPart]:
    """The teacher's readouts of the subjects, in their order.

    Raises:
        SynBrainError: where recordings of a name are in another unit now.
    """
    run = SynBrain.from_pretrained(teacher.folder / READOUTS)
    parts = [run.subjects[subject.name] for subject in subjects]
    for part, subject in zip(parts, subjects, strict=True):
        unit = subject.dataset.info.unit
        if part.unit != unit:
            raise SynBrainError(
                f"the teacher {teacher.given} predicts {part.unit!r} for {part.name}, whose recordings are "
                f"in {unit!r}",
                "prepare them as the teacher saw them",
            )
    return parts


def _responses(part: SubjectPart, tokens: TokenSet, predicts_rates: bool) -> Float32:
    """(n_images, n_units) float32 that the teacher predicts, in the unit of the subject's responses."""
    assert part.linear is not None  # every subject of a tuning has one
    linear = part.linear.predict(tokens)
    if not predicts_rates:
        return linear
    scale = np.maximum(part.response_mean, LEAST_RATE)
    read = torch.from_numpy((linear - part.response_mean) / scale)
    return np.asarray(as_rates(read).numpy() * scale, dtype=np.float32)


def _fill(
    array: NDArray[np.float16], teachers: Sequence[Opened], subject: TuningSubject,
    subjects: Sequence[TuningSubject], show_progress: bool,
) -> None:  # fmt: skip
    """What teachers predict for the pictures of ``subject``, some at a time."""
    starts = range(0, len(array), IMAGES)
    for start in track(starts, f"teach {subject.name}", unit="batch", show=show_progress):
        some = slice(start, start + IMAGES)
        total = np.zeros(array[some].shape, np.float32)
        for encoder, readouts, predicts_rates in teachers:
            tokens = _tokens(encoder, subject, subject.images.rows[some])
            parts = [
                (_responses(part, tokens, predicts_rates) - s.offset) / s.scale
                for part, s in zip(readouts, subjects, strict=True)
            ]
            total += np.concatenate(parts, axis=1)
        array[some] = total / len(teachers)


def _tokens(encoder: Encoder, subject: TuningSubject, rows: Rows) -> TokenSet:
    """The map that readouts see, of a subject's pictures."""
    pictures = [encoder.preprocess(subject.dataset.load_image(int(row))) for row in rows]
    read = encoder.forward(torch.stack(pictures), [READOUT])[READOUT]
    return TokenSet(encoder.name, encoder.digest, {READOUT: read.numpy()}, np.arange(len(read)))
