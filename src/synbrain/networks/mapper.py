"""Mapper: image tokens to latent tokens in one pass of a transformer (the paper's S2N mapper)."""

from __future__ import annotations

from typing import Literal, Self

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from synbrain.errors import SynBrainError
from synbrain.networks.blocks import NORM_EPS, sinusoid
from synbrain.networks.posterior import without_autocast

FREQUENCIES = 256  # width of the reference's sinusoidal timestep code


class MapperConfig(BaseModel):
    """Sizes of a :class:`Mapper`; the defaults are the published model.

    Attributes:
        tokens: latent tokens.
        dim: width of a latent token and of the transformer.
        depth: transformer blocks.
        heads: attention heads; divides ``dim``.
        mlp_ratio: width of the MLPs as a multiple of ``dim``.
        input_tokens: image tokens where they are not as many as latent tokens (None: the same).
        input_dim: width of an image token where it is not ``dim`` (None: the same).
        modulation: "timestep" computes shifts, scales and gates from an embedded t = 0, as the released
            code does; "constant" learns them directly: the same functions with a third fewer parameters;
            "folded" is what :meth:`Mapper.fold` makes of either, for inference alone.
        prediction: "x" gives the latent, "v" its difference from the image token (the reference's
            ``--prediction``; the published runs use x).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tokens: int = Field(256, gt=0)
    dim: int = Field(1664, gt=0)
    depth: int = Field(8, gt=0)
    heads: int = Field(13, gt=0)
    mlp_ratio: float = Field(4.0, gt=0)
    input_tokens: int | None = Field(None, gt=0)
    input_dim: int | None = Field(None, gt=0)
    # Quirk: the paper draws a plain pre-LN transformer; the code is a SiT with adaLN-Zero whose
    # timestep is always 0 (src/s2n/sit.py, src/s2n/loss.py).
    modulation: Literal["timestep", "constant", "folded"] = "timestep"
    prediction: Literal["x", "v"] = "x"

    @property
    def projects(self) -> bool:
        """Whether image tokens need projecting to the latent's grid."""
        return self.token_shape != (self.tokens, self.dim)

    @property
    def token_shape(self) -> tuple[int, int]:
        """(n_tokens, dim) of the image tokens that the mapper reads."""
        return self.input_tokens or self.tokens, self.input_dim or self.dim

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.dim % self.heads:
            raise ValueError(f"heads={self.heads} does not divide dim={self.dim}")
        if self.dim % 2:
            raise ValueError("dim must be even: positions are coded by pairs of sine and cosine")
        if self.prediction == "v" and self.projects:
            raise ValueError("prediction='v' needs image tokens of the latent's shape")
        return self


