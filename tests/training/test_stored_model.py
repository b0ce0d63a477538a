"""What a trained model predicts is what its parts predict, on disk as in memory, and what was reported."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from synbrain.data.space import VoxelSpace
from synbrain.features.tokens import Pairs, TokenSet
from synbrain.model.synbrain import SynBrain
from synbrain.networks.presets import Preset
from synbrain.training import fit as fit_module
from synbrain.training.config import TrainConfig
from synbrain.training.fit import fit_model
from synbrain.training.networks import (
    Workspace,
    network_sizes,
    new_networks,
    split_subject,
    validation_split,
)
from synbrain.training.overrides import overridden
from synbrain.training.recipes import recipe
from synbrain.training.subjects import TrainingSubject

Make = Callable[..., Any]
SHORT: dict[str, Any] = {
    "preset": "micro",
    "linear": {"windows": 0, "blur": 0.0, "n_folds": 3, "alphas": (1.0, 10.0, 100.0)},
    "vae": {"epochs": 2, "batch_size": 8},
    "mapper": {"steps": 20, "round_steps": 5, "batch_size": 8, "lr": 1e-2},
}


def of_parts(model: SynBrain, name: str, tokens: TokenSet) -> np.ndarray:
    """The mean of one subject in float64: linear path, plus what the networks decode, weighed."""
    part = model.subjects[name]
    flat = tokens.read("final").reshape(len(tokens), -1).astype(float)
    linear = (
        flat @ part.linear.projections["final"] @ part.linear.mixing.astype(float) + part.linear.intercept
    )
    with torch.no_grad():
        latents = model.mapper.double()(torch.from_numpy(tokens.read("final")).double())
        decoded = model.vae.double().decode(latents, part.n_voxels).numpy()
    model.mapper.float(), model.vae.float()
    return linear + part.shrink * part.response_sd * decoded


@pytest.fixture
def trained(
    pairs: Make, micro: Preset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[SynBrain, list[TrainingSubject], list[Any], TrainConfig]:
    """A model of a few and of many voxels, and the linear fits that it was made from."""
    fits: list[Any] = []
    fit_linear = fit_module.fit_linear

    def spied(*given: Any) -> Any:
        fits.append(fit_linear(*given))
        return fits[-1]

    monkeypatch.setattr(fit_module, "fit_linear", spied)
    subjects = []
    for name, n_voxels in (("few", 6), ("many", 300)):
        recorded: Pairs = pairs(n_images=40, n_voxels=n_voxels)
        subjects.append(TrainingSubject(name, recorded, VoxelSpace(n_voxels), "z"))
    config = overridden(recipe("calibrated"), SHORT)
    sizes = network_sizes(subjects[0].pairs.tokens, config)
    model = fit_model(subjects, config, new_networks(sizes, 0), Workspace(tmp_path / "training"))
    return model, subjects, fits, config


def test_a_trained_model_is_its_parts_and_what_was_reported(trained: Any, tmp_path: Path) -> None:
    model, subjects, fits, config = trained
    weighed = {name: part.shrink for name, part in model.subjects.items()}
    for part in model.subjects.values():  # so short a training may leave nothing of the networks
        object.__setattr__(part, "shrink", np.full(part.n_voxels, 0.7, dtype=np.float32))
    model.save_pretrained(tmp_path / "run")
    same = [model, *(SynBrain.from_pretrained(tmp_path / "run", fold=fold) for fold in (False, True))]
    for subject, fit in zip(subjects, fits, strict=True):
        tokens, name, part = subject.pairs.tokens, subject.name, model.subjects[subject.name]
        expected = of_parts(model, name, tokens)
        for opened in same:
            for batch_size in (7, 64):
                mean = opened.predict(tokens, subject=name, batch_size=batch_size)
                np.testing.assert_allclose(mean, expected, rtol=1e-3, atol=1e-3 * expected.std())
        # the networks that are kept are those that were validated
        split = validation_split(subject.pairs, config.validation_fraction, config.seed)
        data = split_subject(subject, fit, config, split)
        seen = data.validation.tokens
        decoded = (of_parts(model, name, seen) - part.linear.predict(seen)) / (0.7 * part.response_sd)
        error = np.mean((data.validation_offset + weighed[name] * decoded - data.validation_means) ** 2)
        assert error == pytest.approx(model.report.subjects[name].validation_error, rel=1e-3)
        assert decoded.std() > 0.01
