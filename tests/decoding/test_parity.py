"""Backbone, losses, prior, a training step and alignment give the original modules' numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from synbrain.decoding.mindeye2.aligner import Aligner, Transfer, dissimilarity
from synbrain.decoding.mindeye2.backbone import (
    Backbone,
    BackboneConfig,
    RidgeLayers,
    folded_state,
    mixer_constant,
)
from synbrain.decoding.mindeye2.losses import (
    Mixing,
    contrastive_loss,
    cosine_schedule,
    mixing_of,
    soft_clip_loss,
)
from synbrain.decoding.mindeye2.prior import DiffusionPrior, prior_weights, sampling_times
from synbrain.decoding.published import PRIOR, prior_sizes
from synbrain.reference.checkpoints import Sizes

Load = Callable[[str], Any]
Same = Callable[..., None]


def ridge_of(fixture: Any) -> RidgeLayers:
    state = fixture.state("ridge.")
    weights = [value for name, value in state.items() if name.endswith("weight")]
    ridge = RidgeLayers([w.shape[1] for w in weights], weights[0].shape[0])
    sizes = [state[f"linears.{i}.weight"].shape[1] for i in range(len(weights))]
    ridge = RidgeLayers(sizes, weights[0].shape[0])
    ridge.load_state_dict(state)
    return ridge


def backbone_of(fixture: Any, sequence: int = 1, blocks: str = "published") -> Backbone:
    state = fixture.state("backbone.")
    dim = state["clip_proj.0.weight"].shape[0]
    numbers = {name.split(".")[1] for name in state if name.startswith("mixer_blocks1.")}
    config = BackboneConfig(
        hidden=state["backbone_linear.weight"].shape[1] // sequence,
        n_blocks=len(numbers),
        tokens=state["backbone_linear.weight"].shape[0] // dim,
        dim=dim,
        blocks=blocks,
        sequence=sequence,
    )
    backbone = Backbone(config).eval()
    backbone.load_state_dict(state if blocks == "published" else folded_state(state, ""))
    return backbone


def prior_of(fixture: Any) -> DiffusionPrior:
    published = {f"{PRIOR}{name}": tensor for name, tensor in fixture.state().items()}
    prior = DiffusionPrior(prior_sizes(published, Sizes(published, Path("the fixture"))))
    prior.load_state_dict(prior_weights(fixture.state()))
    return prior.eval()


@pytest.mark.parametrize("blocks", ["published", "linear"])
def test_the_backbone_and_its_linear_form(parity: Load, same: Same, blocks: str) -> None:
    fixture = parity("decoder")
    ridge, backbone = ridge_of(fixture), backbone_of(fixture, blocks=blocks)
    for i in range(len(ridge.linears)):
        hidden = ridge(fixture[f"subject{i}.voxels"], i)
        tokens, projected = backbone(hidden)
        same(hidden, fixture[f"subject{i}.ridge"])
        same(tokens, fixture[f"subject{i}.backbone"])
        same(projected, fixture[f"subject{i}.clip_voxels"])


def test_what_the_published_blocks_come_to_is_a_constant(parity: Load, same: Same) -> None:
    fixture = parity("decoder")
    same(mixer_constant(fixture.state("backbone."), ""), fixture["mixer_constant"])
    with pytest.raises(ValueError, match="sequence of more than one"):
        mixer_constant(parity("decoder_seq2").state("backbone."), "")


def test_repeats_go_through_the_network_one_by_one(parity: Load, same: Same) -> None:
    fixture = parity("decoder")
    ridge, backbone = ridge_of(fixture), backbone_of(fixture)
    voxels = fixture["repeats.voxels"]
    outputs = [backbone(ridge(voxels[:, k : k + 1])) for k in range(voxels.shape[1])]
    same(torch.stack([o[0] for o in outputs]).mean(0), fixture["repeats.backbone"])
    same(torch.stack([o[1] for o in outputs]).mean(0), fixture["repeats.clip_voxels"])


def test_a_longer_sequence_mixes(parity: Load, same: Same) -> None:
    fixture = parity("decoder_seq2")
    tokens, projected = backbone_of(fixture, sequence=fixture["x"].shape[1])(fixture["x"])
    same(tokens, fixture["backbone"])
    same(projected, fixture["clip_voxels"])


def test_mixco(parity: Load, same: Same) -> None:
    fixture = parity("losses")
    mixing = mixing_of(fixture["perm"], fixture["betas_drawn"], fixture["select"])
    same(mixing.apply(fixture["voxels"]), fixture["voxels_mixed"])
    same(mixing.weight, fixture["betas_used"])
    same(mixing.targets(zero_fixed_points=True), fixture["probs"])
    torch.testing.assert_close(mixing.targets().sum(1), torch.ones(len(mixing.weight)))


def test_losses_and_their_gradients(parity: Load, same: Same) -> None:
    fixture = parity("losses")
    mixing = mixing_of(fixture["perm"], fixture["betas_drawn"], fixture["select"])
    predicted, target = fixture["preds"].requires_grad_(), fixture["targets"]
    losses: dict[str, Callable[[float], Tensor]] = {
        "bimixco": lambda t: contrastive_loss(predicted, target, t, mixing, quirk=True),
        "clip_nce": lambda t: contrastive_loss(predicted, target, t),
        "soft_clip": lambda t: soft_clip_loss(predicted, target, t),
    }
    checked = 0
    for name, original in fixture.tensors.items():
        kind, _, temperature = name.rpartition("_t")
        kind, gradient = kind.removesuffix("_grad"), kind.endswith("_grad")
        if kind in losses:
            loss = losses[kind](float(temperature))
            same(torch.autograd.grad(loss, predicted)[0] if gradient else loss, original)
            checked += 1
        if name.startswith("cosine_anneal_"):
            same(cosine_schedule(0.004, 0.0075, len(original)), original)
    assert checked >= 7


@pytest.mark.parametrize("name", ["prior", "prior_wide"])
class TestPrior:
    def test_schedule_and_network(self, parity: Load, same: Same, name: str) -> None:
        fixture = parity(name)
        prior, net = prior_of(fixture), prior_of(fixture).net
        same(prior.schedule.betas, fixture["state.noise_scheduler.betas"])
        same(prior.schedule.kept, fixture["state.noise_scheduler.alphas_cumprod"])
        noised = prior.schedule.noised(fixture["image"], fixture["times"], fixture["noise"])
        same(noised, fixture["q_sample"])
        same(net.time_embedding(fixture["times"]), fixture["time_embed"])
        given = (noised, fixture["times"], fixture["brain"])
        same(net(*given), fixture["net_cond"])
        nothing = torch.zeros(len(noised), dtype=torch.bool)
        same(net(*given, nothing, nothing), fixture["net_null"])
        same(net.guided(*given, fixture.about["cond_scale"]), fixture["net_cond_scale"])

    def test_parts_of_the_first_layer(self, parity: Load, same: Same, name: str) -> None:
        fixture = parity(name)
        net = prior_of(fixture).net
        transformer: Any = net.causal_transformer
        bias = transformer.rel_pos_bias(2 * net.config.tokens + 1)
        same(bias, fixture["rel_pos_bias"])
        same(transformer.norm(fixture["final_norm_in"]), fixture["final_norm_out"])
        parts = [fixture["brain"], fixture["time_embed"], fixture["q_sample"] + net.learned_query]
        sequence = torch.cat(parts, dim=1)
        attended = transformer.layers[0][0](sequence, bias)
        same(attended, fixture["block0_attention"])
        same(transformer.layers[0][1](sequence + attended), fixture["block0_feedforward"])

    @pytest.mark.parametrize("kind", ["full", "dropped"])
    def test_loss_and_gradients(self, parity: Load, same: Same, name: str, kind: str) -> None:
        fixture = parity(name)
        prior = prior_of(fixture)
        kept = () if kind == "full" else (fixture["keep_brain"], fixture["keep_image"])
        brain = fixture["brain"].clone().requires_grad_()
        loss, predicted = prior.loss(brain, fixture["image"], fixture["times"], fixture["noise"], *kept)
        loss.backward()
        same(loss, fixture[f"loss_{kind}"])
        same(predicted, fixture[f"pred_{kind}"])
        assert brain.grad is not None
        same(brain.grad, fixture[f"grad_brain_{kind}"], 1e-3)
        norms = {n: torch.zeros(()) if p.grad is None else p.grad.norm() for n, p in prior.named_parameters()}
        ours = torch.stack([norms[key] for key in fixture.about["grad_norm_keys"]])
        same(ours, fixture[f"grad_norms_{kind}"], 1e-3)

    @pytest.mark.parametrize("chain", ["ddim", "ddim_guided", "ddpm", "ddpm_guided"])
    def test_sampling(self, parity: Load, same: Same, name: str, chain: str) -> None:
        fixture = parity(name)
        if f"{chain}.draws" not in fixture:
            pytest.skip(f"{name} holds no {chain} chain")
        prior = prior_of(fixture)
        draws: Iterator[Tensor] = iter(fixture[f"{chain}.draws"])
        sample = prior.sample(
            fixture["brain"],
            lambda: next(draws),
            steps=fixture.about["ddim_timesteps"] if "ddim" in chain else prior.config.steps,
            guidance=fixture.about["cond_scale"] if "guided" in chain else 1.0,
        )
        same(sample, fixture[f"{chain}.out"], 1e-3)
        assert next(draws, None) is None, "a draw was not used"
        times = sampling_times(prior.config.steps, fixture.about["ddim_timesteps"])
        assert times == fixture.about["ddim_times"]


@pytest.mark.parametrize("phase", ["bimixco", "softclip"])
def test_a_training_step(parity: Load, same: Same, phase: str) -> None:
    """Ridge, backbone, prior and contrast together, several subjects stacked, with the original's quirk."""
    step, decoder, diffusion = parity("train_step"), parity("decoder"), parity("prior")
    ridge, backbone, prior = ridge_of(decoder), backbone_of(decoder), prior_of(diffusion)
    subjects = range(len(ridge.linears))
    batches = [step[f"{phase}.voxels{i}"] for i in subjects]
    parts = []
    if phase == "bimixco":
        sizes = [len(batch) for batch in batches]
        drawn = (step[f"bimixco.{key}"].split(sizes) for key in ("perm", "betas", "select"))
        parts = [mixing_of(*given) for given in zip(*drawn, strict=True)]
        batches = [part.apply(batch) for part, batch in zip(parts, batches, strict=True)]
    for i in subjects:
        same(batches[i], step[f"{phase}.voxels_used{i}"])
    tokens, projected = backbone(torch.cat([ridge(batches[i], i) for i in subjects]))
    target = step[f"{phase}.target"]
    given = (step[f"{phase}.{key}"] for key in ("times", "noise", "keep_brain", "keep_image"))
    loss_prior, _ = prior.loss(tokens, target, *given)
    rows = normalize(projected.flatten(1), dim=-1), normalize(target.flatten(1), dim=-1)
    if phase == "bimixco":
        mixing = Mixing.stacked(parts, local_partners=True)
        loss_clip = contrastive_loss(*rows, 0.006, mixing, quirk=True)
        assert not torch.equal(mixing.partner, Mixing.stacked(parts).partner), "the mend changes nothing"
    else:
        loss_clip = soft_clip_loss(*rows, 0.004)
    loss = 30 * loss_prior + loss_clip
    loss.backward()
    same(loss_prior, step[f"{phase}.loss_prior"])
    same(loss_clip, step[f"{phase}.loss_clip"])
    same(loss, step[f"{phase}.loss"])
    for i in subjects:
        gradient: Any = ridge.linears[i].weight.grad
        same(gradient, step[f"{phase}.grad_ridge{i}.weight"], 1e-3)
    for key, parameter in {
        "backbone_linear.weight": backbone.backbone_linear.weight,
        "clip_proj.8.weight": backbone.clip_proj[8].weight,
    }.items():
        same(parameter.grad, step[f"{phase}.grad_{key}"], 1e-3)  # type: ignore[arg-type]
    similarity = rows[0] @ rows[1].T  # rows are brains: for each IMAGE, is the best brain its own?
    top1 = (similarity.argmax(dim=0) == torch.arange(len(similarity))).float().mean()
    same(top1, step[f"{phase}.brain_to_image_top1"])


