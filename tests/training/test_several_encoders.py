"""Several encoders read as one: tokens, linear paths averaged by voxel, base runs joined, mistakes told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import synbrain
from synbrain import SynBrain
from synbrain.cli import main
from synbrain.data.dataset import Dataset, load_dataset
from synbrain.data.space import VoxelSpace
from synbrain.errors import SynBrainError
from synbrain.features import encoders
from synbrain.features.encoders import get_encoder
from synbrain.features.encoding import encode_images
from synbrain.features.options import FeatureOptions
from synbrain.features.pixels import pixels
from synbrain.features.store import copy_tokens, make_tokens, open_tokens, verify_tokens
from synbrain.features.tokens import Pairs, TokenSet, pairs_of
from synbrain.linear.by_encoder import COMMON, fit_each_encoder
from synbrain.linear.config import LinearPathConfig
from synbrain.linear.fit import LinearFit, fit_linear_path
from synbrain.linear.prior import BasePath, response_space
from synbrain.linear.stacking import stacked
from synbrain.metrics.voxel import voxel_r
from synbrain.model.report import TrainingReport
from synbrain.networks.fit.devices import processes_on
from synbrain.simulate.example import toy_dataset
from synbrain.training.fit import NO_PRIOR, LinearPlace, Prior, fit_linear
from synbrain.training.options import AdaptOptions, TrainOptions
from synbrain.training.overrides import overridden
from synbrain.training.recipes import recipe
from synbrain.training.subjects import TrainingSubject

BOTH = "pixels+mosaic"
LINEAR: dict[str, Any] = {"n_folds": 3, "windows": 0, "blur": 0.0}
NO_NETWORKS: dict[str, Any] = {
    "linear": LINEAR, "vae": {"epochs": 1}, "mapper": {"steps": 2, "round_steps": 2},
}  # fmt: skip


@pytest.fixture(autouse=True)
def _mosaic(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second encoder that costs nothing."""
    monkeypatch.setitem(encoders.ENCODERS, "mosaic", pixels)


def recorded(folder: Path, seed: int = 0) -> Dataset:
    toy_dataset(folder, seed)
    dataset = load_dataset(folder / "dataset")
    make_tokens(dataset, FeatureOptions(encoder="mosaic", layers=["final"], device="cpu"))
    return dataset


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return recorded(tmp_path / "toy")


def first_fit(pairs: Pairs, config: LinearPathConfig, number: int) -> LinearFit:
    return fit_linear_path(pairs, config, seed=0)


def test_tokens_of_both_are_those_of_each_and_pictures_give_the_same(dataset: Dataset) -> None:
    both = open_tokens(dataset, BOTH)
    assert list(both.layers) == ["pixels:grid4", "mosaic:final"]
    np.testing.assert_array_equal(both.read("mosaic:final"), open_tokens(dataset, "mosaic").read("final"))
    encoder = get_encoder(BOTH)
    assert set(both.layers) < set(encoder.layers)
    images = [dataset.load_image(row) for row in (3, 1)]
    fresh = encode_images(encoder, images, list(both.layers))
    assert (fresh.encoder, fresh.digest) == (both.encoder, both.digest) == (BOTH, encoder.digest)
    for layer in both.layers:
        np.testing.assert_array_equal(fresh.read(layer), both.read(layer, np.array([3, 1])))
    one = open_tokens(dataset, BOTH, ["mosaic:final", "pixels:grid4"])
    assert one.shapes == both.shapes
    verify_tokens(dataset, BOTH)


def test_tokens_of_both_are_copied_with_the_images(dataset: Dataset, tmp_path: Path) -> None:
    other = recorded(tmp_path / "other", seed=1)
    for name in ("pixels", "mosaic"):
        for path in (other.path / "tokens" / name).iterdir():
            path.unlink()
        (other.path / "tokens" / name).rmdir()
    rows = np.arange(dataset.n_images)
    copy_tokens(open_tokens(dataset, BOTH), dataset, other, rows)
    np.testing.assert_array_equal(
        open_tokens(other, BOTH).read("mosaic:final"), open_tokens(dataset, BOTH).read("mosaic:final")
    )


