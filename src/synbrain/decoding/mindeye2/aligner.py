"""MindAligner: a new subject's voxels to a known subject's, through two linear layers of low rank.

Source: Da1yuqin/MindAligner (read, not copied), arXiv 2502.05034. At test only the transfer is used:

    known voxels = W_2 W_1 new voxels.

In training, pairs of trials of the two subjects that saw *different* images are compared: the latent W_1 x
is moved to what the known subject would have seen by FiLM on the difference of the images' embeddings.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

KL_WEIGHT, RDM_WEIGHT = 0.1, 1e-3


class Transfer(nn.Module):
    """The two bias-free layers; ``layers.0`` (latent, V_new), ``layers.1`` (V_known, latent)."""

    def __init__(self, n_new: int, latent: int, n_known: int) -> None:
        super().__init__()
        self.sizes = (n_new, latent, n_known)
        self.layers = nn.ModuleList(
            [nn.Linear(n_new, latent, bias=False), nn.Linear(latent, n_known, bias=False)]
        )

    def forward(self, voxels: Tensor) -> Tensor:
        """(..., V_new) to (..., V_known)."""
        known: Tensor = self.layers[1](self.layers[0](voxels))
        return known


class _FiLM(nn.Module):
    def __init__(self, condition: int, latent: int) -> None:
        super().__init__()
        self.linear = nn.Linear(condition, 2 * latent)

    def forward(self, latent: Tensor, condition: Tensor) -> Tensor:
        """gamma * latent + beta, both linear in the condition (no 1 + gamma)."""
        gamma, beta = self.linear(condition).unsqueeze(1).chunk(2, dim=-1)
        moved: Tensor = gamma * latent + beta
        return moved


@dataclass(frozen=True)
class AlignmentLoss:
    """The parts of MindAligner's alignment loss, each ().

    ``total`` = squared error + .1 KL + .001 RDM loss.
    """

    squared_error: Tensor
    kl: Tensor
    rdm: Tensor

    @property
    def reconstruction(self) -> Tensor:
        return self.squared_error + KL_WEIGHT * self.kl

    @property
    def total(self) -> Tensor:
        total: Tensor = self.reconstruction + RDM_WEIGHT * self.rdm
        return total


class Aligner(nn.Module):
    """Transfer with the helpers that only training uses."""

    def __init__(self, n_new: int, latent: int, n_known: int, condition: int) -> None:
        super().__init__()
        self.btm = Transfer(n_new, latent, n_known)
        self.film = _FiLM(condition, latent)
        self.embedder = nn.Linear(latent, latent)

    def forward(self, novel: Tensor, shift: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(latent of the new trial, latent moved to the known image, predicted known voxels).

        Args:
            novel: (n, 1, V_new).
            shift: (n, condition), embedding of the known subject's image minus the new subject's.
        """
        latent = self.btm.layers[0](novel)
        moved = self.film(latent, shift)
        return latent, moved, self.btm.layers[1](moved)

    def loss(self, novel: Tensor, known: Tensor, new_image: Tensor, known_image: Tensor) -> AlignmentLoss:
        """Of a batch of pairs.

        Args:
            novel: (n, 1, V_new).
            known: (n, 1, V_known), the known subject's trials.
            new_image, known_image: (n, condition) embeddings of unit length.
        """
        latent, moved, predicted = self(novel, known_image - new_image)
        likely, wanted = predicted.log_softmax(dim=-1), known.log_softmax(dim=-1)
        seen = dissimilarity(known_image, new_image)
        measured = dissimilarity(self.embedder(moved).flatten(1), self.embedder(latent).flatten(1))
        return AlignmentLoss(
            squared_error=F.mse_loss(predicted, known),
            kl=(likely.exp() * (likely - wanted)).sum(dim=-1).mean(),
            rdm=F.mse_loss(measured, seen),
        )


def dissimilarity(rows: Tensor, columns: Tensor) -> Tensor:
    """(n, m): 1 - cosine of every row with every column (a matrix *between* two sets)."""
    left = rows / (rows.norm(dim=-1, keepdim=True) + 1e-6)
    right = columns / (columns.norm(dim=-1, keepdim=True) + 1e-6)
    apart: Tensor = 1 - left @ right.T
    return apart
