"""A tuned encoder on disk: the encoder, a run with its subjects' readouts, and the card."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from synbrain.data.known_pictures import NO_PICTURES, KnownPictures
from synbrain.data.marks import packed, unpacked
from synbrain.features.encoder import Encoder
from synbrain.features.tuned import FeatureMap, save_tuned
from synbrain.features.tuned_folder import KIND, READOUT, READOUTS
from synbrain.files import write_manifest
from synbrain.markdown import markdown_table
from synbrain.model.parts import RunConfig, SubjectPart
from synbrain.model.report import SubjectReport, TrainingReport
from synbrain.model.synbrain import SynBrain
from synbrain.training.interrupted import TRAINING, UNFINISHED
from synbrain.tuning.network import Readout
from synbrain.tuning.options import TuneOptions
from synbrain.tuning.readout_path import ReadoutPatterns, readout_path
from synbrain.tuning.subjects import TuningSubject

PLACES = {"weights", "teachers", "device"}  # options that say where something is: not part of what was made


@dataclass(frozen=True)
class Tuned:
    """What a tuning made.

    Attributes:
        encoder: the tuned encoder.
        base: the encoder that it is built on, with tuned weights.
        head: its feature map.
        readouts: of each subject.
        patterns: of each subject's predictions; None where every unit is kept.
        config: content of ``config.json``.
        is_main: whether this process is the one that writes and speaks.
    """

    encoder: Encoder
    base: Encoder
    head: FeatureMap
    readouts: list[Readout]
    patterns: list[ReadoutPatterns | None]
    config: dict[str, Any]
    is_main: bool = True


def tuned_config(
    name: str,
    base: Encoder,
    head: FeatureMap,
    subjects: Sequence[TuningSubject],
    scores: Sequence[float],
    options: TuneOptions,
) -> dict[str, Any]:
    """Content of ``config.json``; no path in it."""
    datasets = [
        {
            "name": s.name,
            "subject": s.dataset.info.subject,
            "units": int(s.targets.shape[1]),
            "images_tuned_on": len(s.train),
            "images_held_out": len(s.held_out),
            "held_out_r": round(score, 4),
        }
        for s, score in zip(subjects, scores, strict=True)
    ]
    return {
        "kind": KIND,
        "format": 1,
        "name": name,
        "base": base.name,
        "size": base.preprocess.size,
        "layers": list(head.layers),
        "side": head.side,
        "channels": head.channels,
        "datasets": datasets,
        "tuned_on": packed(mark for s in subjects for mark in s.tuned_marks),
        "options": options.model_dump(mode="json", exclude=PLACES | {"checkpoint_minutes"}),
    }


def write_tuned(
    tuned: Tuned, out: Path, subjects: Sequence[TuningSubject], kept_out: KnownPictures = NO_PICTURES
) -> None:
    """Write the encoder to ``out`` and remove its checkpoints; ``out/training`` keeps the log.

    The checksums come last: without them the folder counts as nothing.
    """
    files = save_tuned(out, tuned.base, tuned.head, tuned.config, card(tuned.config))
    run = readout_run(tuned, subjects, kept_out)
    run.save_pretrained(out / READOUTS, overwrite=True)
    files += [str(p.relative_to(out)) for p in sorted((out / READOUTS).rglob("*")) if p.is_file()]
    write_manifest(out, files)
    for name in UNFINISHED:
        shutil.rmtree(out / TRAINING / name, ignore_errors=True)


def readout_run(tuned: Tuned, subjects: Sequence[TuningSubject], kept_out: KnownPictures) -> SynBrain:
    """A run with each subject's readout as its linear path: the base to adapt to new subjects from.

    A factorised readout of the feature map is linear in it, so nothing is approximated for subjects of up to
    2,000 units; of more units, the predictions' leading patterns are kept (``readout_path.py``). After a
    Poisson loss the last nonlinearity is missing.
    """
    parts = {}
    for subject, readout, patterns in zip(subjects, tuned.readouts, tuned.patterns, strict=True):
        shape = tuned.encoder.layers[READOUT]
        path = readout_path(readout, READOUT, shape, subject.mean, subject.scale, patterns)
        about = {"n_images": len(subject.train), "units": len(subject.scale), **path.about}
        parts[subject.name] = SubjectPart(
            name=subject.name,
            space=subject.dataset.space,
            unit=subject.dataset.info.unit,
            scaling=subject.dataset.info.scaling,
            response_mean=subject.mean,
            response_sd=subject.sd,
            linear=replace(path, about=about),
        )
    trained = unpacked(tuned.config["tuned_on"])
    test = {mark for s in subjects for mark in s.images.test_marks} | set(kept_out.marks)
    config = RunConfig(
        encoder=tuned.encoder.name,
        encoder_digest=tuned.encoder.digest,
        linear_layers=tuple(tuned.encoder.layers),
        token_shapes=tuned.encoder.layers,
        trained_images=packed(trained),
        test_images=packed(test),
    )
    report = TrainingReport(
        subjects={
            d["name"]: SubjectReport(n_validation_images=d["images_held_out"], validation_r=d["held_out_r"])
            for d in tuned.config["datasets"]
        }
    )
    known = KnownPictures.joined([kept_out, *(s.images.pictures_of(s.dataset) for s in subjects)])
    return SynBrain(config, parts, report=report, known_pictures=known)


def card(config: dict[str, Any]) -> str:
    """Markdown for ``README.md`` of the folder: what it was tuned on, and what follows for its use."""
    columns = ("name", "subject", "units", "images_tuned_on", "images_held_out")
    rows = [[*(str(d[c]) for c in columns), f"{d['held_out_r']:.3f}"] for d in config["datasets"]]
    head = ["dataset", "subject", "units", "images tuned on", "training images held out", "r on those"]
    layers = ", ".join(f"`{layer}`" for layer in (*config["layers"], READOUT))
    teachers = ", ".join(teacher["name"] for teacher in config.get("teachers", []))
    taught = f" Taught by {teachers}, beside what was measured." if teachers else ""
    return "\n".join(
        [
            "---\nlibrary_name: synbrain\ntags: [fMRI, encoding-model, visual-cortex, image-encoder]\n---\n",
            f"# {config['name']}: {config['base']} tuned on recordings\n",
            f"Pictures of {config['size']} pixels; layers {layers}. Seed {config['options']['seed']}, "
            f"{config['options']['epochs']} epochs.{taught}\n",
            *markdown_table(head, rows, numbers=False),
            "\nThe features of an image that it was tuned on know the responses of these subjects to it. "
            "`config.json` keeps the marks of every such image: synbrain fits no model on them and refuses "
            "to score on them. No test image of these datasets was tuned on.\n",
            "```\nsynbrain features DATASET --encoder THIS_FOLDER --layers "
            f"{' '.join((*config['layers'], READOUT))}\n```\n",
        ]
    )
