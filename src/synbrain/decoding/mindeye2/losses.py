"""Losses of MindEye2's decoder: mixed-up contrast, soft contrast, and their temperatures.

Rows of ``predicted`` and ``target`` are flattened embeddings of unit length, row i of one trial. Every loss
is cross-entropy of a softmax over similarities,

    logits = predicted @ target.T / temperature,
    loss   = mean of H(Q, softmax of rows) and H(Q', softmax of columns),

and they differ in the target distribution Q alone: ones on the diagonal (CLIP), mixed with the partner that
MixCo added (BiMixCo; Kim et al. 2020, arXiv 2010.06300), or similarities among the targets themselves
(SoftCLIP; MindEye, arXiv 2305.18274, section 3.2).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

MIXCO_BETA = 0.15  # both parameters of the Beta distribution that mixing weights are drawn from
MIXCO_SHARE = 0.5  # of the rows are mixed


@dataclass(frozen=True)
class Mixing:
    """Which row was mixed with which: ``x_i <- weight_i x_i + (1 - weight_i) x_partner(i)``.

    Attributes:
        partner: (n,) int64, a permutation.
        weight: (n,) float32 in [0, 1]; 1 where a row is left as it is.
    """

    partner: Tensor
    weight: Tensor

    def apply(self, x: Tensor) -> Tensor:
        """(n, ...) mixed; rows of weight 1 are unchanged."""
        weight = self.weight.view(-1, *[1] * (x.ndim - 1)).to(x.dtype)
        return weight * x + (1 - weight) * x[self.partner]

    def targets(self, *, zero_fixed_points: bool = False) -> Tensor:
        """(n, n) float32 target distribution: row i holds ``weight_i`` at i and the rest at its partner.

        Args:
            zero_fixed_points: quirk of the original, which assigns where it should add: a row that is its
                own partner gets ``1 - weight``, that is 0 where it was not mixed.
        """
        n = len(self.weight)
        rows = torch.arange(n, device=self.weight.device)
        targets = torch.diag(self.weight.float())
        if zero_fixed_points:
            targets[rows, self.partner] = 1 - self.weight.float()
        else:
            targets[rows, self.partner] += 1 - self.weight.float()
        return targets

    def shifted(self, offset: int) -> Mixing:
        """The same mixing for rows that stand ``offset`` rows further down in a stacked batch."""
        return Mixing(self.partner + offset, self.weight)

    @staticmethod
    def stacked(parts: list[Mixing], *, local_partners: bool = False) -> Mixing:
        """Mixings within several subjects, as one for their rows stacked in order.

        Args:
            parts: of each subject.
            local_partners: quirk of the original, which concatenates partners without an offset, so that
                targets of later subjects point at rows of the first.
        """
        ends = torch.tensor([len(part.weight) for part in parts]).cumsum(0).tolist()
        offsets = [0] * len(parts) if local_partners else [0, *ends[:-1]]
        shifted = [part.shifted(at) for part, at in zip(parts, offsets, strict=True)]
        return Mixing(torch.cat([p.partner for p in shifted]), torch.cat([p.weight for p in shifted]))


def draw_mixing(n: int, generator: torch.Generator) -> Mixing:
    """Mixing of ``n`` rows as MixCo draws it: half of them, weights from Beta(.15, .15)."""
    # Beta(a, a) by two Gamma(a) draws: torch's Beta takes no generator
    gammas = torch._standard_gamma(torch.full((2, n), MIXCO_BETA), generator=generator)
    weight = gammas[0] / gammas.sum(0).clamp_min(1e-30)
    partner = torch.randperm(n, generator=generator)
    mixed = torch.rand(n, generator=generator) <= MIXCO_SHARE
    return mixing_of(partner, weight, mixed)


def mixing_of(partner: Tensor, drawn: Tensor, mixed: Tensor) -> Mixing:
    """Mixing from drawn weights (n,) and the mask (n,) of rows that are mixed at all."""
    return Mixing(partner, torch.where(mixed, drawn, torch.ones_like(drawn)))


def contrastive_loss(
    predicted: Tensor,
    target: Tensor,
    temperature: float,
    mixing: Mixing | None = None,
    *,
    quirk: bool = False,
) -> Tensor:
    """CLIP's loss, or BiMixCo where the voxels were mixed.

    Args:
        predicted: (n, d) of unit length.
        target: (n, d) of unit length.
        temperature: .006 in the published recipe.
        mixing: how the voxels behind ``predicted`` were mixed; None: not at all.
        quirk: see :meth:`Mixing.targets`.
    """
    logits = predicted @ target.T / temperature
    if mixing is None:
        wanted = torch.eye(len(predicted), device=predicted.device)
    else:
        wanted = mixing.targets(zero_fixed_points=quirk).to(predicted.device)
    return (_cross_entropy(logits, wanted) + _cross_entropy(logits.T, wanted.T)) / 2


def soft_clip_loss(predicted: Tensor, target: Tensor, temperature: float) -> Tensor:
    """SoftCLIP: targets that resemble each other share probability; Q is the same in both directions."""
    logits = predicted @ target.T / temperature
    wanted = (target @ target.T / temperature).softmax(dim=-1)
    return (_cross_entropy(logits, wanted) + _cross_entropy(logits.T, wanted)) / 2


def cosine_schedule(start: float, end: float, steps: int) -> Tensor:
    """(steps,) float32 from ``start`` to ``end`` along half a cosine: SoftCLIP's temperature by epoch."""
    at = torch.arange(steps, dtype=torch.float64) / max(steps - 1, 1)
    return (end + (start - end) / 2 * (1 + torch.cos(math.pi * at))).float()


def _cross_entropy(logits: Tensor, wanted: Tensor) -> Tensor:
    return -(wanted * logits.log_softmax(dim=-1)).sum(dim=-1).mean()
