"""``synbrain tune-encoder``: an image encoder tuned on the recordings of any number of subjects."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray

from synbrain.arrays import Float32, Rows
from synbrain.data.dataset import Dataset
from synbrain.data.known_pictures import KnownPictures
from synbrain.errors import SynBrainError
from synbrain.features.encoder import Encoder
from synbrain.features.encoders import ENCODERS, get_encoder
from synbrain.features.tokens import some_of
from synbrain.features.tuned import FeatureMap, finest_side, tuned_encoder
from synbrain.features.tuned_folder import PREFIX
from synbrain.files import digest_of
from synbrain.metrics.voxel import mean_defined, voxel_r
from synbrain.networks.fit.devices import accelerator_on
from synbrain.networks.fit.loop import Batch, Stage, derived_seed, run_stage
from synbrain.networks.fit.metrics_log import MetricsLog
from synbrain.networks.precision import multiplies_bf16
from synbrain.progress import track
from synbrain.training.leakage import TrainingImages, training_images
from synbrain.training.workspace import Output, training_folder
from synbrain.tuning.adapters import merge_lora, use_lora
from synbrain.tuning.batches import Batches
from synbrain.tuning.network import TuningNetwork, standardise
from synbrain.tuning.options import LAYERS, TuneOptions
from synbrain.tuning.readout_path import EXACT_UNITS, PATTERN_IMAGES, ReadoutPatterns
from synbrain.tuning.subjects import TuningSubject, check_names, decode_pixels, stand_ins, tuning_subject
from synbrain.tuning.teachers import Teacher, require_teachers, taught_targets
from synbrain.tuning.unused import note_unused, require_parts
from synbrain.tuning.write import Tuned, tuned_config, write_tuned

AS_RECOMMENDED = TuneOptions()
IMAGES = 32  # that are predicted at a time
STATISTICS = 32  # images of each subject that the feature map is standardised on
Prediction = Callable[[torch.Tensor, int], torch.Tensor]  # ``TuningNetwork.predict`` or ``read``
RATES = {"network": "rate", "head": "lr_readout", "readouts": "lr_readout"}


def tune_encoder(
    datasets: list[Dataset],
    options: TuneOptions = AS_RECOMMENDED,
    *,
    out: Path,
    keep_out: list[Dataset] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    show_progress: bool = False,
) -> Tuned:
    """Tune an encoder's network so that simple readouts of it predict every subject's responses.

    Each unit of each subject has a readout of its own: where it looks, and what it reads there. Encoder and
    readouts are fitted together, in batches of all subjects. No test image of any dataset is tuned on, nor
    is a share of the training images, by which penalties can then be chosen. Ctrl-C (or SIGTERM) writes a
    checkpoint; the same call with ``resume`` continues exactly. Start it with `accelerate launch` for several
    processes.

    Args:
        datasets: one per subject or session, with any numbers of voxels; no tokens are needed.
        options: which encoder, and how it is tuned.
        out: the folder of the tuned encoder; its name becomes the encoder's, after ``tuned-``.
        keep_out: further datasets, not tuned on, whose test images are left out (to be scored on them later).
        resume: continue a tuning that was interrupted.
        overwrite: replace an encoder that stands at ``out``.
        show_progress: show bars.

    Returns:
        The encoder, its folder, and how well each subject's held-out images are predicted.

    Raises:
        SynBrainError: test images among the training images, an encoder without a network, an ``out`` that is
            taken, a loss that is not finite, or checkpoints of other settings.
        KeyboardInterrupt: on Ctrl-C or SIGTERM, after a checkpoint was written.
    """
    check_names(datasets)
    note_unused(options)
    teachers = [Teacher.of(given, datasets) for given in options.teachers]
    images = training_images(datasets, options.shared_test_images, keep_out or (), show_progress)
    accelerator = accelerator_on(options.device, parts_rest=True)
    base = _trainable_encoder(options, accelerator.device)
    settings = options.model_dump(mode="json", exclude={"device", "checkpoint_minutes"})
    settings |= {"datasets": [dataset.info.name for dataset in datasets]}
    with training_folder(Output(out, resume, overwrite), settings) as folder:
        surroundings = Surroundings(accelerator, folder, show_progress)
        subjects = _subjects(datasets, images, base, options, surroundings)
        network = _new_network(base, subjects, options)
        taught = _taught(teachers, subjects, surroundings)
        _train(network, subjects, taught, options, surroundings)
        accelerator.wait_for_everyone()
        tuned = _finished(network, base, subjects, options, PREFIX + out.name, show_progress)
        about = tuned.config | {"teachers": [teacher.about for teacher in teachers]}
        tuned = replace(tuned, config=about, is_main=accelerator.is_main_process)
        if accelerator.is_main_process:
            kept_out = KnownPictures.joined(KnownPictures.of(d, d.image_rows("test")) for d in keep_out or [])
            write_tuned(tuned, out, subjects, kept_out)
        accelerator.wait_for_everyone()
    return tuned


@dataclass(frozen=True)
class Surroundings:
    """Where a network is trained: device and processes, folder, and whether bars are shown."""

    accelerator: Accelerator
    folder: Path
    show_progress: bool


def _subjects(
    datasets: list[Dataset], images: Sequence[TrainingImages], base: Encoder, options: TuneOptions,
    where: Surroundings,
) -> list[TuningSubject]:  # fmt: skip
    """Grey levels and responses of every subject; pictures are decoded once, by the main process."""
    names = [digest_of([mark.hex() for mark in part.marks])[:8] for part in images]
    files = [where.folder / "pixels" / f"{i}-{name}.npy" for i, name in enumerate(names)]
    parts = list(zip(datasets, images, files, strict=True))
    if where.accelerator.is_main_process:
        for dataset, part, file in parts:
            decode_pixels(dataset, part.rows, base.preprocess, file, where.show_progress)
    where.accelerator.wait_for_everyone()
    pixels = [decode_pixels(d, part.rows, base.preprocess, file, False) for d, part, file in parts]
    stands_in = stand_ins(images, pixels)
    return [
        tuning_subject(
            dataset, part, seen, stands_in=stands_in, fraction=options.validation_fraction,
            seed=options.seed, loss=options.loss, ceiling_weights=options.ceiling_weights,
        )
        for dataset, part, seen in zip(datasets, images, pixels, strict=True)
    ]  # fmt: skip


def _trainable_encoder(options: TuneOptions, device: torch.device) -> Encoder:
    """The base encoder at the size that it is tuned at.

    Raises:
        SynBrainError: for one that is not registered, or has nothing to train, or not what is to be frozen.
    """
    if options.encoder not in ENCODERS:
        raise SynBrainError(f"there is no encoder {options.encoder!r}", f"choose from {', '.join(ENCODERS)}")
    base = get_encoder(options.encoder, weights=options.weights, device=device, size=options.size_of_pictures)
    if base.module is None:
        raise SynBrainError(f"the encoder {base.name} has no network to tune", "choose another encoder")
    require_parts(options.freeze, (name for name, _ in base.module.named_parameters()))
    return base


def _layers(base: Encoder, options: TuneOptions) -> tuple[str, ...]:
    """Layers of the feature map: as asked for, or three from the middle of the network to its end."""
    if options.layers:
        return base.chosen(options.layers)
    blocks = [layer for layer in base.layers if layer != "final"]
    return LAYERS.get(base.name) or tuple(blocks[round(k * (len(blocks) - 1))] for k in (0.5, 0.75, 1.0))


def _new_network(base: Encoder, subjects: Sequence[TuningSubject], options: TuneOptions) -> TuningNetwork:
    assert base.module is not None
    shapes = {layer: base.layers[layer] for layer in _layers(base, options)}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(options.seed, 30))
        head = FeatureMap(shapes, options.side or finest_side(shapes), options.channels).to(base.device)
        batches = [torch.from_numpy(s.pixels[np.sort(s.train)[:STATISTICS]]) for s in subjects]
        standardise(head, base, batches)
        if options.lora_rank:
            use_lora(base.module, options.lora_rank)
        else:
            for name, parameter in base.module.named_parameters():
                parameter.requires_grad_(not name.startswith(tuple(options.freeze)))
        units = [s.targets.shape[1] for s in subjects]
        network = TuningNetwork(
            base, head, units, options.loss, options.seed, taught_weight=options.taught_weight
        ).to(base.device)
    _freeze_what_is_not_reached(network, batches[0][:2].to(base.device))
    return network


def _freeze_what_is_not_reached(network: TuningNetwork, pixels: torch.Tensor) -> None:
    """Weights behind the last layer that is read get no gradient: they are not trained, nor stored twice."""
    network.train()
    network.features(pixels).sum().backward()
    for name, parameter in network.named_parameters():
        if parameter.grad is None and not name.startswith("readouts."):
            parameter.requires_grad_(False)
        parameter.grad = None


def _taught(
    teachers: Sequence[Teacher], subjects: Sequence[TuningSubject], where: Surroundings
) -> list[NDArray[np.float16]] | None:
    """What teachers predict for the images of each subject; None without teachers."""
    if not teachers:
        return None
    require_teachers(teachers, subjects)
    name = digest_of([[t.about for t in teachers], [s.identity for s in subjects]])[:8]
    files = [where.folder / "targets" / f"{i}-{name}.npy" for i in range(len(subjects))]
    device = where.accelerator.device
    if where.accelerator.is_main_process:
        taught_targets(teachers, subjects, files, device, where.show_progress)
    where.accelerator.wait_for_everyone()
    return taught_targets(teachers, subjects, files, device, False)


def _train(
    network: TuningNetwork, subjects: Sequence[TuningSubject], taught: list[NDArray[np.float16]] | None,
    options: TuneOptions, around: Surroundings,
) -> None:  # fmt: skip
    accelerator = around.accelerator
    batches = Batches(subjects, options.batch_size, options.contrast, options.seed, taught)
    per_epoch = max(1, math.ceil(len(batches.rows) / options.batch_size))
    n_steps = per_epoch * options.epochs

    def read_batch(step: int) -> Batch:
        return batches.read(step, accelerator.process_index, accelerator.num_processes)

    def validate() -> dict[str, float]:
        each = {f"r/{s.name}": held_out_r(network, subjects, i) for i, s in enumerate(subjects)}
        return {"score": -float(np.mean(list(each.values()))), **each}

    def rate_of(name: str) -> float:
        rate = "lr_places" if name.endswith(".places") else RATES[name.split(".", 1)[0]]
        return float(getattr(options, rate) / options.rate)

    stage = Stage(
        name="tuning",
        module=network,
        read_batch=read_batch,
        validate=validate,
        n_steps=n_steps,
        round_steps=per_epoch,
        identity=digest_of([s.identity for s in subjects]),
        rate_of=rate_of,
    )
    log = MetricsLog(around.folder, active=accelerator.is_main_process)
    loop = options.loop(n_steps)
    if loop.precision == "auto" and accelerator.device.type == "cpu" and multiplies_bf16():
        # convolutions with folded statistics gain at any width (docs/research/encoder-cost.md)
        loop = loop.model_copy(update={"precision": "bf16"})
    run_stage(
        stage,
        loop,
        accelerator=accelerator,
        folder=around.folder / "tuning",
        log=log,
        seed=derived_seed(options.seed, 33),
        show_progress=around.show_progress,
    )
    log.close()


def held_out_r(network: TuningNetwork, subjects: Sequence[TuningSubject], which: int) -> float:
    """Mean over units of Pearson's r across a subject's held-out images."""
    subject = subjects[which]
    predicted = predictions(network.predict, subject, which, subject.held_out)
    return float(mean_defined(voxel_r(predicted, subject.targets[subject.held_out]))[0] or 0.0)


@torch.no_grad()
def predictions(of: Prediction, subject: TuningSubject, which: int, rows: Rows) -> Float32:
    """(n, n_units) float32 that ``of`` a network makes of a subject's images ``rows``, some at a time."""
    parts = []
    for start in range(0, len(rows), IMAGES):
        pixels = torch.from_numpy(subject.pixels[rows[start : start + IMAGES]])
        parts.append(of(pixels, which).float().cpu().numpy())
    return np.concatenate(parts)


