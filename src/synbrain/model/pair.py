"""The published pair at work: tokens to latents (mapper) to responses in units of each voxel's sd (VAE)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from synbrain.arrays import Float32
from synbrain.features.tokens import TokenSet
from synbrain.networks.brainvae import BrainVAE
from synbrain.networks.config import Precision
from synbrain.networks.mapper import Mapper
from synbrain.networks.precision import autocast, autocast_dtype, chosen_precision


@dataclass(frozen=True)
class NetworkPair:
    """A VAE and the mapper before it, where and how they compute.

    Attributes:
        vae: its decoder is used.
        mapper: None: the tokens are the latents.
        layer: whose tokens the mapper reads.
        device: where both lie.
        precision: fp32, bf16, fp16, or auto, see :meth:`synbrain.SynBrain.computing_in`.
    """

    vae: BrainVAE
    mapper: Mapper | None
    layer: str
    device: torch.device
    precision: Precision

    def decoded(self, tokens: TokenSet, n_voxels: int) -> Float32:
        """(n_images, n_voxels) float32, expected responses in sd of each voxel."""
        return self._decode(self._latents(tokens), n_voxels)

    def noisy(
        self, tokens: TokenSet, n_voxels: int, n_samples: int, seed: int, first: int, factor: float
    ) -> Iterator[Float32]:
        """The paper's trials (appendix E), one sample of all images after another.

        z = mapped latent + factor * eps, eps standard normal; that of an image depends on ``seed`` and on its
        place ``first + i`` alone.
        """
        latents = self._latents(tokens)
        shape = tuple(latents.shape[1:])
        generators = [np.random.Generator(np.random.SFC64([seed, first + i])) for i in range(len(tokens))]
        for _ in range(n_samples):
            eps = np.stack([rng.standard_normal(shape, dtype=np.float32) for rng in generators])
            yield self._decode(latents + factor * torch.from_numpy(eps).to(self.device), n_voxels)

    def _latents(self, tokens: TokenSet) -> torch.Tensor:
        """(n_images, tokens, dim) float32 on the device."""
        x = torch.from_numpy(tokens.read(self.layer)).to(self.device)
        if self.mapper is None:
            return x
        with torch.inference_mode(), self._casting(self.mapper):
            latents: torch.Tensor = self.mapper(x).float()
        return latents

    def _decode(self, latents: torch.Tensor, n_voxels: int) -> Float32:
        if len(latents) == n_voxels == 1:  # torch normalises no group of one value: decode it beside itself
            return self._decode(torch.cat([latents, latents]), n_voxels)[:1]
        with torch.inference_mode(), self._casting(self.vae):
            return np.asarray(self.vae.decode(latents, n_voxels).float().cpu().numpy())

    def _casting(self, network: nn.Module) -> AbstractContextManager[Any]:
        """The context in which ``network`` computes in the precision."""
        precision = chosen_precision(self.precision, self.device, network)
        context: AbstractContextManager[Any] = autocast(self.device, autocast_dtype(precision, self.device))
        return context
