"""The last fit: on all real images, for the steps that held-out images chose."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fixtures.colours import N_IMAGES, N_TEST, linear_run, make_dataset
from synbrain import Dataset, Decoder
from synbrain.commands.describe import describe_decoder
from synbrain.data.marks import image_marks, unpacked
from synbrain.decoding.adapt import adapt_decoder
from synbrain.decoding.augment import augment
from synbrain.decoding.experiments.compare import compare_decoders
from synbrain.decoding.experiments.curve import augmentation_curve
from synbrain.decoding.mindeye2 import fit as mindeye2_fit
from synbrain.decoding.mindeye2.model import MindEye2
from synbrain.decoding.options import (
    AugmentOptions,
    CurveOptions,
    DecoderAdaptOptions,
    DecoderComparison,
    DecoderOptions,
)
from synbrain.decoding.protocol import DecodingMethod
from synbrain.decoding.refit import on_all_images, once_fitted
from synbrain.decoding.registry import fit_method
from synbrain.decoding.subjects import decoding_data
from synbrain.decoding.train import train_decoder
from synbrain.decoding.validation import validation_scores
from synbrain.errors import SynBrainError, SynBrainWarning
from synbrain.features.store import open_tokens
from synbrain.features.tokens import pairs_of
from synbrain.files import read_json
from synbrain.training.networks import Workspace

N_TRAIN = N_IMAGES - N_TEST


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_dataset(tmp_path_factory.mktemp("refit"), "first", 30, 1)


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_dataset(tmp_path_factory.mktemp("refit2"), "second", 24, 2)


@pytest.fixture
def settings(options) -> DecoderOptions:
    """MindEye2 with dropout, so that every kind of randomness matters; the last of six rounds is not best."""
    small = options("mindeye2", encoder="pixels", components=8)
    sizes = small.mindeye2.sizes.model_copy(update={"use_prior": False, "dropout": 0.3})
    changes = {"sizes": sizes, "steps": 60, "round_steps": 10, "patience": 100, "checkpoint_every": 5}
    return small.model_copy(update={"mindeye2": small.mindeye2.model_copy(update=changes), "refit": True})


def same_tensors(a: DecodingMethod, b: DecodingMethod) -> bool:
    return all(torch.equal(tensor, b.state()[name]) for name, tensor in a.state().items())


def test_it_is_a_plain_fit_to_all_images_at_that_step(
    subject, options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a training of all steps on all images has after step 80 (of 120), to the last bit."""
    data, _ = subject()
    whole = replace(
        data, train=data.train.together_with(data.validation), targets=np.zeros(0, np.float32)
    )  # fmt: skip
    order = np.argsort(np.concatenate([data.train.tokens.rows, data.validation.tokens.rows]))
    whole = replace(whole, targets=np.concatenate([data.targets, data.validation_targets])[order])
    settings = options("mindeye2", mindeye2=options("mindeye2").mindeye2.model_copy(
        update={"patience": 100, "sizes": options("mindeye2").mindeye2.sizes.model_copy(
            update={"dropout": 0.3})}))  # fmt: skip
    seen: list[dict[str, torch.Tensor]] = []

    def looked_at(method: MindEye2, subjects):
        seen.append({name: tensor.clone() for name, tensor in method.state().items()})
        return validation_scores(method, subjects)

    monkeypatch.setattr(mindeye2_fit, "validation_scores", looked_at)
    fit_method([whole], settings, Workspace(tmp_path / "plain"))
    n_looks = len(seen)
    nothing = whole.validation.take(np.arange(0))
    held = replace(whole, validation=nothing, validation_targets=whole.validation_targets[:0])
    again = fit_method([held], settings, Workspace(tmp_path / "until"), until=80)
    assert len(seen) == n_looks  # validation images are not looked at
    assert all(torch.equal(tensor, seen[1][name]) for name, tensor in again.state().items())
    assert not all(torch.equal(tensor, seen[2][name]) for name, tensor in again.state().items())