@pytest.mark.parametrize(
    ("encoder", "layers", "problem"),
    [
        ("pixels+pixels", None, "names no encoders or one twice"),
        ("pixels+", None, "names no encoders or one twice"),
        (BOTH, ["grid4"], "pixels:LAYER"),
        (BOTH, ["pixels:grid4"], "no layer of mosaic was named"),
        ("pixels+clip", None, "has no tokens of clip"),
        (BOTH, ["pixels:grid4", "mosaic:grid4"], "not grid4"),
    ],
)
def test_mistakes_say_what_to_type(
    dataset: Dataset, encoder: str, layers: list[str] | None, problem: str
) -> None:
    with pytest.raises(SynBrainError, match=problem):
        open_tokens(dataset, encoder, layers)


def test_tokens_in_another_order_are_refused_and_nothing_is_stored_twice(dataset: Dataset) -> None:
    from synbrain.features.joint import joint_tokens

    one, other = open_tokens(dataset, "pixels"), open_tokens(dataset, "mosaic")
    with pytest.raises(SynBrainError, match="stored in different orders"):
        joint_tokens([one, replace(other, rows=other.rows[::-1])])
    with pytest.raises(SynBrainError, match="stored apart"):
        make_tokens(dataset, FeatureOptions(encoder=BOTH, device="cpu"))


def test_the_path_is_the_average_of_those_of_each_encoder(dataset: Dataset) -> None:
    config = LinearPathConfig(**LINEAR, dtype="float32")
    train = pairs_of(dataset, open_tokens(dataset, BOTH), "train")
    test = pairs_of(dataset, open_tokens(dataset, BOTH), "test").tokens
    both = fit_each_encoder(train, config, first_fit)
    names = {"pixels:grid4": "pixels", "mosaic:final": "mosaic"}
    parts = [fit_linear_path(replace(train, tokens=train.tokens.only(name)), config) for name in names]
    unseen = [part.out_of_fold for part in parts]
    shares, average = stacked(unseen, train.repeat_means(), parts[0].folds, COMMON)
    expected = sum(share * part.path.predict(test) for share, part in zip(shares, parts, strict=True))
    np.testing.assert_allclose(both.path.predict(test), expected, atol=1e-4)
    np.testing.assert_allclose(both.out_of_fold, average)
    weights = [both.path.about[f"weight_of_{name}"] for name in names.values()]
    assert sum(weights) == pytest.approx(1)
    alone = fit_each_encoder(replace(train, tokens=train.tokens.only("pixels:grid4")), config, first_fit)
    np.testing.assert_array_equal(alone.path.predict(test), parts[0].path.predict(test))


def test_an_encoder_that_tells_nothing_gets_little_weight(dataset: Dataset) -> None:
    tokens = open_tokens(dataset, BOTH)
    noise = np.random.default_rng(0).standard_normal(tokens.layers["mosaic:final"].shape)
    tokens = replace(tokens, layers={**tokens.layers, "mosaic:final": noise.astype(np.float32)})
    train = pairs_of(dataset, tokens, "train")
    test = pairs_of(dataset, tokens, "test")
    both = fit_each_encoder(train, LinearPathConfig(**LINEAR), first_fit)
    assert both.path.about["weight_of_mosaic"] < 0.2
    good = fit_linear_path(
        replace(train, tokens=train.tokens.only("pixels:grid4")), LinearPathConfig(**LINEAR)
    )
    measured = test.repeat_means()
    lost = voxel_r(good.path.predict(test.tokens), measured) - voxel_r(
        both.path.predict(test.tokens), measured
    )
    assert lost.mean() < 0.02


def test_a_run_on_both_predicts_pictures_and_opens_again(dataset: Dataset, tmp_path: Path) -> None:
    options = TrainOptions.model_validate({"encoder": BOTH, **NO_NETWORKS})
    model = synbrain.train([dataset], options, out=tmp_path / "run")
    assert isinstance(model.report, TrainingReport)
    assert model.config.linear_layers == ("pixels:grid4", "mosaic:final")
    opened = SynBrain.from_pretrained(tmp_path / "run")
    images = [dataset.load_image(row) for row in (40, 41)]
    stored = open_tokens(dataset, BOTH).take(np.array([40, 41]))
    np.testing.assert_allclose(opened.predict(images), opened.predict(stored), atol=1e-5)
    assert opened.sample(images, 2).shape == (2, 2, dataset.n_voxels)
    scores = tmp_path / "scores.json"
    words = ["evaluate", str(tmp_path / "run"), str(dataset.path), "--samples", "19", "--out", str(scores)]
    assert main(words) == 0
    assert scores.exists()


