"""Predicted tokens to pictures by generative networks: SDXL unCLIP as published, Kandinsky 2.2 and
IP-Adapter.

All of them run through diffusers (``pip install 'synbrain[pictures]'``) on weights that are fetched or
given. What they paint beyond the tokens is theirs, not the brain's: a sharp picture is no evidence of a
good decoder. :mod:`synbrain.decoding.pictures.gallery` shows decoded content without painting any.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from synbrain.arrays import Float32
from synbrain.decoding.pictures import unclip
from synbrain.describe import counted
from synbrain.errors import SynBrainError

Pictures = NDArray[np.uint8]
PUBLISHED_UNCLIP = "unclip6_epoch0_step110000.ckpt"
SDXL_VAE_SCALE = 0.13025
UNET_PREFIX, VAE_PREFIX = "model.diffusion_model.", "first_stage_model."
# SDXL's UNet but for two numbers: it attends to 1664-wide tokens, and its vector is the target's size and
# crop alone (4 x 256 sinusoids), without pooled text.
SDXL_UNET: dict[str, Any] = {
    "sample_size": 96,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 2,
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "use_linear_projection": True,
    "cross_attention_dim": 1664,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 1024,
}


class Renderer(Protocol):
    """Paints pictures from predicted tokens or embeddings."""

    def render(self, predicted: Float32, *, seed: int = 0) -> Pictures:
        """(n, height, width, 3) uint8; picture i depends on row i, on i and the seed, not on the batch."""
        ...


def _diffusers() -> Any:
    try:
        import diffusers
    except ImportError as error:
        raise SynBrainError(
            "painting pictures needs diffusers", "install it with `pip install 'synbrain[pictures]'`"
        ) from error
    return diffusers


class UnclipRenderer:
    """MindEye2's SDXL unCLIP in plain diffusers: 256 x 1664 tokens to 768-pixel pictures.

    Args:
        unet: ``UNet2DConditionModel`` of SDXL's shape.
        vae: ``AutoencoderKL``; its latents are scaled by its own factor.
        steps: 38 as published.
        guidance: 5 as published.
    """

    def __init__(
        self, unet: Any, vae: Any, *, steps: int = unclip.STEPS, guidance: float = unclip.GUIDANCE
    ) -> None:
        self.unet, self.vae = unet.eval().requires_grad_(False), vae.eval().requires_grad_(False)
        self.steps, self.guidance = steps, guidance

    @classmethod
    def from_checkpoint(
        cls,
        path: str | Path,
        *,
        unet_config: dict[str, Any] | None = None,
        vae_config: dict[str, Any] | None = None,
    ) -> UnclipRenderer:
        """Read the published checkpoint (``unclip6_epoch0_step110000.ckpt``), without running code from it.

        Args:
            path: of the file; it is mapped, not read at once.
            unet_config, vae_config: sizes other than SDXL's, for other checkpoints of the same form.

        Raises:
            SynBrainError: where diffusers or the file is missing, or a tensor is missing or of another shape.
        """
        diffusers = _diffusers()
        from diffusers.loaders.single_file_utils import (
            convert_ldm_unet_checkpoint,
            convert_ldm_vae_checkpoint,
        )

        if not Path(path).exists():
            raise SynBrainError(
                f"there is no {path}",
                f"fetch {PUBLISHED_UNCLIP} from the hub dataset of MindEye2 and pass its path",
            )
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        state = state.get("state_dict", state)
        unet_sizes = {**SDXL_UNET, **(unet_config or {})}
        with torch.device("meta"):
            unet = diffusers.UNet2DConditionModel(**unet_sizes)
            vae = diffusers.AutoencoderKL(**(vae_config or _sdxl_vae()))
        # diffusers tells an SDXL vector ("label_emb") by this entry of the config, and has no word for
        # unCLIP's
        config = {**unet.config, "class_embed_type": None, "addition_embed_type": "text_time"}
        try:
            _fill(unet, convert_ldm_unet_checkpoint(dict(state), config), "UNet")
            _fill(vae, convert_ldm_vae_checkpoint(dict(state), vae.config), "VAE")
        except KeyError as error:
            raise SynBrainError(
                f"{path} lacks the tensor {error}", f"give a checkpoint like {PUBLISHED_UNCLIP}"
            ) from error
        return cls(unet, vae)

    @torch.inference_mode()
    def render(self, predicted: Float32, *, seed: int = 0) -> Pictures:
        """Pictures of (n, n_tokens, dim) predicted tokens; noise comes from the seed and the row alone."""
        device, dtype = self.unet.device, self.unet.dtype
        side = self.unet.config.sample_size
        size = side * 2 ** (len(self.vae.config.block_out_channels) - 1)
        pictures = []
        for row, tokens in enumerate(np.asarray(predicted, dtype=np.float32)):
            rng = np.random.Generator(np.random.SFC64([seed, row]))
            shape = (1, self.unet.config.in_channels, side, side)
            noise, offset = _normal(rng, shape), _normal(rng, (1,))
            nothing = _normal(rng, (1, *tokens.shape))
            vector = unclip.size_embedding(size, size)
            condition = unclip.Condition(
                torch.from_numpy(tokens)[None].to(device), nothing.to(device), vector
            )
            first = unclip.sampling_levels(self.steps)[0]
            start = unclip.start(torch.zeros(shape), noise, offset, first).to(device)
            latent = unclip.sample(
                self._network(size, dtype), start, condition, steps=self.steps, guidance=self.guidance
            )
            decoded = self.vae.decode(latent.to(self.vae.dtype) / self.vae.config.scaling_factor).sample
            pictures.append(_bytes(unclip.to_pixels(decoded.float())))
        return np.concatenate(pictures)

    def _network(self, size: int, dtype: torch.dtype) -> unclip.NoiseNetwork:
        def network(x: Tensor, times: Tensor, tokens: Tensor, vector: Tensor) -> Tensor:
            # diffusers makes the vector itself: sinusoids of (height, width, top, left), no pooled text
            added = {
                "text_embeds": torch.zeros(len(x), 0, device=x.device, dtype=dtype),
                "time_ids": torch.tensor([[size, size, 0, 0]], device=x.device).expand(len(x), 4),
            }
            output = self.unet(x.to(dtype), times, tokens.to(dtype), added_cond_kwargs=added)
            noise: Tensor = output.sample.float()
            return noise

        return network


class KandinskyRenderer:
    """Kandinsky 2.2's decoder: pooled CLIP ViT-bigG/14 embeddings (n, 1280) to 512-pixel pictures.

    The pooled vector cannot be had from patch tokens: a decoder has to predict it as a target of its own.

    Args:
        pipeline: ``KandinskyV22Pipeline``, for example ``kandinsky-community/kandinsky-2-2-decoder``.
        steps: of its scheduler.
        size: pixels, a multiple of 8.
    """

    def __init__(self, pipeline: Any, *, steps: int = 50, size: int = 512) -> None:
        self.pipeline, self.steps, self.size = pipeline, steps, size
        pipeline.set_progress_bar_config(disable=True)

    @torch.inference_mode()
    def render(self, predicted: Float32, *, seed: int = 0) -> Pictures:
        embeddings = torch.from_numpy(np.asarray(predicted, dtype=np.float32))
        pictures = []
        for row, embedding in enumerate(embeddings):
            pictures.append(
                self.pipeline(
                    image_embeds=embedding[None].to(self.pipeline.device, self.pipeline.unet.dtype),
                    negative_image_embeds=torch.zeros_like(embedding)[None].to(self.pipeline.device),
                    generator=_generator(seed, row),
                    num_inference_steps=self.steps,
                    height=self.size,
                    width=self.size,
                    output_type="np",
                ).images
            )
        return np.asarray(np.concatenate(pictures) * 255, dtype=np.uint8)


class IPAdapterRenderer:
    """A stock Stable Diffusion pipeline with an IP-Adapter loaded: pooled embeddings (n, d) to pictures.

    Args:
        pipeline: with ``load_ip_adapter`` called, for example SDXL with ``ip-adapter_sdxl`` (bigG, 1280).
        steps: of its scheduler.
        prompt: beside the embedding; empty: the embedding alone.
    """

    def __init__(self, pipeline: Any, *, steps: int = 30, prompt: str = "") -> None:
        self.pipeline, self.steps, self.prompt = pipeline, steps, prompt
        pipeline.set_progress_bar_config(disable=True)

    @torch.inference_mode()
    def render(self, predicted: Float32, *, seed: int = 0) -> Pictures:
        pictures = []
        for row, embedding in enumerate(torch.from_numpy(np.asarray(predicted, dtype=np.float32))):
            # the first of each pair stands for "no picture" in classifier-free guidance
            pair = torch.stack([torch.zeros_like(embedding), embedding])[:, None]
            pictures.append(
                self.pipeline(
                    prompt=self.prompt,
                    ip_adapter_image_embeds=[pair.to(self.pipeline.device, self.pipeline.unet.dtype)],
                    generator=_generator(seed, row),
                    num_inference_steps=self.steps,
                    output_type="np",
                ).images
            )
        return np.asarray(np.concatenate(pictures) * 255, dtype=np.uint8)


def _sdxl_vae() -> dict[str, Any]:
    return {
        "in_channels": 3,
        "out_channels": 3,
        "latent_channels": 4,
        "block_out_channels": (128, 256, 512, 512),
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "layers_per_block": 2,
        "sample_size": 1024,
        "scaling_factor": SDXL_VAE_SCALE,
    }


def _fill(module: Any, state: dict[str, Tensor], title: str) -> None:
    """Give a module on the meta device the tensors of ``state``, which must be exactly its own."""
    wanted = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    missing, extra = sorted(wanted.keys() - state.keys()), sorted(state.keys() - wanted.keys())
    misshapen = [n for n in wanted.keys() & state.keys() if tuple(state[n].shape) != wanted[n]]
    if missing or extra or misshapen:
        first = (missing or extra or sorted(misshapen))[0]
        raise SynBrainError(
            f"the {title} of the checkpoint has {counted(len(missing), 'tensor')} missing, {len(extra)} "
            f"too many and "
            f"{len(misshapen)} of another shape, {first} first",
            f"give a checkpoint like {PUBLISHED_UNCLIP}, or the sizes of this one",
        )
    module.load_state_dict(state, assign=True)


def _normal(rng: np.random.Generator, shape: tuple[int, ...]) -> Tensor:
    return torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))


def _generator(seed: int, row: int) -> torch.Generator:
    return torch.Generator().manual_seed(int(np.random.SeedSequence([seed, row]).generate_state(1)[0]))


def _bytes(pictures: Tensor) -> Pictures:
    """(n, 3, h, w) in [0, 1] to (n, h, w, 3) uint8."""
    return np.asarray((pictures.permute(0, 2, 3, 1) * 255).round().cpu().numpy(), dtype=np.uint8)