@pytest.mark.parametrize("synthetic", [False, True])
def test_train_decoder(synthetic: bool, first, settings, tmp_path: Path) -> None:
    made = augment(linear_run(first), first, AugmentOptions(hours=0.2), out=tmp_path / "synthetic")
    more = made if synthetic else None
    once = train_decoder(
        [first], settings.model_copy(update={"refit": False}), out=tmp_path / "once", augment=more
    )
    twice = train_decoder([first], settings, out=tmp_path / "twice", augment=more)
    # chosen by the first fit, whose scores it keeps
    data = decoding_data([first], settings, more)
    before = fit_method(data.subjects, settings, Workspace(tmp_path / "before"))
    assert isinstance(before, MindEye2)
    assert same_tensors(once.method, before)
    assert not once.config.last_fit
    assert twice.config.validation == once.config.validation == before.validation
    steps = before.validation["best_step"]
    assert twice.config.last_fit == {"images": N_TRAIN, "steps": steps}
    # token space, scales and weights are of all training images, synthetic trials those of the first fit
    whole = on_all_images(data, settings)
    every = pairs_of(first, open_tokens(first, "pixels"), "train")
    assert whole.subjects[0].train.digest == every.digest
    assert whole.n_validation_images == 0
    assert whole.subjects[0].synthetic is data.subjects[0].synthetic
    np.testing.assert_allclose(twice.subject.mean, every.trial_responses().mean(axis=0), rtol=1e-5)
    assert twice.space != once.space
    after = fit_method(whole.subjects, settings, Workspace(tmp_path / "after"), until=int(steps))
    assert same_tensors(twice.method, after)
    assert not same_tensors(twice.method, once.method)
    # no test image
    test = set(image_marks(first, first.image_rows("test")))
    assert not test & unpacked(twice.config.trained_images)
    assert set(image_marks(first, first.image_rows("train"))) <= unpacked(twice.config.trained_images)
    assert not (tmp_path / ".twice.training").exists()
    again = Decoder.from_pretrained(tmp_path / "twice")
    assert again.config == twice.config
    assert f"last fit   images {N_TRAIN}, steps {steps}" in describe_decoder(tmp_path / "twice")
    card = (tmp_path / "twice" / "README.md").read_text()
    assert f"fitted to all {N_TRAIN} images**, these too, for the {steps} steps" in card
    assert "of a first fit" in card
    assert "that no weight was fitted on" in (tmp_path / "once" / "README.md").read_text()


