"""Adapt a run to a new subject: linear path and noise with a prior, the VAE whole, the mapper in part."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from synbrain.arrays import Rows
from synbrain.data.budget import Budget, By, budget_trials, parse_budget
from synbrain.data.dataset import Dataset
from synbrain.errors import SynBrainError
from synbrain.features.store import open_tokens
from synbrain.features.tokens import Pairs, TokenSet, pairs_of, response_scale
from synbrain.linear.config import LinearPathConfig
from synbrain.linear.fit import LinearFit, fit_linear_path
from synbrain.linear.held_out import held_out_scores
from synbrain.linear.prior import fit_with_prior, response_space
from synbrain.model.parts import RunConfig, SubjectPart
from synbrain.model.synbrain import SynBrain
from synbrain.networks.mapper import Mapper, mlp_parameters
from synbrain.noise.config import NoiseConfig
from synbrain.noise.prior import fit_noise_with_prior
from synbrain.training.config import TrainConfig
from synbrain.training.leakage import image_marks, images_to_adapt_on, marks_of, packed, unpacked
from synbrain.training.overrides import overridden
from synbrain.training.recipes import recipe
from synbrain.training.subjects import TrainingSubject
from synbrain.training.train import Start, mean_voxel_r, train_model

Update = Literal["mlp", "attention", "all", "none"]
SharedTestImages = Literal["refuse", "drop"]
# What differs from the recipe: networks that know other subjects already need fewer steps. The published
# few-shot run takes 40,001 mapper steps (README of the reference) and is left at that at the paper's size.
SHORTER: dict[str, Any] = {
    "vae": {"lr": 3e-4, "epochs": 4, "patience": 2},
    "mapper": {"lr": 3e-4, "steps": 300, "round_steps": 25, "patience": 3, "ema_decay": 0.98},
}
PAPER: dict[str, Any] = {"mapper": {"steps": 40_001}}
PAPER_DIM = 1664


@dataclass(frozen=True)
class Adapted:
    """An adapted model and what was done.

    Attributes:
        model: of the new subject alone.
        updated: number of parameters trained further, "vae" and "mapper".
        report: figures on the validation images, as ``train_model`` gives them.
    """

    model: SynBrain
    updated: dict[str, int]
    report: dict[str, Any]


def adapt(
    base: SynBrain,
    dataset: Dataset,
    budget: str | int | Budget = "1h",
    by: By = "session",
    update: Update = "mlp",
    *,
    networks: bool = True,
    prior: bool = True,
    scratch: LinearFit | None = None,
    changes: dict[str, Any] | None = None,
    shared_test_images: SharedTestImages = "refuse",
    base_digest: str = "",
    seed: int = 0,
    folder: Path | None = None,
    tokens: TokenSet | None = None,
    show_progress: bool = False,
) -> Adapted:
    """Fit ``base`` to the subject of ``dataset``; the base is not touched.

    Args:
        base: of one subject or several, any numbers of voxels.
        dataset: the new subject's, with tokens of the base's encoder.
        budget: how much of its training data may be used, validation images included (data/budget.py).
        by: what a number in ``budget`` counts.
        update: what of the mapper is trained further; the VAE is trained whole. "mlp" as published.
        networks: False leaves the networks out: linear path and noise alone (recipe calibrated).
        prior: False fits the linear path without the base's (a control).
        scratch: the linear path without the base's, where it was fitted already: ``fit_linear_path`` on
            ``budget_pairs`` with ``adaptation_config(base, changes, seed).linear`` and the same seed.
        changes: values of the training configuration that differ from the adaptation's.
        shared_test_images: what to do about images that are test images of a base subject.
        base_digest: of the base run's folder, to be recorded.
        seed: of folds, held-out images, batches and noise.
        folder: for checkpoints and logs; a temporary one where left out.
        tokens: of all ``dataset`` images, where they are not to be read from its store.
        show_progress: show bars.

    Raises:
        SynBrainError: for a base that cannot be adapted, an impossible budget, missing tokens, or images that
            may not be trained on.
    """
    chosen = budget if isinstance(budget, Budget) else parse_budget(budget, by)
    all_tokens = tokens or open_tokens(dataset, base.config.encoder, base.config.layers)
    all_tokens = base.tokens(all_tokens)
    pairs, rows = budget_pairs(base.config, dataset, all_tokens, chosen, shared_test_images)
    config = adaptation_config(base, changes, seed)
    use_networks = networks and base.vae is not None and base.mapper is not None
    if not use_networks and not config.linear_path:
        raise SynBrainError(
            "nothing would be left to adapt: the base has no linear path"
            + ("" if base.mapper is not None else " and no mapper"),
            "adapt a run with a mapper and leave --networks at its default, or a `calibrated` run",
        )
    base_parts = list(base.subjects.values())
    info = dataset.info
    marks = tuple(image_marks(dataset, rows))
    subject = TrainingSubject(info.subject, pairs, dataset.space, info.unit, info.scaling, marks)
    fit_linear, fit_noise = _with_prior(base_parts, prior, marks, scratch)
    if use_networks:
        assert base.vae is not None
        assert base.mapper is not None
        vae, mapper = copy.deepcopy(base.vae), copy.deepcopy(base.mapper)
        names = updated_parameters(mapper, update)
        start = Start(vae, mapper, names, fit_linear, fit_noise)
        with tempfile.TemporaryDirectory(prefix="synbrain-") as temporary:
            trained = train_model(
                [subject], config, folder=folder or Path(temporary), show_progress=show_progress, start=start
            )
        run, parts, report = trained.config, trained.subjects, trained.report
        counts = {
            "vae": sum(p.numel() for p in vae.parameters()),
            "mapper": sum(p.numel() for name, p in mapper.named_parameters() if name in names),
        }
        made = SynBrain(run, parts, trained.vae, trained.mapper)
    else:
        part, report = _linear_only(subject, config, fit_linear, fit_noise, show_progress)
        assert part.linear is not None
        layers = tuple(part.linear.layers)
        run = RunConfig(
            recipe=base.config.recipe,
            encoder=base.config.encoder,
            encoder_digest=all_tokens.digest,
            linear_layers=layers,
            token_shapes={layer: all_tokens.shapes[layer] for layer in layers},
            seeds=(seed,),
        )
        counts = {"vae": 0, "mapper": 0}
        made = SynBrain(run, {part.name: part})
    record = {
        "encoder_hub_id": base.config.encoder_hub_id,
        "base_digest": base_digest,
        "adaptation": {
            "budget": f"{chosen.amount} {chosen.by}" if chosen.by != "all" else "all",
            "n_images": pairs.n_images,
            "n_trials": pairs.n_trials,
            "update": update if use_networks else "no networks",
            "updated_parameters": counts,
        },
        **_marks(base.config, dataset, marks),
    }
    made.config = made.config.model_copy(update=record)
    return Adapted(made, counts, report)


def budget_pairs(
    config: RunConfig,
    dataset: Dataset,
    tokens: TokenSet,
    budget: Budget,
    shared_test_images: SharedTestImages = "refuse",
) -> tuple[Pairs, Rows]:
    """Training pairs of a budget, without an image that may not be trained on, and the images' rows."""
    pairs = pairs_of(dataset, tokens, "train")
    kept = np.isin(pairs.trials, budget_trials(dataset, budget))
    part = Pairs(pairs.tokens, pairs.responses, pairs.trials[kept], pairs.image_of_trial[kept])
    images = np.flatnonzero(part.repeats())
    rows = dataset.image_rows("train")
    safe = images_to_adapt_on(config, dataset, rows[images], shared_test_images)
    return part.take(images[np.isin(rows[images], safe)]), safe


