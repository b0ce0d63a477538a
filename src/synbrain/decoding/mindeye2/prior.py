"""MindEye2's diffusion prior: from the brain's tokens to image tokens, by denoising.

Schedule and samplers of DALL-E 2's prior as MindEye2 uses it (``dalle2-pytorch`` 1.15.6; read, not copied).
With ``a_t`` the cumulative product of ``1 - beta``:

    x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) noise                    (the network predicts x_0)
    loss = mean (x_0 - network(x_t, t, brain))^2                 no scaling or norm of tokens
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from synbrain.decoding.mindeye2.prior_network import PriorConfig, PriorNetwork
from synbrain.describe import counted
from synbrain.errors import SynBrainError

Draw = Callable[[], Tensor]  # standard normal, (n, tokens, dim)


class NoiseSchedule(nn.Module):
    """Cosine schedule (Nichol and Dhariwal 2021): a_t = cos^2((t / T + .008) / 1.008 * pi / 2), betas at
    most .999.
    """

    betas: Tensor
    kept: Tensor
    kept_before: Tensor
    posterior_mean: Tensor
    posterior_sd: Tensor
    of_clean: Tensor
    of_noise: Tensor
    per_clean: Tensor
    per_noise: Tensor

    def __init__(self, steps: int) -> None:
        super().__init__()
        # in numpy, so that it is right also where the network is built on the meta device
        at = np.arange(steps + 1) / steps
        curve = np.cos((at + 0.008) / 1.008 * math.pi / 2) ** 2
        betas = (1 - curve[1:] / curve[:-1]).clip(0, 0.999)
        kept = np.cumprod(1 - betas)
        before = np.concatenate([np.ones(1), kept[:-1]])
        mean = np.stack([betas * before**0.5 / (1 - kept), (1 - before) * (1 - betas) ** 0.5 / (1 - kept)])
        variance = (betas * (1 - before) / (1 - kept)).clip(1e-20)
        self.steps = steps
        # roots before rounding: 1 - kept is as small as 4e-5 at the first of many steps
        buffers = {
            "betas": betas, "kept": kept, "kept_before": before, "posterior_mean": mean,
            "posterior_sd": variance**0.5, "of_clean": kept**0.5, "of_noise": (1 - kept) ** 0.5,
            "per_clean": (1 / kept) ** 0.5, "per_noise": (1 / kept - 1) ** 0.5,
        }  # fmt: skip
        for name, value in buffers.items():
            self.register_buffer(name, torch.from_numpy(value.astype(np.float32)), persistent=False)

    def noised(self, clean: Tensor, times: Tensor, noise: Tensor) -> Tensor:
        """x_t of (n, tokens, dim) tokens at steps ``times`` (n,)."""
        of_clean, of_noise = (of[times][:, None, None] for of in (self.of_clean, self.of_noise))
        return of_clean * clean + of_noise * noise

    def noise_of(self, noised: Tensor, time: int, clean: Tensor) -> Tensor:
        """The noise that leads from ``clean`` to ``noised`` at step ``time``."""
        return (self.per_clean[time] * noised - clean) / self.per_noise[time]


class DiffusionPrior(nn.Module):
    """Network and schedule: a loss to train on, and samplers."""

    def __init__(self, config: PriorConfig) -> None:
        super().__init__()
        self.config = config
        self.net = PriorNetwork(config)
        self.schedule = NoiseSchedule(config.steps)

    def loss(
        self,
        brain: Tensor,
        image: Tensor,
        times: Tensor,
        noise: Tensor,
        keep_brain: Tensor | None = None,
        keep_image: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """(loss (), predicted (n, tokens, dim)); random numbers are given, see :meth:`draw`."""
        noised = self.schedule.noised(image, times, noise)
        predicted = self.net(noised, times, brain, keep_brain, keep_image)
        return nn.functional.mse_loss(predicted, image), predicted

    def draw(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(times, noise, keep_brain, keep_image) of a batch; each condition is dropped on its own."""
        shape = (n, self.config.tokens, self.config.dim)
        times = torch.randint(self.config.steps, (n,), generator=generator)
        noise = torch.randn(shape, generator=generator)
        kept = torch.rand(2, n, generator=generator) >= self.config.drop
        return times, noise, kept[0], kept[1]

    @torch.inference_mode()
    def sample(self, brain: Tensor, draw: Draw, *, steps: int = 20, guidance: float = 1.0) -> Tensor:
        """Image tokens for the brain's tokens.

        Args:
            brain: (n, tokens, dim), mean over repeats where there are several.
            draw: gives standard normal (n, tokens, dim) at every call: first the start, then one for each
                step that adds noise. See :func:`seeded_draws`.
            steps: 20 as published (19 network calls); the schedule's own number: ancestral sampling (DDPM).
            guidance: 1, as published, is none.

        Returns:
            (n, tokens, dim) float32.
        """
        if not 2 <= steps <= self.config.steps:  # one step would visit the end alone: noise, as it was drawn
            raise SynBrainError(
                counted(steps, "sampling step"), f"choose 2 to {self.config.steps}, the steps of its schedule"
            )
        if steps == self.config.steps:
            return self._ancestral(brain, draw, guidance)
        return self._implicit(brain, draw, steps, guidance)

    def _ancestral(self, brain: Tensor, draw: Draw, guidance: float) -> Tensor:
        """DDPM: x_(t-1) = c_0 x_0 + c_1 x_t + sd noise; noise is drawn at the last step too, and not used."""
        x = draw().to(brain.device)
        for time in reversed(range(self.config.steps)):
            clean = self._clean(x, time, brain, guidance)
            first, second = self.schedule.posterior_mean[:, time]
            noise = draw().to(x.device)
            x = first * clean + second * x
            if time > 0:
                x = x + self.schedule.posterior_sd[time] * noise
        return x

    def _implicit(self, brain: Tensor, draw: Draw, steps: int, guidance: float) -> Tensor:
        """DDIM with eta 1 (Song et al. 2021, eq. 12 and 16).

        As published, both coefficients take the *previous* cumulative product at either end while the noise
        is read off with the present one; the last step gives the predicted clean tokens.
        """
        x = draw().to(brain.device)
        for time, following in pairwise(sampling_times(self.config.steps, steps)):
            clean = self._clean(x, time, brain, guidance)
            if following < 0:
                return clean
            noise_in_x = self.schedule.noise_of(x, time, clean)
            now, then = self.schedule.kept_before[time], self.schedule.kept_before[following]
            fresh = ((1 - now / then) * (1 - then) / (1 - now)).sqrt()
            kept = (1 - then - fresh**2).sqrt()
            x = then.sqrt() * clean + kept * noise_in_x
            if following > 0:
                x = x + fresh * draw().to(x.device)
        return x

    def _clean(self, x: Tensor, time: int, brain: Tensor, guidance: float) -> Tensor:
        times = torch.full((len(x),), time, dtype=torch.int64, device=x.device)
        return self.net.guided(x, times, brain, guidance)


