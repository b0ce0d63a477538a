"""``synbrain.train``: datasets with tokens to a model."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import torch

from synbrain.data.dataset import Dataset, datasets_of
from synbrain.errors import SynBrainError, SynBrainWarning
from synbrain.features.store import open_untuned
from synbrain.model.synbrain import SynBrain
from synbrain.networks.fit.devices import processes_on
from synbrain.training.config import TrainConfig
from synbrain.training.fit import fit_model
from synbrain.training.leakage import leave_out, training_images
from synbrain.training.networks import Workspace, network_sizes, new_networks
from synbrain.training.options import TrainOptions
from synbrain.training.subjects import check_subjects, training_subjects
from synbrain.training.unused import note_unused
from synbrain.training.workspace import Output, save_finished, training_folder

AS_RECOMMENDED = TrainOptions()


def train(
    datasets: Sequence[Dataset],
    options: TrainOptions = AS_RECOMMENDED,
    *,
    keep_out: Sequence[Dataset] = (),
    out: Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    show_progress: bool = False,
) -> SynBrain:
    """Fit one model on one subject or several.

    Values that are not given come from the recipe. Ctrl-C (or SIGTERM) writes a checkpoint; the same
    call with ``resume`` continues exactly. Start it with `accelerate launch` or `torchrun` for several GPUs.

    Args:
        datasets: one per subject, with tokens of one encoder (`synbrain features`).
        options: the recipe, and what differs from it.
        keep_out: further datasets, not trained on, whose test images are left out (to adapt to them later).
        out: the run folder to write; without it nothing is kept on disk, nor an interrupted training.
        resume: continue a training that was interrupted.
        overwrite: replace a run that stands at ``out``.
        show_progress: show bars.

    Returns:
        The model; ``model.report`` says how well it does on held-out training images.

    Raises:
        SynBrainError: for data that do not fit each other, missing tokens, test images among the training
            images, an ``out`` that is taken, a loss that is not finite, or checkpoints of other settings.
        KeyboardInterrupt: on Ctrl-C or SIGTERM, after a checkpoint was written.

    >>> from synbrain.simulate.example import toy_dataset
    >>> options = TrainOptions(encoder="pixels", vae={"epochs": 1}, mapper={"steps": 10, "round_steps": 10})
    >>> model = train([toy_dataset()], options)
    >>> list(model.subjects)
    ['toy0']
    """
    datasets = datasets_of(datasets)
    config, output = options.config(), Output(out, resume, overwrite)
    processes_on(options.device)
    _note_emulation(config)
    opened = [open_untuned(dataset, options.encoder, options.layers) for dataset in datasets]
    datasets, tokens = [dataset for dataset, _ in opened], [tokens for _, tokens in opened]
    allowed = training_images(datasets, options.shared_test_images, keep_out, show_progress)
    images = [leave_out(i, options.leave_out, t.families_of) for i, t in zip(allowed, tokens, strict=True)]
    subjects = training_subjects(datasets, images, tokens)
    check_subjects(subjects, config)
    if not (options.networks or config.linear_path):
        raise SynBrainError(f"the recipe {config.recipe} is networks alone", "leave --networks at true")
    note_unused(options, config, networks=options.networks)
    sizes = network_sizes(subjects[0].pairs.tokens, config)
    settings = config.model_dump(mode="json") | ({} if options.networks else {"networks": False})
    with training_folder(output, settings) as folder:
        workspace = Workspace(folder, options.tensorboard, show_progress, options.device)
        networks = new_networks(sizes, config.seed) if options.networks else None
        model = fit_model(subjects, config, networks, workspace)
        save_finished(model, output)
    return model


def _note_emulation(config: TrainConfig) -> None:
    if "fp16" in (config.vae.precision, config.mapper.precision) and not torch.cuda.is_available():
        note = "most CPUs emulate fp16, several times slower than --mapper.precision fp32"
        warnings.warn(note, SynBrainWarning, stacklevel=3)
