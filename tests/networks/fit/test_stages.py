"""Both stages: what the losses are, where targets come from, and each published quirk, on and off."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from synbrain.errors import SynBrainError
from synbrain.networks.config import MapperStageConfig, VAELossConfig, VAEStageConfig
from synbrain.networks.fit.batches import StageSetup, SubjectData
from synbrain.networks.fit.mapper import MapperStep, network_part, train_mapper
from synbrain.networks.fit.metrics_log import LOG_NAME, read_log
from synbrain.networks.fit.targets import posterior_means
from synbrain.networks.fit.vae import VAEStep, train_vae, validation_error
from synbrain.networks.presets import Preset
from synbrain.training.recipes import RECIPES, recipe

VAE = VAEStageConfig(
    lr=3e-3, batch_size=8, epochs=2, stop="never", log_every=1,
    loss=VAELossConfig(reconstruction="mean", kl_weight=1e-4, clip_weight=0.1, contrast_batch="gathered"),
)  # fmt: skip
MAPPER = MapperStageConfig(lr=3e-3, batch_size=8, steps=30, round_steps=15, stop="never", log_every=1)
Make = Callable[..., Any]


def step_of(networks: Make, **loss: Any) -> VAEStep:
    return VAEStep(networks()[0], VAEStageConfig(loss=VAELossConfig(**loss)))


def batch(n_voxels: int = 6, n: int = 4) -> dict[str, torch.Tensor]:
    made = torch.Generator().manual_seed(0)
    shapes = {"responses": (n, n_voxels), "tokens": (n, 3, 8), "noise": (n, 3, 8)}
    return {name: torch.randn(*shape, generator=made) for name, shape in shapes.items()}


@settings(max_examples=10)
@given(copies=st.integers(2, 5))
def test_the_loss_per_voxel_does_not_grow_with_the_voxels(copies: int) -> None:
    """A subject whose voxels are all there several times has the same loss: the reduction is a mean."""
    from synbrain.networks.losses import reconstruction

    generator = torch.Generator().manual_seed(copies)
    guess, wanted = torch.randn(2, 4, 7, generator=generator)
    one = reconstruction(guess, wanted, "mean")
    many = reconstruction(guess.repeat(1, copies), wanted.repeat(1, copies), "mean")
    assert float(many) == pytest.approx(float(one), rel=1e-5)


def test_the_loss_of_a_subject_does_not_depend_on_the_others(networks: Make, subject: Make) -> None:
    vae = networks()[0]
    small, large = subject("a", n_voxels=5), subject("b", n_voxels=50, seed=1)
    alone = validation_error(vae, small, torch.device("cpu"), 8)
    validation_error(vae, large, torch.device("cpu"), 8)
    assert validation_error(vae, small, torch.device("cpu"), 8) == alone
    errors = [alone, validation_error(vae, large, torch.device("cpu"), 8)]
    assert max(errors) < 3 * min(errors), "per voxel, 5 and 50 voxels are on one scale"


def test_vae_training_lowers_the_held_out_error(networks: Make, subject: Make, common: Any) -> None:
    vae, data = networks()[0], subject()
    before = validation_error(vae, data, torch.device("cpu"), 8)
    train_vae(vae, VAE.model_copy(update={"epochs": 10}), StageSetup([data], **common))
    assert validation_error(vae, data, torch.device("cpu"), 8) < before


def test_several_subjects_share_one_network(networks: Make, subject: Make, common: Any) -> None:
    vae, mapper = networks()
    subjects = [subject("a", n_voxels=5), subject("b", n_voxels=9, seed=1)]
    setup = StageSetup(subjects, **{**common, "weights": [1.0, 1.0]})
    train_vae(vae, VAE, setup)
    config = MAPPER.model_copy(update={"response_weight": 1.0, "latent_weight": 0.1})
    train_mapper(mapper, vae, config, setup)
    rows = read_log(common["folder"] / LOG_NAME)
    assert all({"score/a", "score/b"} <= row.keys() for row in rows if row["split"] == "validation")
    for data in subjects:
        part = network_part(mapper, vae, data, "final", torch.device("cpu"), 8)
        assert part.shape == (data.validation.n_images, data.train.n_voxels)


# --- stage 2 -------------------------------------------------------------------------------------------


def test_a_folded_mapper_is_not_trained(networks: Make, subject: Make, common: Any) -> None:
    vae, mapper = networks()
    with pytest.raises(SynBrainError, match=r"folded for inference.*without fold=True"):
        train_mapper(mapper.fold(), vae, MAPPER, StageSetup([subject()], **common))
    assert not (common["folder"] / "mapper").exists()


@pytest.mark.parametrize("per_trial", [False, True])
def test_targets_are_posterior_means_made_once(
    per_trial: bool, networks: Make, subject: Make, common: Any
) -> None:
    vae, data = networks()[0], subject()
    path = common["folder"] / "targets.npy"
    made = posterior_means(
        vae, data, per_trial=per_trial, path=path, accelerator=common["accelerator"], batch_size=7
    )
    with torch.no_grad():
        each = vae.encode(torch.from_numpy(data.scale.scaled(data.train.trial_responses()))).mean.numpy()
    images = [each[data.train.image_of_trial == i].mean(axis=0) for i in range(data.train.n_images)]
    assert np.allclose(made, each if per_trial else images, atol=2e-3)
    time_of_first = path.stat().st_mtime_ns
    posterior_means(
        vae, data, per_trial=per_trial, path=path, accelerator=common["accelerator"], batch_size=7
    )
    assert path.stat().st_mtime_ns == time_of_first


def test_stored_and_reencoded_targets_give_the_same_losses(
    networks: Make, subject: Make, common: Any
) -> None:
    """Quirk: the published code encodes each batch again in every step; the numbers are the same."""
    logs = {}
    for kind in ("trial", "reencode"):
        vae, mapper = networks()
        here = {**common, "folder": common["folder"] / kind}
        here["log"] = type(common["log"])(here["folder"])
        config = MAPPER.model_copy(update={"targets": kind})
        train_mapper(mapper, vae, config, StageSetup([subject()], **here))
        logs[kind] = [r["loss"] for r in read_log(here["folder"] / LOG_NAME) if r["split"] == "train"]
    assert np.allclose(logs["trial"], logs["reencode"], rtol=2e-3)  # float16 storage


def test_averaged_targets_are_the_same_objective_in_expectation(networks: Make, subject: Make) -> None:
    """Gradients over all trials and over all images agree, where images have as many repeats."""
    vae, mapper = networks()
    torch.nn.init.normal_(mapper.final.weight, std=0.1)
    data: SubjectData = subject(n_repeats=3)
    with torch.no_grad():
        each = vae.encode(torch.from_numpy(data.scale.scaled(data.train.trial_responses()))).mean
    images = torch.from_numpy(data.train.image_of_trial)
    tokens = torch.from_numpy(data.train.tokens.read("final"))
    mean = torch.zeros(data.train.n_images, 3, 8).index_add_(0, images, each) / 3
    gradients = []
    for inputs, target in ((tokens[images], each), (tokens, mean)):
        mapper.zero_grad()
        MapperStep(mapper, vae, MAPPER)(inputs, target)["loss"].backward()
        gradients.append(torch.cat([p.grad.flatten() for p in mapper.parameters() if p.grad is not None]))
    assert torch.allclose(gradients[0], gradients[1], atol=1e-6)


def test_the_offset_is_added_before_the_error(networks: Make) -> None:
    vae, mapper = networks()
    config = MapperStageConfig(latent_weight=0.0, response_weight=1.0)
    step = MapperStep(mapper, vae, config).eval()
    tokens, response = torch.randn(4, 3, 8), torch.randn(4, 6)
    with torch.no_grad():
        decoded = vae.decode(mapper(tokens), 6)
        perfect = step(tokens, response=response, offset=response - decoded)["loss"]
    assert float(perfect) == pytest.approx(0.0, abs=1e-10)


@pytest.mark.parametrize("kind", ["frozen", "finetune"])
def test_the_decoder_is_trained_only_where_asked(
    kind: str, networks: Make, subject: Make, common: Any
) -> None:
    vae, mapper = networks()
    before = {name: p.detach().clone() for name, p in vae.named_parameters()}
    config = MAPPER.model_copy(update={"response_weight": 1.0, "decoder": kind})
    train_mapper(mapper, vae, config, StageSetup([subject()], **common))
    moved = {name.split(".")[0] for name, p in vae.named_parameters() if not torch.equal(p, before[name])}
    assert moved == (set() if kind == "frozen" else {"decoder", "post"})


def test_tokens_are_disturbed_in_training_only(networks: Make) -> None:
    vae, mapper = networks()
    torch.nn.init.normal_(mapper.final.weight)
    step = MapperStep(mapper, vae, MapperStageConfig(token_dropout=0.5, token_noise=0.5))
    tokens, target = torch.randn(4, 3, 8), torch.randn(4, 3, 8)
    losses = {float(step(tokens, target)["loss"].detach()) for _ in range(3)}
    assert len(losses) == 3
    step.eval()
    assert len({float(step(tokens, target)["loss"].detach()) for _ in range(3)}) == 1


# --- quirks of the published recipe, each in both settings ---------------------------------------------


def test_quirk_summed_or_mean_error(networks: Make) -> None:
    one = batch(6)
    summed = step_of(networks, reconstruction="sum")(**one)["reconstruction"]
    mean = step_of(networks, reconstruction="mean")(**one)["reconstruction"]
    assert float(summed) == pytest.approx(6 * float(mean), rel=1e-5)


def test_quirk_contrast_on_sample_or_mean(networks: Make) -> None:
    quiet, loud = batch(), batch()
    loud["noise"] = loud["noise"] * 10
    for kind, moves in (("sample", True), ("mean", False)):
        step = step_of(networks, contrast_on=kind)
        a, b = float(step(**quiet)["contrastive"]), float(step(**loud)["contrastive"])
        assert (a != b) is moves


def test_quirk_contrast_within_replicas_or_the_batch(networks: Make) -> None:
    one = batch(n=8)
    halves = [{name: tensor[part] for name, tensor in one.items()} for part in (slice(0, 4), slice(4, 8))]
    gathered = step_of(networks, contrast_batch="gathered")
    replica = step_of(networks, contrast_batch="replica", replicas=2)
    apart = float(torch.stack([gathered(**half)["contrastive"] for half in halves]).mean())
    assert float(replica(**one)["contrastive"]) == pytest.approx(apart, rel=1e-5)
    assert float(gathered(**one)["contrastive"]) > apart + 0.1  # more to tell apart


def test_quirk_target_is_the_mean_or_a_sample(networks: Make) -> None:
    vae, mapper = networks()
    trial, noise = torch.randn(4, 6), torch.ones(4, 3, 8)
    posterior = vae.encode(trial)
    for kind, wanted in (("mean", posterior.mean), ("sample", posterior.at(noise))):
        config = MapperStageConfig(targets="reencode", target=kind)
        loss = MapperStep(mapper, vae, config)(torch.randn(4, 3, 8), trial=trial, noise=noise)["loss"]
        assert float(loss) == pytest.approx(float(wanted.square().mean()), rel=1e-4)  # mapper starts at 0
    with pytest.raises(ValueError, match="reencode"):
        MapperStageConfig(target="sample")


@pytest.mark.parametrize("kind", ["trials", "image_mean"])
def test_quirk_trials_are_samples_or_averaged(kind: str, networks: Make, subject: Make, common: Any) -> None:
    config = VAE.model_copy(update={"responses": kind, "epochs": 1, "batch_size": 4})
    at = train_vae(networks()[0], config, StageSetup([subject(n_images=20, n_repeats=2)], **common))
    assert at.step == {"trials": 8, "image_mean": 4}[kind]  # 16 images are left after holding out


def test_the_reference_recipe_is_the_published_training() -> None:
    config = RECIPES["reference"]
    assert (config.vae.lr, config.vae.weight_decay, config.vae.betas) == (1e-4, 0.05, (0.9, 0.999))
    assert (config.vae.stop, config.vae.stop_threshold, config.vae.epochs) == ("train_threshold", 350, 15)
    assert (config.vae.batch_size, config.vae.loss.replicas, config.vae.keep_stopping_round) == (24, 2, False)
    assert config.vae.loss == VAELossConfig()
    mapper = config.mapper
    assert (mapper.weight_decay, mapper.clip_grad, mapper.precision, mapper.steps) == (0, 1, "fp16", 50_001)
    assert (mapper.ema_decay, mapper.ema_warmup, mapper.target, mapper.stop) == (
        0.9999,
        False,
        "mean",
        "never",
    )
    assert (config.scale, config.linear_path, config.response_noise) == ("raw", False, False)


def test_small_presets_change_only_what_small_data_cannot_use(micro: Preset) -> None:
    small, paper = recipe("reference", preset="tiny"), RECIPES["reference"]
    assert small.vae.stop == "validation"
    assert small.mapper.ema_warmup
    assert small.mapper.precision == "fp32"
    assert recipe("reference", preset="paper-1024").mapper.precision == "fp16"
    assert small.vae.loss == paper.vae.loss
    assert recipe("reference", preset="paper-1024").vae == paper.vae
