"""Adaptation: the prior helps with little data, parts that were not chosen stay, the guard refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import synbrain
from fixtures.training import MICRO
from synbrain.data.dataset import Dataset, load_dataset
from synbrain.data.marks import unpacked
from synbrain.data.space import VoxelSpace
from synbrain.errors import SynBrainError
from synbrain.features.encoders import get_encoder
from synbrain.features.store import open_tokens, write_tokens
from synbrain.features.tokens import Pairs, TokenSet, pairs_of
from synbrain.linear.config import LinearPathConfig
from synbrain.linear.fit import fit_linear_path
from synbrain.linear.prior import fit_with_prior, response_space
from synbrain.metrics.voxel import voxel_r
from synbrain.model.parts import SubjectPart
from synbrain.model.synbrain import SynBrain
from synbrain.networks.mapper import Mapper, MapperConfig
from synbrain.networks.presets import PRESETS
from synbrain.noise.config import NoiseConfig
from synbrain.noise.fit import fit_response_noise
from synbrain.noise.prior import fit_noise_with_prior
from synbrain.prepare.table import prepare_table
from synbrain.training.adapt import adapt, new_subject
from synbrain.training.leakage import adaptation_images, training_images
from synbrain.training.networks import updated_parameters
from synbrain.training.options import AdaptOptions, TrainOptions
from synbrain.training.train import train

FEW: dict[str, Any] = {
    "vae": {"epochs": 1, "batch_size": 8},
    "mapper": {"steps": 4, "round_steps": 2, "batch_size": 8},
    "linear": {"n_folds": 3, "windows": 0, "blur": 0.0},
    "validation_fraction": 0.2,
}


def recorded(folder: Path, n_voxels: int, first: int, test: set[int], n_repeats: int = 2) -> Dataset:
    """Pictures ``first`` ... ``first + 23``, told by content, of which ``test`` are held out."""
    (folder / "images").mkdir(parents=True)
    lines, responses = ["image,repeat,split"], []
    rng = np.random.default_rng(n_voxels)
    for place in range(24):
        picture = first + place
        colours = np.random.default_rng(picture).integers(0, 255, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(colours).resize((32, 32)).save(folder / "images" / f"{place}.png")
        for repeat in range(n_repeats):
            lines.append(f"{place}.png,{repeat},{'test' if picture in test else 'train'}")
            responses.append(colours.reshape(-1)[:n_voxels] / 100 + rng.standard_normal(n_voxels) / 2)
    (folder / "trials.csv").write_text("\n".join(lines) + "\n")
    np.save(folder / "responses.npy", np.array(responses, dtype=np.float32))
    prepare_table(folder, folder / "dataset")
    dataset = load_dataset(folder / "dataset")
    write_tokens(dataset, get_encoder("pixels"), ["grid4"])
    return load_dataset(folder / "dataset")


@pytest.fixture(scope="module")
def new(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return recorded(tmp_path_factory.mktemp("new"), 7, 100, set(range(118, 124)))


@pytest.fixture(scope="module")
def base_dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return recorded(tmp_path_factory.mktemp("base"), 5, 0, set(range(18, 24)))


@pytest.fixture(scope="module")
def base(base_dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> SynBrain:
    """A calibrated run of another subject with 5 voxels that was trained on pictures 0 to 17."""
    options = TrainOptions.model_validate({**FEW, "preset": "micro", "encoder": "pixels"})
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(PRESETS, "micro", MICRO)
        return train([base_dataset], options, out=tmp_path_factory.mktemp("base") / "run")


def few(**given: Any) -> AdaptOptions:
    """A short adaptation on all training images, unless another budget is given."""
    return AdaptOptions.model_validate({"budget": "all", **FEW, **given})


def toy(seed: int, n_images: int, n_voxels: int, n_repeats: int = 1, noise: float = 1.0) -> Pairs:
    """Responses through six directions of token space that all subjects share, other voxels each time."""
    shared = np.random.default_rng(99).standard_normal((60, 6))
    rng = np.random.default_rng(seed)
    stored = rng.standard_normal((n_images, 4, 15)).astype(np.float32)
    mean = stored.reshape(n_images, -1) @ shared @ rng.standard_normal((6, n_voxels)) / 8
    image = np.repeat(np.arange(n_images), n_repeats)
    responses = (mean[image] + noise * rng.standard_normal((len(image), n_voxels))).astype(np.float32)
    tokens = TokenSet("toy", "digest", {"final": stored}, np.arange(n_images))
    return Pairs(tokens, responses, np.arange(len(image)), image)


PLAIN = LinearPathConfig(n_folds=4, windows=0, blur=0.0, dtype="float32")


def toy_part(seed: int, n_images: int, n_voxels: int, n_repeats: int = 1) -> SubjectPart:
    pairs = toy(seed, n_images, n_voxels, n_repeats)
    fit = fit_linear_path(pairs, PLAIN)
    y = pairs.trial_responses()
    noise = fit_response_noise(pairs, fit.out_of_fold, NoiseConfig(factors=(0,)))
    return SubjectPart(
        f"s{seed}", VoxelSpace(n_voxels), "z", y.mean(axis=0), y.std(axis=0), linear=fit.path, noise=noise
    )


@pytest.mark.parametrize("n_images", [15, 40])
def test_the_prior_helps_where_data_are_few_although_no_voxel_and_no_image_is_shared(n_images: int) -> None:
    space = response_space([toy_part(1, 300, 9).as_base, toy_part(2, 300, 14).as_base])
    assert space is not None
    few, test = toy(3, n_images, 11), toy(3, 400, 11, noise=0.0)
    few = toy(3, 400, 11).take(np.arange(n_images))
    test = test.take(np.arange(200, 400))
    with_prior = fit_with_prior(few, space, PLAIN).path.predict(test.tokens)
    scratch = fit_linear_path(few, PLAIN).path.predict(test.tokens)
    wanted = test.repeat_means()
    assert voxel_r(with_prior, wanted).mean() > voxel_r(scratch, wanted).mean() + 0.1


def test_a_base_that_knows_nothing_does_not_hurt_where_data_are_many() -> None:
    rng = np.random.default_rng(0)
    part = toy_part(1, 40, 9)
    assert part.linear is not None
    noise = {k: rng.standard_normal(p.shape).astype(p.dtype) for k, p in part.linear.projections.items()}
    object.__setattr__(part.linear, "projections", noise)
    space = response_space([part.as_base])
    assert space is not None
    pairs = toy(3, 400, 11)
    train, test = pairs.take(np.arange(200)), toy(3, 400, 11, noise=0.0).take(np.arange(200, 400))
    found = fit_with_prior(train, space, PLAIN).path.predict(test.tokens)
    scratch = fit_linear_path(train, PLAIN).path.predict(test.tokens)
    wanted = test.repeat_means()
    assert voxel_r(found, wanted).mean() > voxel_r(scratch, wanted).mean() - 0.02


def test_features_of_the_space_have_the_kernel_of_the_base_predictions() -> None:
    parts = [toy_part(1, 60, 9), toy_part(2, 60, 14)]
    space = response_space([part.as_base for part in parts])
    assert space is not None
    tokens = toy(5, 20, 3).tokens
    features = space.features(tokens)
    predictions = []
    for part in parts:
        assert part.linear is not None
        predictions.append((part.linear.predict(tokens) - part.linear.intercept) / part.response_sd)
    direct = np.concatenate(predictions, axis=1)
    np.testing.assert_allclose(features @ features.T, direct @ direct.T, rtol=1e-3, atol=1e-4)
    weights = np.random.default_rng(0).standard_normal((space.dim, 2))
    folded = tokens.read("final").reshape(20, -1) @ space.weights(weights)["final"]
    np.testing.assert_allclose(folded, features @ weights, rtol=1e-3, atol=1e-3)


def test_out_of_fold_predictions_find_nothing_in_noise() -> None:
    space = response_space([toy_part(1, 100, 9).as_base])
    assert space is not None
    pairs = toy(3, 40, 30)
    noise = np.random.default_rng(1).standard_normal(pairs.responses.shape).astype(np.float32)
    fit = fit_with_prior(Pairs(pairs.tokens, noise, pairs.trials, pairs.image_of_trial), space, PLAIN)
    assert voxel_r(fit.out_of_fold, noise).mean() < 0.1
    assert voxel_r(fit_with_prior(pairs, space, PLAIN).out_of_fold, pairs.responses).mean() > 0.2


def test_noise_without_repeats_is_divided_as_the_base_divides_it() -> None:
    base = [toy_part(1, 120, 9, n_repeats=3).noise]
    single = toy(3, 120, 11)
    fit = fit_linear_path(single, PLAIN)
    config = NoiseConfig(factors=(0,))
    alone = fit_response_noise(single, fit.out_of_fold, config)
    noise = fit_noise_with_prior(single, fit.out_of_fold, config, base)
    assert alone.record.source == "residuals"
    assert noise.record.source == "base subjects"
    # the true trial variance is 1; residuals hold the errors of the mean as well
    assert abs(noise.noise_variance.mean() - 1) < abs(alone.noise_variance.mean() - 1)
    repeated = toy(3, 60, 11, n_repeats=2)
    mean = fit_linear_path(repeated, PLAIN).out_of_fold
    assert fit_noise_with_prior(repeated, mean, config, base).record.source == "repeats"


def test_the_published_update_is_177_million_parameters_of_the_mapper() -> None:
    with torch.device("meta"):
        mapper = Mapper(MapperConfig())
    sizes = {name: p.numel() for name, p in mapper.named_parameters()}
    count = {
        u: sum(sizes[n] for n in updated_parameters(mapper, u)) for u in ("mlp", "attention", "all", "none")
    }
    assert round(count["mlp"] / 1e6, 1) == 177.3
    assert round(count["all"] / 1e6, 1) == 410.4
    assert count["attention"] == 8 * 4 * (1664 * 1664 + 1664)
    assert count["none"] == 0


@pytest.mark.parametrize("update", ["mlp", "attention", "all", "none"])
def test_what_was_not_chosen_stays_and_the_base_too(update: Any, base: SynBrain, new: Dataset) -> None:
    assert base.mapper is not None
    assert base.vae is not None
    before = {n: t.clone() for n, t in [*base.mapper.state_dict().items(), *base.vae.state_dict().items()]}
    done = adapt(base, new, few(update=update))
    record = done.config.adaptation
    assert record is not None
    after = dict([*base.mapper.state_dict().items(), *base.vae.state_dict().items()])
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert done.mapper is not None
    assert done.vae is not None
    chosen = updated_parameters(base.mapper, update)
    old = dict(base.mapper.named_parameters())
    moved = {n for n, p in done.mapper.named_parameters() if not torch.equal(p, old[n])}
    assert moved == chosen
    assert record.updated_parameters["mapper"] == sum(old[n].numel() for n in chosen)
    assert record.updated_parameters["vae"] == sum(p.numel() for p in base.vae.parameters())
    whole = dict(base.vae.named_parameters())
    still = [n for n, p in done.vae.named_parameters() if torch.equal(p, whole[n])]
    assert not still, "the VAE is trained whole"


def test_the_adapted_run_loads_alone(base: SynBrain, new: Dataset, tmp_path: Path) -> None:
    model = adapt(base, new, few(budget=10, by="images", networks=False, seed=1))
    model.save_pretrained(tmp_path / "run")
    loaded = SynBrain.from_pretrained(tmp_path / "run")
    tokens = open_tokens(new, "pixels")
    np.testing.assert_array_equal(loaded.predict(tokens), model.predict(tokens))
    assert loaded.subject().n_voxels == 7
    assert loaded.vae is None
    held_out = loaded.subject().held_out
    assert held_out is not None
    assert set(map(bytes, held_out.marks)) <= unpacked(loaded.config.trained_images)
    assert loaded.config.adaptation is not None
    assert loaded.config.adaptation.n_images == len(held_out.scores) == 10
    assert loaded.config.adaptation.updated_parameters == {"vae": 0, "mapper": 0}
    assert loaded.report == model.report is not None


def test_validation_images_come_out_of_the_budget(base: SynBrain, new: Dataset) -> None:
    options = few(budget=10, by="images")
    pairs = new_subject(base, new, open_tokens(new, "pixels"), options).pairs
    assert (pairs.n_images, pairs.n_trials) == (10, 20)
    assert set(pairs.tokens.rows.tolist()) <= set(new.image_rows("train").tolist())
    adapted = adapt(base, new, options)
    assert adapted.report is not None
    assert adapted.report.subjects[new.info.subject].n_validation_images == 2, "a fifth of the budget"


def test_images_that_are_left_out_are_not_seen(base: SynBrain, new: Dataset) -> None:
    whole, part = (
        adapt(base, new, few(budget=10, by="images", networks=False, leave_out=share)) for share in (0.0, 0.2)
    )
    seen = [unpacked(model.config.trained_images) for model in (whole, part)]
    assert seen[1] < seen[0]
    assert len(seen[0] - seen[1]) == 2
    assert part.config.adaptation is not None
    assert (part.config.adaptation.n_images, part.config.adaptation.n_trials) == (8, 16)


def test_a_test_image_of_a_base_subject_is_refused_or_dropped(base: SynBrain, tmp_path: Path) -> None:
    # pictures 18 to 23 were the base's test images; here they are 14 training images' neighbours
    dataset = recorded(tmp_path / "overlap", 6, 18, {40, 41})
    with pytest.raises(SynBrainError, match=r"6 images .*--shared-test-images drop"):
        adapt(base, dataset, few(networks=False))
    done = adapt(base, dataset, few(networks=False, shared_test_images="drop"))
    assert done.config.adaptation is not None
    assert done.config.adaptation.n_images == 22 - 6


def test_a_base_that_trained_on_the_new_test_images_is_refused(
    base: SynBrain, base_dataset: Dataset, tmp_path: Path
) -> None:
    dataset = recorded(tmp_path / "overlap", 6, 10, {10, 11})
    with pytest.raises(SynBrainError, match=r"trained on 2 test images .*--keep-out"):
        adapt(base, dataset, few(networks=False))
    (kept,) = training_images([base_dataset], "refuse", [dataset])
    assert len(base_dataset.image_rows("train")) - len(kept.rows) == len(kept.rows) - 14 == 2


def test_the_new_subjects_own_test_images_are_refused(base: SynBrain, new: Dataset) -> None:
    with pytest.raises(SynBrainError, match=r"1 image to train on is a test image"):
        adaptation_images(base, new, new.image_rows("test")[:1])


def test_an_adapted_run_remembers_the_images_of_base_and_subject(
    base: SynBrain, new: Dataset, base_dataset: Dataset
) -> None:
    model = adapt(base, new, few(networks=False))
    adaptation_images(model, new, new.image_rows("train")[:0])
    config = base.config.model_copy(update={"test_images": model.config.trained_images})
    kept_from = SynBrain(config, base.subjects, base.vae, base.mapper)
    with pytest.raises(SynBrainError, match="test images of the base run"):
        adaptation_images(kept_from, base_dataset, base_dataset.image_rows("train"))


def test_a_base_without_anything_linear_needs_its_networks(base: SynBrain, new: Dataset) -> None:
    import dataclasses

    bare = {name: dataclasses.replace(p, linear=None, noise=None) for name, p in base.subjects.items()}
    reference = SynBrain(base.config.model_copy(update={"linear_layers": ()}), bare, base.vae, base.mapper)
    with pytest.raises(SynBrainError, match="nothing would be left to adapt"):
        adapt(reference, new, few(networks=False))
    done = adapt(reference, new, few())
    assert done.subject().linear is None
    assert np.isfinite(done.predict(pairs_of(new, open_tokens(new, "pixels"), "test").tokens)).all()


def test_a_folded_base_keeps_its_mapper_or_is_refused(base: SynBrain, new: Dataset) -> None:
    assert base.mapper is not None
    folded = SynBrain(base.config, base.subjects, base.vae, base.mapper).fold()
    with pytest.raises(SynBrainError, match=r"folded for inference.*without fold=True"):
        adapt(folded, new, few(update="mlp"))
    done = adapt(folded, new, few(update="none"))
    assert done.mapper is not None
    assert done.mapper.config.modulation == "folded"
    assert base.mapper.config.modulation == "timestep"


def test_the_public_face_trains_adapts_and_keeps_what_it_was_asked_to(
    base_dataset: Dataset, new: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PRESETS, "micro", MICRO)
    options = TrainOptions.model_validate({**FEW, "preset": "micro", "encoder": "pixels", "seed": 2})
    model = synbrain.train([base_dataset], options)
    assert model.report is not None
    assert model.report.subjects[base_dataset.info.subject].n_validation_images == 4, (
        "a fifth of 18 training images"
    )
    adapted = synbrain.adapt(model, new, few(), out=tmp_path / "adapted")
    loaded = SynBrain.from_pretrained(tmp_path / "adapted")
    assert loaded.report == adapted.report
    assert loaded.digest != model.digest == ""
    assert sorted(p.name for p in (tmp_path / "adapted" / "training").iterdir()) == [
        "config.json",
        "log.jsonl",
    ]
    with pytest.raises(SynBrainError, match="--overwrite"):
        synbrain.adapt(model, new, few(), out=tmp_path / "adapted")