@pytest.mark.parametrize("at", [3, 63, 78])  # batches: in the first fit, and in the last
def test_an_interruption_changes_nothing(
    at: int, first, settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train_decoder([first], settings, out=tmp_path / "whole")
    assert whole.config.last_fit["steps"] > 18
    read, n_read = mindeye2_fit.training_rows, 0

    def counted(*args, **kwargs):
        nonlocal n_read
        n_read += 1
        if n_read == at:
            raise KeyboardInterrupt
        return read(*args, **kwargs)

    monkeypatch.setattr(mindeye2_fit, "training_rows", counted)
    with pytest.raises(KeyboardInterrupt):
        train_decoder([first], settings, out=tmp_path / "d")
    assert not (tmp_path / "d").exists()
    before = n_read
    resumed = train_decoder([first], settings, out=tmp_path / "d")
    assert same_tensors(resumed.method, whole.method)
    assert resumed.config == whole.config
    if at > 61:  # the first fit is not trained again, and the last goes on from its checkpoint
        assert n_read - before <= whole.config.last_fit["steps"] + 1


def test_closed_forms_are_fitted_to_all_images_as_they_are(first, tmp_path: Path) -> None:
    options = DecoderOptions(method="ridge", encoder="pixels", components=8)
    decoders = [train_decoder([first], options, out=tmp_path / "False")]
    with pytest.warns(SynBrainWarning, match="ridge is fitted to all images as it is.*changes nothing"):
        decoders += [
            train_decoder([first], options.model_copy(update={"refit": True}), out=tmp_path / "True")
        ]
    assert same_tensors(decoders[0].method, decoders[1].method)
    assert decoders[0].config.last_fit == decoders[1].config.last_fit == {"images": N_TRAIN}
    card = (tmp_path / "True" / "README.md").read_text()
    assert f"fitted to all {N_TRAIN} images**, these too. The figures are of a fit before that" in card


@pytest.mark.parametrize("adaptation", ["finetune", "mindaligner"])
def test_adapted(adaptation: str, first, second, settings, tmp_path: Path) -> None:
    base = train_decoder([first], settings, out=tmp_path / "base")
    options = DecoderAdaptOptions.model_validate(
        settings.model_dump() | {"adaptation": adaptation, "latent": 16, "neighbours": 3}
    )
    known = first if adaptation == "mindaligner" else None
    twice = adapt_decoder(tmp_path / "base", second, options, out=tmp_path / "twice", known_data=known)
    once = options.model_copy(update={"refit": False})
    before = adapt_decoder(tmp_path / "base", second, once, out=tmp_path / "once", known_data=known)
    assert twice.config.validation == before.config.validation
    assert twice.config.last_fit == {"images": N_TRAIN, "steps": before.config.validation["best_step"]}
    assert twice.space == base.space  # the base's
    assert not same_tensors(twice.method, before.method)
    every = pairs_of(second, open_tokens(second, "pixels"), "train")
    np.testing.assert_allclose(twice.subject.mean, every.trial_responses().mean(axis=0), rtol=1e-5)
    if known is not None:
        assert twice.config.training["images_with_partners"] == N_TRAIN
        x = first.responses[:5]
        np.testing.assert_allclose(
            twice.for_subject(first.info.subject).embed(x), base.embed(x), atol=1e-5
        )  # the known subject's decoder is frozen


def test_a_curve_and_its_cells(first, settings, tmp_path: Path) -> None:
    options = CurveOptions.model_validate(
        settings.model_dump()
        | {"budget": "all", "hours": [0, 0.2], "arms": ["calibrated", "repeated"], "weights": [0, 0.5],
           "seeds": 1, "refit": False}
    )  # fmt: skip
    again = options.model_copy(update={"refit": True})
    run = linear_run(first)
    once = augmentation_curve(run, first, options, out=tmp_path / "once")
    twice = augmentation_curve(run, first, again, out=tmp_path / "twice")
    assert (once["about"]["refit"], twice["about"]["refit"]) == (False, True)
    assert not twice["failed"]
    # validation images choose as before; test scores are of the last fit
    assert [p["weights"] for p in once["points"]] == [p["weights"] for p in twice["points"]]
    cells = [[read_json(path) for path in sorted((tmp_path / f"{name}/cells").glob("*.json"))]
             for name in ("once", "twice")]  # fmt: skip
    for before, after in zip(*cells, strict=True):
        assert before["validation_each"] == after["validation_each"]
        assert not before["last_fit"]
        assert after["last_fit"] == {"images": N_TRAIN, "steps": before["validation"]["best_step"]}
    assert any(before["each"] != after["each"] for before, after in zip(*cells, strict=True))
    # decoders with and without a last fit are told apart
    with pytest.raises(SynBrainError, match="other settings"):
        augmentation_curve(run, first, again.model_copy(update={"resume": True}), out=tmp_path / "once")


def test_the_table(first, second, settings, tmp_path: Path) -> None:
    train_decoder([first], settings, out=tmp_path / "base")
    how = DecoderComparison.model_validate(
        settings.model_dump()
        | {"budget": "all", "seeds": 1, "systems": ["mindeye2", "mindaligner"], "latent": 16}
    )
    given = {"run": linear_run(second), "known_data": first}
    twice = compare_decoders(tmp_path / "base", second, how, out=tmp_path / "twice", **given)
    how = how.model_copy(update={"refit": False})
    once = compare_decoders(tmp_path / "base", second, how, out=tmp_path / "once", **given)
    assert not twice["failed"]
    assert (once["about"]["refit"], twice["about"]["refit"]) == (False, True)
    assert once["validation"] == twice["validation"]
    for name, row in once["rows"].items():
        assert row["correlation_distance"]["value"] != twice["rows"][name]["correlation_distance"]["value"]


def test_there_is_none_unless_asked() -> None:
    """Published figures are of one fit, whose digest knows nothing of a last one."""
    for options in (DecoderOptions, DecoderAdaptOptions, CurveOptions, DecoderComparison):
        assert not options().refit
    assert once_fitted(CurveOptions()) == {"refit"}
    assert once_fitted(CurveOptions(refit=True)) == set()
