"""Generative renderers with small random networks: shapes, seeds, conversion of the published checkpoint's
names.
"""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from synbrain.decoding.pictures.renderers import (
    UNET_PREFIX,
    VAE_PREFIX,
    IPAdapterRenderer,
    KandinskyRenderer,
    UnclipRenderer,
)
from synbrain.errors import SynBrainError

diffusers = pytest.importorskip("diffusers", reason="pictures are painted through diffusers")

UNET = {
    "sample_size": 8, "block_out_channels": (32, 64), "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 1), "attention_head_dim": (2, 4), "cross_attention_dim": 6,
    "addition_time_embed_dim": 8, "projection_class_embeddings_input_dim": 32, "norm_num_groups": 8,
    "in_channels": 4, "out_channels": 4, "use_linear_projection": True, "addition_embed_type": "text_time",
}  # fmt: skip
VAE = {
    "block_out_channels": (8, 8), "down_block_types": ("DownEncoderBlock2D",) * 2, "layers_per_block": 1,
    "up_block_types": ("UpDecoderBlock2D",) * 2, "latent_channels": 4, "norm_num_groups": 4,
    "scaling_factor": 0.5,
}  # fmt: skip


@pytest.fixture(scope="module")
def networks() -> tuple[Any, Any]:
    torch.manual_seed(0)
    return diffusers.UNet2DConditionModel(**UNET), diffusers.AutoencoderKL(**VAE)


def test_pictures_depend_on_tokens_seed_and_row_alone(networks: tuple[Any, Any]) -> None:
    renderer = UnclipRenderer(*networks, steps=3)
    tokens = np.random.default_rng(0).standard_normal((2, 5, 6)).astype(np.float32)
    pictures = renderer.render(tokens, seed=4)
    assert pictures.shape == (2, 16, 16, 3)
    assert pictures.dtype == np.uint8
    np.testing.assert_array_equal(renderer.render(tokens[:1], seed=4), pictures[:1])
    assert not np.array_equal(renderer.render(tokens, seed=5), pictures)
    assert not np.array_equal(renderer.render(tokens + 1, seed=4), pictures)


def ldm_names(unet: Any, vae: Any) -> dict[str, torch.Tensor]:
    """The small networks under the names of the published checkpoint (LDM's)."""
    names = {
        "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
        "add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2",
        "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2",
        "down_blocks.0.resnets.0": "input_blocks.1.0",
        "down_blocks.0.downsamplers.0.conv": "input_blocks.2.0.op",
        "down_blocks.1.resnets.0": "input_blocks.3.0", "down_blocks.1.attentions.0": "input_blocks.3.1",
        "mid_block.resnets.0": "middle_block.0", "mid_block.attentions.0": "middle_block.1",
        "mid_block.resnets.1": "middle_block.2",
        "up_blocks.0.resnets.0": "output_blocks.0.0", "up_blocks.0.attentions.0": "output_blocks.0.1",
        "up_blocks.0.resnets.1": "output_blocks.1.0", "up_blocks.0.attentions.1": "output_blocks.1.1",
        "up_blocks.0.upsamplers.0.conv": "output_blocks.1.2.conv",
        "up_blocks.1.resnets.0": "output_blocks.2.0", "up_blocks.1.resnets.1": "output_blocks.3.0",
    }  # fmt: skip
    inside = {
        ".norm1.": ".in_layers.0.", ".conv1.": ".in_layers.2.", ".time_emb_proj.": ".emb_layers.1.",
        ".norm2.": ".out_layers.0.", ".conv2.": ".out_layers.3.", ".conv_shortcut.": ".skip_connection.",
    }  # fmt: skip
    state = {}
    for name, value in unet.state_dict().items():
        ours = next(start for start in names if name.startswith(f"{start}."))
        old = names[ours] + name[len(ours) :]
        if ".resnets." in name:
            for ours, new in inside.items():
                old = old.replace(ours, new)
        state[UNET_PREFIX + old] = value
    for name, value in vae.state_dict().items():
        old = name
        for side in ("encoder", "decoder"):
            old = old.replace(f"{side}.mid_block.resnets.0.", f"{side}.mid.block_1.")
            old = old.replace(f"{side}.mid_block.resnets.1.", f"{side}.mid.block_2.")
            old = old.replace(f"{side}.mid_block.attentions.0.group_norm.", f"{side}.mid.attn_1.norm.")
            for ours, new in (("to_q", "q"), ("to_k", "k"), ("to_v", "v"), ("to_out.0", "proj_out")):
                old = old.replace(f"{side}.mid_block.attentions.0.{ours}.", f"{side}.mid.attn_1.{new}.")
            old = old.replace(f"{side}.conv_norm_out.", f"{side}.norm_out.")
        old = old.replace("downsamplers.0.conv", "downsample.conv").replace(
            "upsamplers.0.conv", "upsample.conv"
        )
        for i in range(2):
            old = old.replace(f"encoder.down_blocks.{i}.resnets.", f"encoder.down.{i}.block.")
            old = old.replace(f"encoder.down_blocks.{i}.", f"encoder.down.{i}.")
            old = old.replace(f"decoder.up_blocks.{i}.resnets.", f"decoder.up.{1 - i}.block.")
            old = old.replace(f"decoder.up_blocks.{i}.", f"decoder.up.{1 - i}.")
        old = old.replace("conv_shortcut", "nin_shortcut")
        if ".mid.attn_1." in old and old.endswith("weight") and ".norm." not in old:
            value = value[..., None, None]  # LDM has 1x1 convolutions there
        state[VAE_PREFIX + old] = value
    return state