def test_base_runs_of_two_encoders_are_adapted_together(dataset: Dataset, tmp_path: Path) -> None:
    def base(encoder: str) -> SynBrain:
        return synbrain.train([dataset], TrainOptions.model_validate({"encoder": encoder, **NO_NETWORKS}))

    one, other, new = base("pixels"), base("mosaic"), recorded(tmp_path / "new", seed=1)
    few = AdaptOptions.model_validate({"budget": 20, "by": "images", "networks": False, "linear": LINEAR})
    model = synbrain.adapt(one, new, few, also=[other], out=tmp_path / "run")
    assert model.config.encoder == BOTH
    assert model.config.linear_layers == ("pixels:grid4", "mosaic:final")
    path = model.subject().linear
    assert path is not None
    assert path.about["weight_of_pixels"] + path.about["weight_of_mosaic"] == pytest.approx(1)
    opened = SynBrain.from_pretrained(tmp_path / "run")
    assert opened.predict([new.load_image(50)]).shape == (1, new.n_voxels)
    test = pairs_of(new, open_tokens(new, BOTH), "test")
    single = synbrain.adapt(one, new, few)
    measured = test.repeat_means()
    alone = voxel_r(single.predict(pairs_of(new, open_tokens(new, "pixels"), "test").tokens), measured).mean()
    assert voxel_r(model.predict(test.tokens), measured).mean() > alone - 0.05
    with pytest.raises(SynBrainError, match="one run for each encoder"):
        synbrain.adapt(one, new, few, also=[base("pixels")])
    folders = {name: run.save_pretrained(tmp_path / name) for name, run in (("one", one), ("other", other))}
    words = ["adapt", str(folders["one"]), str(new.path), "--also", str(folders["other"]), "--budget=20"]
    words += [
        "--by=images",
        "--networks=false",
        "--linear.n-folds=3",
        "--linear.windows=0",
        "--linear.blur=0",
    ]
    assert main([*words, "--out", str(tmp_path / "typed")]) == 0
    typed = SynBrain.from_pretrained(tmp_path / "typed")
    np.testing.assert_allclose(typed.predict(test.tokens), model.predict(test.tokens), atol=1e-4)


def test_a_base_on_both_encoders_is_a_prior_too(tmp_path: Path) -> None:
    """Its paths read both, so that they were a prior for neither encoder, and nothing was said."""
    stimuli = np.random.default_rng(0)
    layers = {
        "pixels:grid4": stimuli.normal(size=(400, 4, 15)),
        "mosaic:final": stimuli.normal(2, 1, (400, 30)),
    }
    layers["mosaic:final"] = layers["mosaic:final"][:, None]
    shared = [stimuli.normal(size=(of[0].size, 6)) for of in layers.values()]
    source = sum(of.reshape(400, -1) @ way for of, way in zip(layers.values(), shared, strict=True)) / 9

    def subject(name: str, seed: int, rows: np.ndarray, noise: float = 1.0) -> TrainingSubject:
        rng = np.random.default_rng(seed)
        means = source @ rng.normal(size=(6, 11))
        tokens = TokenSet("pixels+mosaic", "d", {k: of.astype(np.float32) for k, of in layers.items()}, rows)
        trials = (means[rows] + noise * rng.normal(size=(len(rows), 11))).astype(np.float32)
        each = np.arange(len(rows))
        return TrainingSubject(name, Pairs(tokens, trials, each, each), VoxelSpace(11), "z")

    config = overridden(recipe("calibrated"), {"linear": LINEAR, "response_noise": False})
    place = LinearPlace(processes_on("cpu"), tmp_path)
    base = subject("base", 1, np.arange(250))
    of_base = fit_linear(base, config, NO_PRIOR, place)
    assert of_base is not None
    space = response_space([BasePath(of_base.path, base.pairs.repeat_means().std(axis=0))])
    new, test = subject("new", 2, np.arange(250, 270)), subject("new", 2, np.arange(300, 400), noise=0.0)
    scratch, prior = (fit_linear(new, config, Prior(of), place) for of in (None, space))
    assert scratch is not None
    assert prior is not None
    assert prior.path.about["base_subjects"] == 1
    assert set(prior.path.layers) == set(layers)
    wanted = test.pairs.repeat_means()
    reached = [voxel_r(fit.path.predict(test.pairs.tokens), wanted).mean() for fit in (scratch, prior)]
    assert reached[1] > reached[0] + 0.1


