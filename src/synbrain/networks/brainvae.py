"""BrainVAE: a variational autoencoder of responses with any number of voxels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from synbrain.networks.blocks import Downsample, Middle, ResBlock, Upsample, group_norm, projector
from synbrain.networks.fast_cpu.norm_conv import norm_silu_conv
from synbrain.networks.fast_cpu.winograd import from_phases
from synbrain.networks.posterior import Posterior

FAST_CHANNELS = 32  # base channels from which Winograd convolutions pay


class BrainVAEConfig(BaseModel):
    """Sizes of a :class:`BrainVAE`; the defaults are the published model (d = 4096).

    Attributes:
        tokens: latent tokens (the reference's ``z_channels``).
        dim: width of a latent token (``embed_dim``).
        channels: channels after the first convolution (``ch``).
        multipliers: channels of each level, as multiples of ``channels`` (``ch_mult``).
        res_blocks: residual blocks of a level; the decoder has one more (``num_res_blocks``).
        pooled_length: length that responses of any number of voxels are max-pooled to (``ada_length``).
        down_blocks: levels of the encoder that halve the length; the paper's d is
            ``pooled_length / 2**down_blocks``.
        up_blocks: levels of the decoder that double it.
        projector_width: hidden width of the token projectors (``linear_dim``).
        edge_kernel: kernel of the first and last convolution of encoder and decoder.
        norm_groups: groups of every GroupNorm.
        logvar_limit: clamps logvar to plus or minus this; None leaves it free.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tokens: int = Field(256, gt=0)
    dim: int = Field(1664, gt=0)
    channels: int = Field(128, gt=0)
    multipliers: tuple[int, ...] = Field((2, 4, 4), min_length=1)
    res_blocks: int = Field(2, gt=0)
    pooled_length: int = Field(8192, gt=0)
    down_blocks: int = Field(1, ge=0)
    up_blocks: int = Field(1, ge=0)
    projector_width: int = Field(2048, gt=0)
    # Quirk: the released code has 7 (src/vae/module.py); Algorithm 2 of the paper writes 1.
    edge_kernel: int = Field(7, gt=0)
    # Quirk: the released code has GroupNorm(32); the paper says LayerNorm, which is norm_groups=1.
    norm_groups: int = Field(32, gt=0)
    # Quirk: the released code leaves logvar free (src/ldm/modules/distributions/distributions.py).
    logvar_limit: float | None = Field(None, gt=0)

    @property
    def hidden(self) -> int:
        """Length of the encoder's output, which the projectors read (the paper's d)."""
        return int(self.pooled_length // 2**self.down_blocks)

    @property
    def level_channels(self) -> tuple[int, ...]:
        """Channels of each level, finest first."""
        return tuple(self.channels * m for m in self.multipliers)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if max(self.down_blocks, self.up_blocks) > len(self.multipliers):
            raise ValueError("down_blocks and up_blocks may not exceed the number of multipliers")
        if self.pooled_length % 2**self.down_blocks:
            raise ValueError("pooled_length must be a multiple of 2**down_blocks")
        if self.edge_kernel % 2 == 0:
            raise ValueError("edge_kernel must be odd")
        for width in (self.channels, *self.level_channels):
            if width >= self.norm_groups and width % self.norm_groups:
                raise ValueError(f"{width} channels do not divide into norm_groups={self.norm_groups}")
        return self


Step = Callable[[Tensor], Tensor]


class _Encoder(nn.Module):
    """(batch, 1, n_voxels) to (batch, tokens, hidden)."""

    def __init__(self, config: BrainVAEConfig) -> None:
        super().__init__()
        self.fast = True
        groups, edge = config.norm_groups, config.edge_kernel
        self.conv_in = nn.Conv1d(1, config.channels, edge, padding=edge // 2)
        self.pool = nn.AdaptiveMaxPool1d(config.pooled_length)
        self.levels = nn.ModuleList()
        self.downs = nn.ModuleList()
        width = config.channels
        for level, c_out in enumerate(config.level_channels):
            blocks = nn.ModuleList()
            for _ in range(config.res_blocks):
                blocks.append(ResBlock(width, c_out, groups))
                width = c_out
            self.levels.append(blocks)
            if level < config.down_blocks:
                self.downs.append(Downsample(width))
        self.middle = Middle(width, groups)
        self.norm_out = group_norm(width, groups)
        self.conv_out = nn.Conv1d(width, config.tokens, edge, padding=edge // 2)

    def steps(self) -> list[Step]:
        steps: list[Step] = [lambda x: self.pool(self.conv_in(x))]
        for level, blocks in enumerate(self.levels):
            steps.extend(blocks)  # type: ignore[arg-type]
            if level < len(self.downs):
                steps.append(_in_order(self.downs[level]))
        return [*steps, *_middle_steps(self.middle), self._finish]

    def _finish(self, x: Tensor) -> Tensor:
        return norm_silu_conv(from_phases(x), self.norm_out, self.conv_out, self.fast)


class _Decoder(nn.Module):
    """(batch, tokens, hidden) to (batch, 1, n_voxels)."""

    def __init__(self, config: BrainVAEConfig) -> None:
        super().__init__()
        self.fast = True
        groups, edge = config.norm_groups, config.edge_kernel
        widths = config.level_channels
        width = widths[-1]
        self.conv_in = nn.Conv1d(config.tokens, width, edge, padding=edge // 2)
        self.middle = Middle(width, groups)
        self.levels = nn.ModuleList()  # coarsest first, the order in which they run
        self.ups = nn.ModuleList()
        for level, c_out in enumerate(reversed(widths)):
            blocks = nn.ModuleList()
            for _ in range(config.res_blocks + 1):
                blocks.append(ResBlock(width, c_out, groups))
                width = c_out
            self.levels.append(blocks)
            if level < config.up_blocks:
                self.ups.append(Upsample(width))
        self.norm_out = group_norm(width, groups)
        self.conv_out = nn.Conv1d(width, 1, edge, padding=edge // 2)

    def steps(self, n_voxels: int) -> list[Step]:
        steps: list[Step] = [self.conv_in, *_middle_steps(self.middle)]
        for level, blocks in enumerate(self.levels):
            steps.extend(blocks)  # type: ignore[arg-type]
            if level < len(self.ups):
                steps.append(_in_order(self.ups[level]))
        return [*steps, lambda x: self._finish(x, n_voxels)]

    def _finish(self, x: Tensor, n_voxels: int) -> Tensor:
        x = F.interpolate(from_phases(x), size=n_voxels, mode="linear", align_corners=True)
        return norm_silu_conv(x, self.norm_out, self.conv_out, self.fast)


def _in_order(step: Step) -> Step:
    """``step`` on positions in their natural order, whatever order they come in."""
    return lambda x: step(from_phases(x))


def _middle_steps(middle: Middle) -> list[Step]:
    return [middle.block1, middle.attention, middle.block2]


class BrainVAE(nn.Module):
    """Responses to latent tokens and back; no weight depends on the number of voxels.

    Architecture: Algorithm 2 of the paper as the released code builds it (``src/vae/brainvae.py``).

    Args:
        config: the sizes.
        checkpointing: recompute activations in the backward pass instead of keeping them: less memory,
            about a third more time, the same gradients. May be switched at any time.
        fast: in float32 on a CPU, convolve by Winograd's algorithm and keep fewer activations: the same
            function to about 1e-6 relative; None: from FAST_CHANNELS on, as narrow convolutions gain nothing
            (preset tiny: .23 s a step against .19 s plain). See :meth:`set_fast`.

    >>> from synbrain.networks.presets import preset
    >>> vae = BrainVAE(preset("tiny").vae)
    >>> vae.encode(torch.zeros(2, 100)).mean.shape == vae.encode(torch.zeros(2, 300)).mean.shape
    True
    """

    def __init__(
        self, config: BrainVAEConfig, *, checkpointing: bool = False, fast: bool | None = None
    ) -> None:
        super().__init__()
        self.config = config
        self.checkpointing = checkpointing
        self.encoder = _Encoder(config)
        self.decoder = _Decoder(config)
        self.mean_head = projector(config.hidden, config.projector_width, config.dim)
        self.logvar_head = projector(config.hidden, config.projector_width, config.dim)
        self.post = projector(config.dim, config.projector_width, config.hidden)
        self.set_fast(config.channels >= FAST_CHANNELS if fast is None else fast)

    def set_fast(self, fast: bool) -> None:
        """Choose between the fast paths (default) and torch's plain operations, at any time."""
        for module in self.modules():
            if isinstance(module, (ResBlock, _Encoder, _Decoder)):
                module.fast = fast

    def encode(self, y: Tensor) -> Posterior:
        """Posterior of responses ``y`` (batch, n_voxels) float32; any number of voxels."""
        h = self._run(self.encoder.steps(), y.unsqueeze(1))
        mean, logvar = self.mean_head(h), self.logvar_head(h)
        limit = self.config.logvar_limit
        return Posterior(mean, logvar if limit is None else logvar.clamp(-limit, limit))

    def decode(self, z: Tensor, n_voxels: int) -> Tensor:
        """(batch, n_voxels) responses of latents ``z`` (batch, tokens, dim)."""
        out: Tensor = self._run(self.decoder.steps(n_voxels), self.post(z))
        return out.squeeze(1)

    def forward(self, y: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Posterior, Tensor]:
        """Encode, draw, decode: what a training step runs, in one call for data-parallel wrappers.

        Args:
            y: (batch, n_voxels) float32.
            noise: (batch, tokens, dim) standard normal, or None for the posterior mean.

        Returns:
            reconstruction (batch, n_voxels), posterior, latent (batch, tokens, dim).
        """
        posterior = self.encode(y)
        z = posterior.mode() if noise is None else posterior.at(noise)
        return self.decode(z, y.shape[1]), posterior, z

    def _run(self, steps: list[Step], x: Tensor) -> Tensor:
        for step in steps:
            if self.checkpointing and torch.is_grad_enabled():
                x = checkpoint(step, x, use_reentrant=False)
            else:
                x = step(x)
        return x
