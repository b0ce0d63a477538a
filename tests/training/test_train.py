"""Training as a whole: parts that fit each other, seeds, held-out images, several subjects."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from synbrain.data.space import VoxelSpace
from synbrain.errors import SynBrainError
from synbrain.features.tokens import Pairs
from synbrain.model.synbrain import SynBrain
from synbrain.networks.presets import Preset
from synbrain.training import fit as fit_module
from synbrain.training import networks as networks_module
from synbrain.training.config import TrainConfig
from synbrain.training.fit import fit_model
from synbrain.training.networks import Workspace, network_sizes, new_networks, validation_split
from synbrain.training.overrides import overridden
from synbrain.training.recipes import recipe
from synbrain.training.subjects import TrainingSubject, sampling_weights

Make = Callable[..., Any]
SHORT: dict[str, Any] = {
    "preset": "micro",
    "linear": {"windows": 0, "blur": 0.0, "n_folds": 3, "alphas": (1.0, 10.0, 100.0)},
    "vae": {"epochs": 1, "batch_size": 8},
    "mapper": {"steps": 20, "round_steps": 10, "batch_size": 8},
}


def subject(pairs: Pairs, name: str = "s") -> TrainingSubject:
    return TrainingSubject(name, pairs, VoxelSpace(pairs.n_voxels), "z")


def train_model(subjects: list[TrainingSubject], config: TrainConfig, *, folder: Path) -> SynBrain:
    """New networks on these subjects, as :func:`synbrain.train` fits them."""
    sizes = network_sizes(subjects[0].pairs.tokens, config)
    return fit_model(subjects, config, new_networks(sizes, config.seed), Workspace(folder))


def short(name: str, **more: Any) -> TrainConfig:
    return overridden(overridden(recipe(name), SHORT), more)


def test_the_same_seed_gives_the_same_model(pairs: Make, micro: Preset, tmp_path: Path) -> None:
    made = [
        train_model([subject(pairs(n_images=40))], short("calibrated"), folder=tmp_path / str(i))
        for i in range(2)
    ]
    assert made[0].report == made[1].report
    first, second = (model.mapper for model in made)
    assert first is not None
    assert second is not None
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert np.array_equal(a.detach().numpy(), b.detach().numpy())


def test_calibrated_gives_every_part(pairs: Make, micro: Preset, tmp_path: Path) -> None:
    made = train_model([subject(pairs(n_images=40))], short("calibrated"), folder=tmp_path)
    part = made.subjects["s"]
    assert made.predict(pairs(n_images=40).tokens).shape == (40, 6)
    assert part.linear is not None
    assert part.noise is not None
    assert made.config.linear_layers == ("final",)
    assert made.report is not None
    report = made.report.subjects["s"]
    assert report.validation_error is not None
    assert report.validation_error_linear is not None
    assert report.validation_error <= report.validation_error_linear + 1e-6, "shrink: it can only help"


def test_reference_has_neither_linear_path_nor_noise(pairs: Make, micro: Preset, tmp_path: Path) -> None:
    made = train_model([subject(pairs())], short("reference"), folder=tmp_path)
    part = made.subjects["s"]
    assert (part.linear, part.noise) == (None, None)
    assert not np.any(part.response_mean)
    assert np.all(part.response_sd == 1)
    assert np.all(np.asarray(part.shrink) == 1)


def test_several_subjects_of_any_size_make_one_model(pairs: Make, micro: Preset, tmp_path: Path) -> None:
    both = [
        subject(pairs(n_voxels=5, n_images=40), "a"),
        subject(pairs(n_voxels=9, seed=1, n_images=40), "b"),
    ]
    made = train_model(both, short("calibrated"), folder=tmp_path)
    assert {name: part.n_voxels for name, part in made.subjects.items()} == {"a": 5, "b": 9}
    with pytest.raises(SynBrainError, match="one name"):
        train_model([both[0], both[0]], short("calibrated"), folder=tmp_path / "again")


def test_subjects_with_other_tokens_are_refused(pairs: Make, micro: Preset, tmp_path: Path) -> None:
    both = [subject(pairs(), "a"), subject(pairs(shape=(2, 8)), "b")]
    with pytest.raises(SynBrainError, match="same encoder and layers"):
        train_model(both, short("calibrated"), folder=tmp_path)


def test_validation_images_reach_no_weight(
    pairs: Make, micro: Preset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other responses to the held-out images change no parameter (reference: nothing else is fitted)."""
    first = pairs()
    config = short("reference", vae={"stop": "never"}, mapper={"stop": "never"})
    _, held = validation_split(first, config.validation_fraction, config.seed)
    changed = first.responses.copy()
    changed[np.isin(first.image_of_trial, held)] += 5.0
    second = Pairs(first.tokens, changed, first.trials, first.image_of_trial)
    a, b = (
        train_model([subject(p)], config, folder=tmp_path / str(i)) for i, p in enumerate((first, second))
    )
    assert a.report != b.report
    for module in ("vae", "mapper"):
        for p, q in zip(getattr(a, module).parameters(), getattr(b, module).parameters(), strict=True):
            assert np.array_equal(p.detach().numpy(), q.detach().numpy())


