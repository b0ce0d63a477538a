"""The distribution over latents that the encoder gives for a response: a diagonal Gaussian."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


def without_autocast(x: Tensor) -> AbstractContextManager[Any]:
    """A context in which operations on the device of ``x`` keep the precision of what they are given."""
    kind = x.device.type
    return nullcontext() if kind == "meta" else torch.autocast(kind, enabled=False)  # meta has no autocast


@dataclass(frozen=True)
class Posterior:
    """Diagonal Gaussian q(z | y) over latent tokens (SynBrain paper, section 3.2).

    Attributes:
        mean: (batch, tokens, dim).
        logvar: (batch, tokens, dim), natural logarithm of the variance.
    """

    mean: Tensor
    logvar: Tensor

    def mode(self) -> Tensor:
        """(batch, tokens, dim), the most probable latent, which is the mean."""
        return self.mean

    def at(self, noise: Tensor) -> Tensor:
        """(batch, tokens, dim), ``mean + exp(logvar / 2) * noise`` for standard normal ``noise``.

        In float32 at least: a float16 ``exp(logvar / 2)`` overflows above 22.18.
        """
        with without_autocast(self.mean):
            dtype = torch.promote_types(self.mean.dtype, torch.float32)
            return self.mean.to(dtype) + torch.exp(0.5 * self.logvar.to(dtype)) * noise.to(dtype)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """(batch, tokens, dim), one draw, differentiable in mean and logvar.

        ``generator`` must live on the device of ``mean``; None draws from torch's global one.
        """
        noise = torch.randn(
            self.mean.shape, generator=generator, device=self.mean.device, dtype=self.mean.dtype
        )
        return self.at(noise)

    def kl(self) -> Tensor:
        """(batch,) float32, divergence from N(0, I) in nats, summed over tokens and dim.

        Reduced in float32 whatever the autocast: a float16 ``exp(logvar)`` overflows above 11.09, and so
        does the sum over the 425,984 terms of the published latent.
        """
        with without_autocast(self.mean):
            mean, logvar = self.mean.float(), self.logvar.float()
            terms = mean.square() + logvar.exp() - 1.0 - logvar
            return 0.5 * terms.sum(dim=(1, 2))
