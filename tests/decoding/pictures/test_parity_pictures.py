"""The low-level head, the unCLIP sampler and the scores of pictures give the original's numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from synbrain.decoding.mindeye2.backbone import Backbone, BackboneConfig
from synbrain.decoding.mindeye2.low_level import LowLevelHead, low_level_weights
from synbrain.decoding.pictures import unclip
from synbrain.metrics import image, retrieval

Load = Callable[[str], Any]
Same = Callable[..., None]


def formula_weights(shapes: dict[str, list[int]]) -> dict[str, Tensor]:
    """The weights of low_level.safetensors, which are not stored but follow a formula (its README)."""
    state = {}
    for i, name in enumerate(sorted(shapes)):
        shape = shapes[name]
        values = np.sin(1.7 * np.arange(int(np.prod(shape))) + i)
        if len(shape) <= 1:
            values = 0.1 * values + name.endswith("weight")
        else:
            values = values * 1.2 / np.sqrt(np.prod(shape[1:]))
        state[name] = torch.tensor(values.reshape(shape), dtype=torch.float32)
    return state


def test_the_low_level_head(parity: Load, same: Same) -> None:
    pytest.importorskip("diffusers", reason="the head's VAE decoder is that of diffusers")
    fixture = parity("low_level")
    state = formula_weights(fixture.about["keys"])
    dim = len(state["clip_proj.0.weight"])
    config = BackboneConfig(
        hidden=fixture["x"].shape[-1],
        n_blocks=fixture.about["n_blocks"],
        tokens=len(state["backbone_linear.bias"]) // dim,
        dim=dim,
        blocks="published",
    )
    backbone, head = Backbone(config).eval(), LowLevelHead(config.hidden).eval()
    head.load_state_dict(low_level_weights(state))
    assert not backbone.load_state_dict(state, strict=False).missing_keys
    tokens, projected = backbone(fixture["x"])
    latents, auxiliary = head(backbone.hidden(fixture["x"]))
    same(tokens, fixture["backbone"])
    same(projected, fixture["clip_voxels"])
    same(latents, fixture["latents"])
    same(auxiliary[:, ::7, ::16], fixture["aux"])


def test_the_unclip_sampler(parity: Load, same: Same) -> None:
    fixture = parity("unclip")
    for name, original in fixture.tensors.items():
        if name.startswith("sigmas_"):
            steps = int(name.removeprefix("sigmas_"))
            ours = unclip.noise_levels() if steps == 1000 else unclip.sampling_levels(steps)
            same(ours, original)
    same(unclip.size_embedding(), fixture["vector_suffix"])
    steps = fixture.about["num_steps"]
    assert unclip.sampling_indices(steps) == fixture["network_times"].tolist()
    first = unclip.sampling_levels(steps)[0]
    begin = unclip.start(fixture["z"], fixture["noise"], fixture["offset"], first)
    same(begin, fixture["start"])

    def toy(x: Tensor, index: Tensor, tokens: Tensor, vector: Tensor) -> Tensor:
        shift = tokens.mean((1, 2)) + 0.1 * vector.mean(1) + 0.05 * index / 1000
        return 0.3 * torch.tanh(x) + shift.view(-1, 1, 1, 1)

    condition = unclip.Condition(fixture["cond"], fixture["uncond"], fixture["vector"])
    guidance = fixture.about["cfg_scale"]
    same(unclip.sample(toy, begin, condition, steps=steps, guidance=guidance), fixture["out"], 1e-3)
    same(unclip.to_pixels(fixture["pixels_in"]), fixture["pixels_out"])


def test_scores_of_pixels(parity: Load) -> None:
    fixture = parity("metrics")
    seen, decoded = (
        interpolate(fixture[key], size=425, mode="bilinear", align_corners=False).permute(0, 2, 3, 1).numpy()
        for key in ("images", "recons")
    )
    correlation = image.pixel_correlation(decoded, seen)
    np.testing.assert_allclose(correlation, fixture["pixcorr_each"], rtol=1e-4)
    assert correlation.mean() == pytest.approx(float(fixture["pixcorr"]), rel=1e-4)
    assert correlation.mean() == pytest.approx(float(fixture["pixcorr_utils"]), rel=1e-3)
    similarity = image.structural_similarity(decoded, seen)
    np.testing.assert_allclose(similarity, fixture["ssim_each"], rtol=1e-4)
    assert similarity.mean() == pytest.approx(float(fixture["ssim"]), rel=1e-4)


def test_scores_of_features(parity: Load) -> None:
    fixture = parity("metrics")
    seen, decoded = fixture["features_real"].numpy(), fixture["features_recon"].numpy()
    wins = image.two_way_wins(decoded, seen)
    np.testing.assert_array_equal(wins, fixture["two_way_wins"])
    assert len(seen) - 1 == int(fixture["two_way_of"])
    assert image.two_way_identification(decoded, seen) == pytest.approx(float(fixture["two_way"]))
    distance = image.correlation_distance(decoded, seen)
    np.testing.assert_allclose(distance, fixture["correlation_distance_each"], rtol=1e-5)
    assert distance.mean() == pytest.approx(float(fixture["correlation_distance"]), rel=1e-5)


def test_retrieval_in_both_directions(parity: Load) -> None:
    fixture = parity("metrics")
    images, brains = (
        normalize(fixture[k].flatten(1), dim=-1).numpy() for k in ("image_embed", "brain_embed")
    )
    forward, backward = [], []
    for subset in fixture["subsets"].numpy():
        similarity = retrieval.cosine_matrix(images[subset], brains[subset])
        first, second = retrieval.both_directions(similarity, n_way=len(subset))
        forward.append(first)
        backward.append(second)
    np.testing.assert_allclose(forward, fixture["fwd_each"], rtol=1e-6)
    np.testing.assert_allclose(backward, fixture["bwd_each"], rtol=1e-6)
    np.testing.assert_allclose(similarity, fixture["fwd_similarity_last"], atol=1e-5)
    best = np.argsort(-similarity, axis=1)[:, :3]
    top3 = np.mean([i in row for i, row in enumerate(best)])
    assert top3 == pytest.approx(float(fixture["fwd_top3_last"]))
    assert np.mean(forward) == pytest.approx(float(fixture["fwd_mean"]), rel=1e-6)
    assert np.mean(backward) == pytest.approx(float(fixture["bwd_mean"]), rel=1e-6)