def adaptation_config(base: SynBrain, changes: dict[str, Any] | None, seed: int) -> TrainConfig:
    """The base's recipe, shorter; parts that the base has not got are left out."""
    parts = list(base.subjects.values())
    raw = all(np.all(p.response_mean == 0) and np.all(p.response_sd == 1) for p in parts)
    paper = base.mapper is not None and base.mapper.config.dim >= PAPER_DIM
    config = recipe(base.config.recipe, preset="paper-4096" if paper else "tiny")
    config = overridden(config, PAPER if paper else SHORTER)
    own = {
        "network_layer": base.config.mapper_layer,
        "scale": "raw" if raw else "standardise",
        "linear_path": any(p.linear is not None for p in parts),
        "response_noise": any(p.noise is not None for p in parts),
        "linear": {"layers": base.config.linear_layers or None},
        "seed": seed,
    }
    return overridden(overridden(config, own), changes or {})


def updated_parameters(mapper: Mapper, update: Update) -> frozenset[str]:
    """Names of the mapper's parameters that an adaptation trains; a folded mapper has none."""
    if update != "none":
        mapper.require_trainable()
    if update == "mlp":
        return frozenset(mlp_parameters(mapper))
    names = [name for name, _ in mapper.named_parameters()]
    if update == "attention":
        return frozenset(n for n in names if n.startswith("blocks.") and (".qkv." in n or ".out." in n))
    if update == "all":
        return frozenset(names)
    if update == "none":
        return frozenset()
    raise SynBrainError(f"update={update!r}", "choose mlp, attention, all or none")