def test_a_base_on_several_encoders_joins_another(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The digest of two encoders says nothing of each: the three were refused, whatever their weights."""
    monkeypatch.setitem(encoders.ENCODERS, "third", pixels)
    new = recorded(tmp_path / "new", seed=1)
    for each in (dataset, new):
        make_tokens(each, FeatureOptions(encoder="third", layers=["final"], device="cpu"))
    linear: dict[str, Any] = {"networks": False, "linear": LINEAR}
    both, third = (
        synbrain.train([dataset], TrainOptions.model_validate({"encoder": encoder, **linear}))
        for encoder in (BOTH, "third")
    )
    asked = AdaptOptions.model_validate({"budget": 20, "by": "images", **linear})
    model = synbrain.adapt(both, new, asked, also=[third])
    assert model.config.encoder == "pixels+mosaic+third"
    assert model.config.encoder_digest == open_tokens(new, "pixels+mosaic+third").digest
    other = SynBrain(third.config.model_copy(update={"encoder_digest": "0" * 64}), third.subjects)
    with pytest.raises(SynBrainError, match="weights of third"):
        synbrain.adapt(both, new, asked, also=[other])
    unknown = SynBrain(both.config.model_copy(update={"encoder_digest": ""}), both.subjects)
    with pytest.raises(SynBrainError, match="weights of third"):
        synbrain.adapt(unknown, new, asked, also=[other])


def test_networks_of_the_first_base_are_trained_further(dataset: Dataset, tmp_path: Path) -> None:
    train: dict[str, Any] = {"vae": {"epochs": 1}, "mapper": {"steps": 2, "round_steps": 2}, "linear": LINEAR}
    one = synbrain.train([dataset], TrainOptions.model_validate({"encoder": "pixels", **train}))
    other = synbrain.train([dataset], TrainOptions.model_validate({"encoder": "mosaic", **train}))
    new = recorded(tmp_path / "new", seed=1)
    asked = AdaptOptions.model_validate({"budget": 20, "by": "images", **train})
    model = synbrain.adapt(one, new, asked, also=[other])
    assert model.config.mapper_layer == "pixels:grid4"
    assert model.predict([new.load_image(50)]).shape == (1, new.n_voxels)


def test_a_linear_path_may_read_more_layers_than_the_base(dataset: Dataset) -> None:
    make_tokens(dataset, FeatureOptions(encoder="pixels", layers=["final"], device="cpu"))
    base = synbrain.train(
        [dataset], TrainOptions.model_validate({"encoder": "pixels", "layers": ["grid4"], **NO_NETWORKS})
    )
    options = AdaptOptions.model_validate({"budget": "all", "networks": False, "linear": LINEAR})
    assert synbrain.adapt(base, dataset, options).config.linear_layers == ("grid4",)
    more = synbrain.adapt(base, dataset, options.model_copy(update={"layers": ["final"]}))
    assert set(more.config.linear_layers) == {"grid4", "final"}


def test_tuned_rows_of_any_encoder_are_left_out(dataset: Dataset) -> None:
    from synbrain.features.joint import joint_tokens

    def of(encoder: str, tuned: list[int] | None) -> TokenSet:
        rows = None if tuned is None else np.array(tuned)
        return replace(open_tokens(dataset, encoder), tuned=rows)

    joint = joint_tokens([of("pixels", None), of("mosaic", [2, 5])])
    assert joint.tuned is not None
    assert joint.tuned.tolist() == [2, 5]
    with pytest.raises(SynBrainError, match="tuned on training images"):
        pairs_of(dataset, joint, "train")