def sampling_times(schedule_steps: int, steps: int) -> list[int]:
    """Steps that DDIM visits, descending, ending in -1 (clean): 94, 89, ... 4, -1 for 20 of 100.

    >>> sampling_times(20, 5)
    [15, 11, 7, 3, -1]
    """
    # torch's rounding, as published: NumPy's gives other whole numbers for one pair of lengths in fifty
    times: list[int] = torch.linspace(-1.0, schedule_steps, steps + 1)[:-1].int().tolist()
    return times[::-1]


def seeded_draws(rows: range, tokens: int, dim: int, seed: int, sample: int = 0) -> Draw:
    """Standard normal draws that depend on the seed, the sample and an image's own row: not on the batch."""
    generators = [np.random.Generator(np.random.SFC64([seed, sample, row])) for row in rows]

    def draw() -> Tensor:
        blocks = [rng.standard_normal((tokens, dim), dtype=np.float32) for rng in generators]
        return torch.from_numpy(np.stack(blocks))

    return draw


def prior_weights(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """What :class:`DiffusionPrior` loads of a published prior.

    Buffers of the schedule are computed again; ``rotary_emb.freqs`` is one constant, saved for each layer
    by some versions.
    """
    return {
        name: value
        for name, value in state.items()
        if not name.startswith("noise_scheduler.") and not name.endswith("rotary_emb.freqs")
    }