class _Timestep(nn.Module):
    """The embedding of t = 0, (dim,): the only timestep that SynBrain uses."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(FREQUENCIES, dim)
        self.fc2 = nn.Linear(dim, dim)

    def forward(self) -> Tensor:
        code = torch.zeros(FREQUENCIES, device=self.fc1.weight.device, dtype=self.fc1.weight.dtype)
        code[: FREQUENCIES // 2] = 1.0  # cos 0; the other half is sin 0
        with without_autocast(code):
            out: Tensor = self.fc2(F.silu(self.fc1(code)))
        return out


class _Modulation(nn.Module):
    """``n`` vectors (n, dim) of shifts, scales and gates, from the embedding or learned directly."""

    def __init__(self, n: int, dim: int, kind: str) -> None:
        super().__init__()
        self.n = n
        self.linear = nn.Linear(dim, n * dim) if kind == "timestep" else None
        self.constant = nn.Parameter(torch.zeros(n, dim)) if kind != "timestep" else None

    def forward(self, embedding: Tensor | None) -> Tensor:
        if self.linear is None or embedding is None:
            assert self.constant is not None
            return self.constant
        # In the weights' own precision under autocast too: it is one vector, and LayerNorm takes it as it is.
        with without_autocast(embedding):
            out: Tensor = self.linear(F.silu(embedding))
        return out.view(self.n, -1)


class _Block(nn.Module):
    """Pre-LN attention and MLP, each modulated and gated."""

    def __init__(self, config: MapperConfig) -> None:
        super().__init__()
        dim, width = config.dim, int(config.dim * config.mlp_ratio)
        self.heads = config.heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        self.fc1 = nn.Linear(dim, width)
        self.fc2 = nn.Linear(width, dim)
        self.modulation = _Modulation(6, dim, config.modulation)

    def forward(self, x: Tensor, embedding: Tensor | None) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(embedding)
        x = x + gate1 * self._attend(_normed(x, shift1, scale1))
        out: Tensor = x + gate2 * self.fc2(F.gelu(self.fc1(_normed(x, shift2, scale2)), approximate="tanh"))
        return out

    def _attend(self, x: Tensor) -> Tensor:
        batch, tokens, dim = x.shape
        qkv = self.qkv(x).view(batch, tokens, 3, self.heads, dim // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        h = F.scaled_dot_product_attention(q, k, v)
        return self.out(h.transpose(1, 2).reshape(batch, tokens, dim))  # type: ignore[no-any-return]


def _normed(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    # LayerNorm's own affine is the modulation: one pass over x instead of two more.
    return F.layer_norm(x, x.shape[-1:], 1.0 + scale, shift, NORM_EPS)


class Mapper(nn.Module):
    """(batch, input_tokens, input_dim) image tokens to (batch, tokens, dim) latents.

    Architecture: the reference's ``src/s2n/sit.py`` at t = 0. It starts at zero output.

    Args:
        config: the sizes.
        checkpointing: recompute each block in the backward pass instead of keeping its activations.

    >>> mapper = Mapper(MapperConfig(tokens=8, dim=16, depth=1, heads=2, input_tokens=4, input_dim=3))
    >>> mapper(torch.zeros(2, 4, 3)).shape
    torch.Size([2, 8, 16])
    """

    positions: Tensor

    def __init__(self, config: MapperConfig, *, checkpointing: bool = False) -> None:
        super().__init__()
        self.config = config
        self.checkpointing = checkpointing
        n_in, d_in = config.token_shape
        self.mix_tokens = nn.Linear(n_in, config.tokens) if n_in != config.tokens else None
        self.project = nn.Linear(d_in, config.dim) if d_in != config.dim else None
        # A persistent buffer, since the published checkpoints carry it.
        self.register_buffer("positions", sinusoid(config.tokens, config.dim))
        self.timestep = _Timestep(config.dim) if config.modulation == "timestep" else None
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.depth))
        self.final_modulation = _Modulation(2, config.dim, config.modulation)
        self.final = nn.Linear(config.dim, config.dim)
        self._initialise()

    def forward(self, tokens: Tensor) -> Tensor:
        x = tokens
        if self.project is not None:
            x = self.project(x)
        if self.mix_tokens is not None:
            x = self.mix_tokens(x.transpose(1, 2)).transpose(1, 2)
        start, embedding = x, None if self.timestep is None else self.timestep()
        x = x + self.positions
        for block in self.blocks:
            if self.checkpointing and torch.is_grad_enabled():
                x = checkpoint(block, x, embedding, use_reentrant=False)
            else:
                x = block(x, embedding)
        shift, scale = self.final_modulation(embedding)
        out: Tensor = self.final(_normed(x, shift, scale))
        return out + start if self.config.prediction == "v" else out

    @torch.no_grad()
    def fold(self) -> Mapper:
        """The same function with its modulation as constants: a third fewer parameters, for inference.

        Its other weights are this mapper's own, not copies.
        """
        with torch.device("meta"):  # no memory and no drawing of weights that are replaced at once
            folded = Mapper(self.config.model_copy(update={"modulation": "folded"}))
        embedding = None if self.timestep is None else self.timestep()
        state = {k: v for k, v in self.state_dict().items() if ".linear." not in k}
        state = {k: v for k, v in state.items() if not k.startswith(("timestep.", "final_modulation."))}
        for i, block in enumerate(self.blocks):
            state[f"blocks.{i}.modulation.constant"] = block.modulation(embedding)  # type: ignore[operator]
        state["final_modulation.constant"] = self.final_modulation(embedding)
        folded.load_state_dict(state, assign=True)
        return folded.train(self.training)

    def require_trainable(self) -> None:
        """Refuse to train a folded mapper.

        Raises:
            SynBrainError: where it was folded: what its modulation was computed from is gone.
        """
        if self.config.modulation == "folded":
            raise SynBrainError(
                "the mapper was folded for inference and cannot be trained further",
                "take the run that it was folded from, opened without fold=True",
            )

    def _initialise(self) -> None:
        # Source: initialize_weights in src/s2n/sit.py (Xavier, adaLN-Zero, zero output).
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        if self.timestep is not None:
            nn.init.normal_(self.timestep.fc1.weight, std=0.02)
            nn.init.normal_(self.timestep.fc2.weight, std=0.02)
        for part in [*(block.modulation for block in self.blocks), self.final_modulation]:
            if isinstance(part, _Modulation) and part.linear is not None:
                nn.init.zeros_(part.linear.weight)
        nn.init.zeros_(self.final.weight)


def mlp_parameters(mapper: Mapper) -> list[str]:
    """Names of the parameters of the MLPs, which the published few-shot adaptation trains alone."""
    return [
        name
        for name, _ in mapper.named_parameters()
        if name.startswith("blocks.") and (".fc1." in name or ".fc2." in name)
    ]