def test_validation_split_agree_with_pairs(pairs: Make) -> None:
    made = pairs(n_images=30).take(np.arange(5, 25))
    rest, held = validation_split(made, 0.2, 1)
    assert np.array_equal(np.sort(np.concatenate([rest, held])), np.arange(20))
    assert np.array_equal(made.tokens.rows[held], made.hold_out(0.2, 1)[1].tokens.rows)


def test_sampling_weights_are_trials_unless_given(pairs: Make) -> None:
    both = [subject(pairs(n_images=10), "a"), subject(pairs(n_images=20), "b")]
    assert sampling_weights(both, {}) == [20, 40]
    assert sampling_weights(both, {"b": 1.0, "a": 3.0}) == [3, 1]
    with pytest.raises(SynBrainError, match="one entry for each"):
        sampling_weights(both, {"a": 1.0})


def test_a_long_linear_path_is_not_fitted_twice(
    pairs: Make, micro: Preset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = short("calibrated", response_noise=False)
    whole = train_model([subject(pairs(n_images=40))], config, folder=tmp_path / "whole")

    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(fit_module, "WORTH_KEEPING", 0.0)
    with monkeypatch.context() as patched:
        patched.setattr(fit_module, "train_networks", stop)
        with pytest.raises(KeyboardInterrupt):
            train_model([subject(pairs(n_images=40))], config, folder=tmp_path / "cut")
    assert not (tmp_path / "cut" / "linear" / "s" / "passes").exists()
    monkeypatch.setattr(fit_module, "fit_linear_path", stop)
    resumed = train_model([subject(pairs(n_images=40))], config, folder=tmp_path / "cut")
    assert resumed.report == whole.report
    for other in (pairs(n_images=41), pairs(n_images=40, seed=1)):  # of other or of the same size
        with pytest.raises(KeyboardInterrupt):  # other data are fitted anew
            train_model([subject(other)], config, folder=tmp_path / "cut")


def test_an_interrupted_training_continues_to_the_same_model(
    pairs: Make, micro: Preset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = short("calibrated", vae={"checkpoint_every": 2}, response_noise=False)
    whole = train_model([subject(pairs(n_images=40))], config, folder=tmp_path / "whole")

    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(networks_module, "train_mapper", stop)
        with pytest.raises(KeyboardInterrupt):
            train_model([subject(pairs(n_images=40))], config, folder=tmp_path / "cut")
    other = pairs(n_images=40)
    other.responses[:] *= 2  # prepared again, in another unit
    with pytest.raises(SynBrainError, match="another configuration, seed or data"):
        train_model([subject(other)], config, folder=tmp_path / "cut")
    one = pairs(n_images=40)  # as by an earlier version, which split these by single images
    alike = replace(one, tokens=replace(one.tokens, settled=np.arange(40) // 2))
    with pytest.raises(SynBrainError, match="another configuration, seed or data"):
        train_model([subject(alike)], config, folder=tmp_path / "cut")
    resumed = train_model([subject(pairs(n_images=40))], config, folder=tmp_path / "cut")
    assert resumed.report == whole.report
    logs = [(tmp_path / name / "log.jsonl").read_text() for name in ("whole", "cut")]
    assert logs[0] == logs[1]