def _with_prior(
    parts: list[SubjectPart], prior: bool, marks: tuple[bytes, ...], scratch: LinearFit | None
) -> tuple[Callable[..., LinearFit], Callable[..., Any]]:
    """The fits of linear path and noise, with the base's knowledge where there is some."""
    bases = [p.as_base for p in parts if p.as_base is not None]
    space = response_space(bases) if prior else None
    noises = [p.noise for p in parts if prior and p.noise is not None]

    def linear(pairs: Pairs, config: LinearPathConfig, *, seed: int, show_progress: bool) -> LinearFit:
        if space is not None:
            return fit_with_prior(
                pairs, space, config, marks=marks, seed=seed, show_progress=show_progress, alone=scratch
            )
        return scratch or fit_linear_path(pairs, config, seed=seed, show_progress=show_progress)

    def noise(pairs: Pairs, mean: Any, config: NoiseConfig, *, seed: int) -> Any:
        return fit_noise_with_prior(pairs, mean, config, noises, seed=seed)

    return linear, noise


def _linear_only(
    subject: TrainingSubject,
    config: TrainConfig,
    fit_linear: Callable[..., LinearFit],
    fit_noise: Callable[..., Any],
    show_progress: bool,
) -> tuple[SubjectPart, dict[str, Any]]:
    pairs = subject.pairs
    fit = fit_linear(pairs, config.linear, seed=config.seed, show_progress=show_progress)
    noise = fit_noise(pairs, fit.out_of_fold, config.noise, seed=config.seed)
    mean, sd = response_scale(pairs, config.scale)
    part = SubjectPart(
        name=subject.name,
        space=subject.space,
        unit=subject.unit,
        scaling=subject.scaling,
        response_mean=mean,
        response_sd=sd,
        linear=fit.path,
        held_out=held_out_scores(fit.path, fit.out_of_fold, sd, subject.image_marks),
        noise=noise if config.response_noise else None,
    )
    r = mean_voxel_r(fit.out_of_fold, pairs.repeat_means())
    return part, {"subjects": {subject.name: {"cross_validated_r_linear": r}}}


def _marks(config: RunConfig, dataset: Dataset, trained: tuple[bytes, ...]) -> dict[str, str]:
    """The base's marks of images and the new subject's."""
    own = marks_of([dataset], trained)
    return {key: packed(unpacked(getattr(config, key)) | unpacked(value)) for key, value in own.items()}