def test_the_published_form_of_checkpoint_gives_the_same_pictures(
    networks: tuple[Any, Any], tmp_path: Path
) -> None:
    state = ldm_names(*networks)
    torch.save({"state_dict": state}, tmp_path / "unclip.ckpt")
    loaded = UnclipRenderer.from_checkpoint(tmp_path / "unclip.ckpt", unet_config=UNET, vae_config=VAE)
    loaded.steps = 2
    tokens = np.random.default_rng(1).standard_normal((1, 5, 6)).astype(np.float32)
    np.testing.assert_array_equal(loaded.render(tokens), UnclipRenderer(*networks, steps=2).render(tokens))


def test_checkpoints_that_do_not_fit_name_the_tensor(networks: tuple[Any, Any], tmp_path: Path) -> None:
    with pytest.raises(SynBrainError, match="fetch unclip6_epoch0_step110000"):
        UnclipRenderer.from_checkpoint(tmp_path / "none.ckpt")
    state = ldm_names(*networks)
    cut = {name: v for name, v in state.items() if name != f"{UNET_PREFIX}out.2.weight"}
    torch.save(cut, tmp_path / "cut.ckpt")
    with pytest.raises(SynBrainError, match=r"out\.2\.weight|conv_out\.weight"):
        UnclipRenderer.from_checkpoint(tmp_path / "cut.ckpt", unet_config=UNET, vae_config=VAE)
    torch.save(state | {f"{UNET_PREFIX}out.2.weight": torch.zeros(4, 32, 1, 1)}, tmp_path / "shape.ckpt")
    with pytest.raises(SynBrainError, match=r"1 of another shape, conv_out\.weight"):
        UnclipRenderer.from_checkpoint(tmp_path / "shape.ckpt", unet_config=UNET, vae_config=VAE)


def test_kandinsky_paints_from_pooled_embeddings() -> None:
    torch.manual_seed(0)
    unet = diffusers.UNet2DConditionModel(
        in_channels=4, out_channels=8, addition_embed_type="image", cross_attention_dim=32,
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn", block_out_channels=(32, 64), layers_per_block=1,
        encoder_hid_dim=12, encoder_hid_dim_type="image_proj", attention_head_dim=4,
        resnet_time_scale_shift="scale_shift",
    )  # fmt: skip
    movq = diffusers.VQModel(
        block_out_channels=(32, 64), down_block_types=("DownEncoderBlock2D", "AttnDownEncoderBlock2D"),
        up_block_types=("AttnUpDecoderBlock2D", "UpDecoderBlock2D"), latent_channels=4, layers_per_block=1,
        norm_type="spatial", num_vq_embeddings=6, vq_embed_dim=4,
    )  # fmt: skip
    scheduler = diffusers.DDIMScheduler(num_train_timesteps=20, prediction_type="epsilon")
    renderer = KandinskyRenderer(diffusers.KandinskyV22Pipeline(unet, scheduler, movq), steps=2, size=64)
    embeddings = np.random.default_rng(0).standard_normal((2, 12)).astype(np.float32)
    pictures = renderer.render(embeddings, seed=1)
    assert pictures.shape[0] == 2
    assert pictures.shape[3] == 3
    assert pictures.dtype == np.uint8
    np.testing.assert_array_equal(renderer.render(embeddings[:1], seed=1), pictures[:1])


def test_ip_adapter_gets_each_embedding_beside_an_empty_one() -> None:
    calls: list[dict[str, Any]] = []

    class Pipeline:
        device, unet = torch.device("cpu"), torch.nn.Linear(1, 1)

        def set_progress_bar_config(self, **given: Any) -> None: ...

        def __call__(self, **given: Any) -> Any:
            calls.append(given)
            return types.SimpleNamespace(images=np.full((1, 4, 4, 3), 0.5))

    Pipeline.unet.dtype = torch.float32  # type: ignore[assignment]
    embeddings = np.arange(6, dtype=np.float32).reshape(2, 3)
    pictures = IPAdapterRenderer(Pipeline(), steps=7).render(embeddings, seed=2)
    assert pictures.shape == (2, 4, 4, 3)
    for row, given in enumerate(calls):
        (pair,) = given["ip_adapter_image_embeds"]
        assert pair.shape == (2, 1, 3)
        assert not pair[0].any()
        np.testing.assert_array_equal(pair[1, 0], embeddings[row])
        assert given["num_inference_steps"] == 7
    assert calls[0]["generator"].initial_seed() != calls[1]["generator"].initial_seed()