def test_alignment_and_its_gradients(parity: Load, same: Same) -> None:
    fixture = parity("mindaligner")
    sizes = fixture.about["dims"]
    aligner = Aligner(sizes["novel"], sizes["latent"], sizes["known"], sizes["condition"])
    aligner.load_state_dict(fixture.state())
    latent, moved, predicted = aligner(fixture["novel"], fixture["clip_known"] - fixture["clip_novel"])
    same(latent, fixture["latent_novel"])
    same(moved, fixture["latent_known"])
    same(predicted, fixture["pred"])
    same(aligner.btm(fixture["novel"]), fixture["plain"])
    same(dissimilarity(fixture["clip_known"], fixture["clip_novel"]), fixture["rdm_clip"])
    loss = aligner.loss(fixture["novel"], fixture["known"], fixture["clip_novel"], fixture["clip_known"])
    for ours, key in (
        (loss.squared_error, "mse"), (loss.kl, "kl"), (loss.reconstruction, "recon_loss"),
        (loss.rdm, "rdm_loss"), (loss.total, "total"),
    ):  # fmt: skip
        same(ours, fixture[key])
    loss.total.backward()
    for name, parameter in aligner.named_parameters():
        assert parameter.grad is not None
        same(parameter.grad, fixture[f"grad.{name}"], 1e-3)


def test_an_aligned_subject_in_a_known_subjects_decoder(parity: Load, same: Same) -> None:
    fixture, decoder = parity("mindaligner_decode"), parity("decoder")
    state = fixture.state("btm.")
    latent, n_new = state["layers.0.weight"].shape
    transfer = Transfer(n_new, latent, state["layers.1.weight"].shape[0])
    transfer.load_state_dict(state)
    aligned = transfer(fixture["voxels"])
    same(aligned, fixture["aligned"])
    tokens, projected = backbone_of(decoder)(ridge_of(decoder)(aligned))
    same(tokens, fixture["backbone"])
    same(projected, fixture["clip_voxels"])
