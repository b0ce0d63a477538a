"""MindEye2's network from voxels to image tokens: a linear layer for each subject, backbone, projector.

    voxels (n, V_s) -> ridge_s -> (n, h) -> blocks -> linear -> (n, tokens, dim)   "backbone": the prior's
                                                            condition -> projector -> same shape   for
                                                            retrieval

Sources: MedARC-AI/MindEyeV2 ``models.py`` (read, not copied), arXiv 2403.11207 section 2. Three kinds of
blocks:

``residual`` (ours)
    A residual MLP, x <- x + W2 GELU(W1 LN(x)), as the paper's text describes it.
``linear``
    No block at all: an ablation, and what the published network comes to.
``published``
    Blocks along features and along the sequence in turn, their residual streams kept apart. All published
    checkpoints have a sequence of length 1, where the second kind of block norms a single element: it gives
    a constant, whatever its input. So the published backbone is ``linear(ridge + constant)``, which
    :func:`folded_state` writes down.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from synbrain.decoding.streamed import release

Blocks = Literal["residual", "linear", "published"]


class BackboneConfig(BaseModel):
    """Sizes of the network; the published ones are hidden 4096, 4 blocks, 256 tokens of 1664."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    hidden: int = Field(4096, ge=1, description="width between a subject's linear layer and the backbone's")
    n_blocks: int = Field(4, ge=0)
    tokens: int = Field(256, ge=1)
    dim: int = Field(1664, ge=1, description="of a token")
    blocks: Blocks = "residual"
    sequence: int = Field(1, ge=1, description="published blocks only; 1 in every published checkpoint")
    dropout: float = Field(0.15, ge=0, lt=1)


class RidgeLayers(nn.Module):
    """One linear layer for each subject, voxels to ``hidden``; weight decay makes it ridge regression.

    Args:
        n_voxels: of each subject.
        hidden: what all of them are mapped to.
    """

    def __init__(self, n_voxels: list[int], hidden: int) -> None:
        super().__init__()
        self.linears = nn.ModuleList(nn.Linear(n, hidden) for n in n_voxels)

    def forward(self, voxels: Tensor, subject: int = 0) -> Tensor:
        """(..., V_subject) to (..., hidden)."""
        mapped: Tensor = self.linears[subject](voxels)
        return mapped


class Backbone(nn.Module):
    """(n, sequence, hidden) to tokens; names of parameters are the published ones."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.config = config
        h, length = config.hidden, config.sequence
        if config.blocks == "published":
            self.mixer_blocks1 = nn.ModuleList(_block(h, config.dropout) for _ in range(config.n_blocks))
            self.mixer_blocks2 = nn.ModuleList(_block(length, config.dropout) for _ in range(config.n_blocks))
        elif config.blocks == "residual":
            self.blocks = nn.ModuleList(_block(h, config.dropout) for _ in range(config.n_blocks))
        self.backbone_linear = nn.Linear(h * length, config.tokens * config.dim)
        # per token: three times norm, GELU, linear
        self.clip_proj = nn.Sequential(
            *(
                layer
                for _ in range(3)
                for layer in (nn.LayerNorm(config.dim), nn.GELU(), nn.Linear(config.dim, config.dim))
            )
        )

    def hidden(self, x: Tensor) -> Tensor:
        """(n, sequence, hidden) through the blocks to (n, sequence * hidden)."""
        if self.config.blocks == "published":
            x = self._published(x)
        elif self.config.blocks == "residual":
            for block in self.blocks:
                x = x + block(x)
        return x.flatten(1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(backbone, projected), both (n, tokens, dim): for the prior and for retrieval.

        Args:
            x: (n, sequence, hidden), or (n, hidden) for a sequence of one.
        """
        x = x[:, None] if x.ndim == 2 else x
        tokens = self.backbone_linear(self.hidden(x)).unflatten(1, (self.config.tokens, self.config.dim))
        return tokens, self.clip_proj(tokens)

    def _published(self, x: Tensor) -> Tensor:
        first, second = x, x
        for along_features, along_sequence in zip(self.mixer_blocks1, self.mixer_blocks2, strict=True):
            first = along_features(second) + first
            second = along_sequence(first.transpose(1, 2)).transpose(1, 2) + second
        return second


def _block(width: int, dropout: float) -> nn.Sequential:
    layers = (nn.Linear(width, width), nn.GELU(), nn.Dropout(dropout), nn.Linear(width, width))
    return nn.Sequential(nn.LayerNorm(width), nn.Sequential(*layers))


@torch.no_grad()
def mixer_constant(state: dict[str, Tensor], prefix: str = "backbone.") -> Tensor:
    """() float32: what the published blocks add to the ridge layer's output where the sequence is one long.

    A norm over one element gives its bias b, whatever stood there; each block then gives W2 GELU(W1 b + c1)
    + c2.

    Args:
        state: a published checkpoint's tensors; must hold ``mixer_blocks2``.
        prefix: of the backbone's names.
    """
    total = torch.zeros((), dtype=torch.float32)
    for block in _sequence_blocks(state, prefix):
        norm_bias, *layers = (
            state[f"{block}.{name}"].float()
            for name in ("0.bias", "1.0.weight", "1.0.bias", "1.3.weight", "1.3.bias")
        )
        if norm_bias.numel() != 1:
            raise ValueError("the blocks act along a sequence of more than one: they are no constant")
        w1, c1, w2, c2 = (value.view(()) for value in layers)
        total += w2 * nn.functional.gelu(w1 * norm_bias.view(()) + c1) + c2
    return total


def _sequence_blocks(state: dict[str, Tensor], prefix: str) -> list[str]:
    """Names of the blocks along the sequence, such as ``backbone.mixer_blocks2.0``, in order."""
    start = f"{prefix}mixer_blocks2."
    numbers = {int(name.removeprefix(start).split(".")[0]) for name in state if name.startswith(start)}
    return [f"{start}{number}" for number in sorted(numbers)]


@torch.no_grad()
def folded_state(state: dict[str, Tensor], prefix: str = "backbone.") -> dict[str, Tensor]:
    """The backbone's tensors of a published checkpoint for ``blocks="linear"``: the same function, smaller.

    ``linear(ridge + c)`` = ``W ridge + (W 1 c + b)``: the constant moves into the bias, and the dead blocks
    (6 % of the published parameters) go. Names are returned without ``prefix``.
    """
    constant = mixer_constant(state, prefix)
    kept = {
        name.removeprefix(prefix): value
        for name, value in state.items()
        if name.startswith((f"{prefix}backbone_linear.", f"{prefix}clip_proj."))
    }
    weight = kept["backbone_linear.weight"]
    # row sums in blocks of rows: the published weight is 425,984 x 4096 and may lie on disk
    sums = torch.cat([_row_sums(part) for part in weight.split(4096)])
    bias = kept["backbone_linear.bias"]
    kept["backbone_linear.bias"] = (bias.float() + constant * sums).to(bias.dtype)
    return kept


def _row_sums(part: Tensor) -> Tensor:
    sums = part.float().sum(dim=1)
    release(part)
    return sums
