"""``synbrain.adapt``: a model to a new subject with a part of its data.

As in figure 2 of the paper: the VAE is trained whole, the mapper in part. Beyond it, the linear path and the
trial noise of the new subject are fitted with those of the base subjects as a prior.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from synbrain.data.budget import Budget, budget_trials, parse_budget
from synbrain.data.dataset import Dataset, datasets_of
from synbrain.data.marks import unpacked
from synbrain.errors import SynBrainError, SynBrainWarning
from synbrain.features.store import open_tokens, open_untuned
from synbrain.features.tokens import Pairs, TokenSet, pairs_of
from synbrain.model.parts import Adaptation
from synbrain.model.subject import require_model
from synbrain.model.synbrain import SynBrain
from synbrain.networks.fit.devices import processes_on
from synbrain.training.bases import joined_bases
from synbrain.training.config import TrainConfig
from synbrain.training.fit import NO_PRIOR, Origin, Prior, fit_model
from synbrain.training.leakage import adaptation_images, leave_out
from synbrain.training.networks import Networks, Workspace, continued_networks
from synbrain.training.options import AdaptOptions
from synbrain.training.overrides import overridden
from synbrain.training.recipes import recipe
from synbrain.training.subjects import TrainingSubject, check_subjects
from synbrain.training.unused import note_unused
from synbrain.training.workspace import NOWHERE, Output, save_finished, training_folder

# What differs from the recipe: networks that know other subjects already need fewer steps. The published
# few-shot run takes 40,001 mapper steps (README of the reference) and is left at that at the paper's size.
SHORTER: dict[str, Any] = {
    "vae": {"lr": 3e-4, "epochs": 4, "patience": 2},
    "mapper": {"lr": 3e-4, "steps": 300, "round_steps": 25, "patience": 3, "ema_decay": 0.98},
}
PAPER: dict[str, Any] = {"mapper": {"steps": 40_001}}
PAPER_DIM = 1664
AS_PUBLISHED = AdaptOptions()


def adapt(
    model: SynBrain,
    dataset: Dataset,
    options: AdaptOptions = AS_PUBLISHED,
    *,
    also: Sequence[SynBrain] = (),
    out: Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    show_progress: bool = False,
) -> SynBrain:
    """Fit ``model`` to the subject of ``dataset``, with a part of its training data.

    Args:
        model: of one subject or several, any numbers of voxels; it is not touched.
        dataset: the new subject's, with tokens of the model's encoder.
        options: how much data, what is trained further, and settings that differ from the model's.
        also: further base runs, on tokens of other encoders. The linear path then has a part for each
            encoder, averaged voxel by voxel; networks are those of ``model``.
        out: the run folder to write; without it nothing is kept on disk.
        resume: continue an adaptation that was interrupted.
        overwrite: replace a run that stands at ``out``.
        show_progress: show bars.

    Returns:
        A model of the new subject alone; its ``report`` holds figures on held-out training images,
        ``config.adaptation`` what was done.

    Raises:
        SynBrainError: for a model that cannot be adapted, an impossible budget, missing tokens, images that
            may not be trained on, or an ``out`` that is taken.
        KeyboardInterrupt: on Ctrl-C or SIGTERM, after a checkpoint was written.

    >>> from synbrain import TrainOptions, train
    >>> from synbrain.simulate.example import toy_dataset
    >>> options = TrainOptions(encoder="pixels", vae={"epochs": 1}, mapper={"steps": 10, "round_steps": 10})
    >>> base = train([toy_dataset()], options)
    >>> few = AdaptOptions(budget=20, by="images", networks=False)
    >>> adapted = adapt(base, toy_dataset(seed=1), few)
    >>> adapted.config.adaptation.n_trials
    40
    """
    (dataset,) = datasets_of(dataset)
    for base in (model, *also):
        require_model(base)
    if not all(base.config.trained_images for base in (model, *also)):
        note = "the model does not say which images it saw; make sure that no test image is among them"
        warnings.warn(note, SynBrainWarning, stacklevel=2)
    base = joined_bases([model, *also])
    for each in (model, *also):  # the digest of several encoders, of which one may be unknown, is no check
        each.config.require_encoder_of(open_tokens(dataset, each.config.encoder, each.config.layers))
    dataset, tokens = open_untuned(dataset, base.config.encoder, layers_read(base, options))
    base.config.require_encoder_of(tokens)
    subject = new_subject(base, dataset, tokens, options)
    note_unused(
        options, adaptation_config(base, options), networks=options.networks and base.mapper is not None
    )
    return adapt_to(base, subject, options, Output(out, resume, overwrite), show_progress)


def layers_read(base: SynBrain, options: AdaptOptions) -> list[str]:
    """The base's layers and those that the new subject's linear path reads besides."""
    return list(dict.fromkeys((*base.config.layers, *(options.layers or ()))))


def adapt_to(
    base: SynBrain,
    subject: TrainingSubject,
    options: AdaptOptions,
    output: Output = NOWHERE,
    show_progress: bool = False,
) -> SynBrain:
    """:func:`adapt` for a subject whose training images were chosen already (:func:`new_subject`)."""
    config = adaptation_config(base, options)
    processes_on(options.device)
    networks = continued_networks(base, options.update) if options.networks else None
    if networks is None and not config.linear_path:
        raise SynBrainError(
            "nothing would be left to adapt: the base has no linear path"
            + ("" if base.mapper is not None else " and no mapper"),
            "adapt a run with a mapper and leave --networks at its default, or a `calibrated` run",
        )
    check_subjects([subject], config)
    prior = Prior.of(base) if options.prior else NO_PRIOR
    origin = Origin(base.config, base.digest, _record(subject, options, networks), base.known_pictures)
    settings = config.model_dump(mode="json") | {"adaptation": origin.adaptation.model_dump(mode="json")}
    with training_folder(output, settings) as folder:
        workspace = Workspace(folder, show_progress=show_progress, device=options.device)
        adapted = fit_model([subject], config, networks, workspace, prior=prior, origin=origin)
        save_finished(adapted, output)
    return adapted


def new_subject(base: SynBrain, dataset: Dataset, tokens: TokenSet, options: AdaptOptions) -> TrainingSubject:
    """The subject of ``dataset`` with the training images of the budget that may be trained on.

    Args:
        base: the run to adapt.
        dataset: the new subject's.
        tokens: of all its images, from the base's encoder.
        options: budget, share of it that is left out, and what to do about shared test images.

    Raises:
        SynBrainError: for an impossible budget, or images that may not be trained on.
    """
    pairs, rows = pairs_of(dataset, tokens, "train"), dataset.image_rows("train")
    allowed = np.isin(pairs.trials, budget_trials(dataset, _budget(options)))
    part = Pairs(pairs.tokens, pairs.responses, pairs.trials[allowed], pairs.image_of_trial[allowed])
    shown = np.flatnonzero(part.repeats())
    images = adaptation_images(base, dataset, rows[shown], options.shared_test_images)
    images = leave_out(images, options.leave_out, tokens.families_of)
    subject = TrainingSubject.of(dataset, part.take(rows.searchsorted(images.rows)), images)
    trained = base.known_pictures.only(unpacked(base.config.trained_images))
    return replace(subject, also_known=trained.shown_in(dataset, images.rows))


def adaptation_config(base: SynBrain, options: AdaptOptions) -> TrainConfig:
    """The base's recipe, shorter; parts that the base has not got are left out."""
    parts = list(base.subjects.values())
    raw = all(np.all(p.response_mean == 0) and np.all(p.response_sd == 1) for p in parts)
    paper = base.mapper is not None and base.mapper.config.dim >= PAPER_DIM
    config = recipe(base.config.recipe, preset="paper-4096" if paper else "tiny")
    config = overridden(config, PAPER if paper else SHORTER)
    linear_layers = tuple(dict.fromkeys((*base.config.linear_layers, *(options.layers or ()))))
    of_base = {
        "network_layer": base.config.mapper_layer,
        "scale": "raw" if raw else "standardise",
        "linear_path": any(p.linear is not None for p in parts),
        "response_noise": any(p.noise is not None for p in parts),
        "linear": {"layers": linear_layers or None},
    }
    return options.applied_to(overridden(config, of_base))


def _budget(options: AdaptOptions) -> Budget:
    return parse_budget(options.budget, options.by, options.budget_seed)


def _record(subject: TrainingSubject, options: AdaptOptions, networks: Networks | None) -> Adaptation:
    """What the run will say about its adaptation."""
    budget, counts = _budget(options), {"vae": 0, "mapper": 0}
    if networks is not None:
        counts["vae"] = sum(p.numel() for p in networks.vae.parameters())
        mapper = networks.mapper.named_parameters()
        counts["mapper"] = sum(p.numel() for name, p in mapper if name in networks.trained)
    return Adaptation(
        budget="all" if budget.by == "all" else f"{budget.amount} {budget.by}",
        n_images=subject.pairs.n_images,
        n_trials=subject.pairs.n_trials,
        update="no networks" if networks is None else options.update,
        updated_parameters=counts,
    )