def _patterns(
    network: TuningNetwork, subjects: Sequence[TuningSubject], show_progress: bool
) -> list[ReadoutPatterns | None]:
    """Of what is predicted for subjects with many units, on images tuned on; None for the others."""
    found: list[ReadoutPatterns | None] = [None] * len(subjects)
    many = [i for i, subject in enumerate(subjects) if len(subject.sd) > EXACT_UNITS]
    for i in track(many, "patterns of readouts", unit="subject", show=show_progress and len(many) > 0):
        some = some_of(subjects[i].train, PATTERN_IMAGES, (0,))
        found[i] = ReadoutPatterns.of(predictions(network.read, subjects[i], i, some))
    return found


def _finished(
    network: TuningNetwork,
    base: Encoder,
    subjects: Sequence[TuningSubject],
    options: TuneOptions,
    name: str,
    show_progress: bool,
) -> Tuned:
    """The encoder that the trained network makes, with the figures of its held-out images."""
    network.eval()
    scores = [held_out_r(network, subjects, i) for i in range(len(subjects))]
    patterns = _patterns(network, subjects, show_progress)
    assert base.module is not None
    if options.lora_rank:
        merge_lora(base.module)
    base.module.requires_grad_(False)
    network.requires_grad_(False)
    config = tuned_config(name, base, network.head, subjects, scores, options)
    encoder = tuned_encoder(base, network.head, config, hub_id=None)
    config["digest"] = encoder.digest  # tells its tokens from those of another encoder of its name
    return Tuned(encoder, base, network.head, list(network.readout_of), patterns, config)
