"""The reference trainers' checkpoints, read without executing anything that is pickled in them."""

from __future__ import annotations

import argparse
import pickle
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from pydantic import ValidationError
from torch import nn

from synbrain.errors import SynBrainError
from synbrain.networks.brainvae import BrainVAE, BrainVAEConfig
from synbrain.networks.mapper import Mapper, MapperConfig
from synbrain.reference.names import State, join, mapper_names, reference_shapes, vae_names

Config = TypeVar("Config", BrainVAEConfig, MapperConfig)
Network = TypeVar("Network", bound=nn.Module)

# what trainers save besides tensors: values without code
PLAIN: list[Any] = [
    argparse.Namespace, np.dtype, np.dtypes.Float64DType, np.dtypes.Float32DType, np.dtypes.Int64DType,
    (np._core.multiarray.scalar, "numpy.core.multiarray.scalar"), np._core.multiarray.scalar,
]  # fmt: skip
_SHOWN = 8  # tensors named in an error before the rest is counted


def read_reference_vae(path: Path) -> BrainVAE:
    """The BrainVAE in ``path``, a checkpoint of ``train_vae.py`` (keys model, optimizer, epoch).

    Every size comes from the tensors. Weights are float32.

    Raises:
        SynBrainError: where the file is no such checkpoint, or a tensor is missing, extra or misshapen.
    """
    content = load_checkpoint(path)
    state = tensors_of(content.get("model", content), path, "model")
    config = _vae_config(state, path)
    with torch.device("meta"):
        vae = BrainVAE(config)
    n_levels = len(config.multipliers)
    return _filled(vae, state, lambda ours: vae_names(ours, n_levels), path)


def read_reference_mapper(path: Path, heads: int | None = None) -> Mapper:
    """The EMA weights in ``path``, a checkpoint of ``train_b2i_os.py`` (keys model, ema, opt, args, steps).

    Args:
        path: the checkpoint.
        heads: attention heads, where the saved arguments do not tell them.

    Raises:
        SynBrainError: where the file is no such checkpoint, heads are unknown or contradict the saved
            ones, or a tensor is missing, extra or misshapen.
    """
    content = load_checkpoint(path)
    if "ema" not in content:
        raise SynBrainError(
            f"{path} holds no EMA weights (keys: {', '.join(map(str, content))})",
            "pass the last.pt that the reference's mapper trainer wrote",
        )
    state = tensors_of(content["ema"], path, "ema")
    saved = content.get("args")
    arguments: dict[str, Any] = vars(saved) if isinstance(saved, argparse.Namespace) else dict(saved or {})
    config = _mapper_config(state, path, _heads(arguments, heads, path), arguments.get("prediction") or "x")
    with torch.device("meta"):
        mapper = Mapper(config)
    return _filled(mapper, state, mapper_names, path)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a file that torch saved, tensors mapped from the disk; no pickled code is executed.

    Raises:
        SynBrainError: where it is missing, damaged, or holds other objects than tensors and plain values.
    """
    if not path.is_file():
        raise SynBrainError(f"{path} is missing", "check the path")
    try:
        with torch.serialization.safe_globals(PLAIN):
            try:  # mapped, so that optimiser states three times the weights are never read
                content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            except RuntimeError:  # a file from before torch 1.6 cannot be mapped
                content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0]
        raise SynBrainError(
            f"{path} holds pickled objects besides tensors and was not loaded ({reason})",
            "pass a checkpoint written by the reference trainers; code in others is not executed",
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        raise SynBrainError(
            f"{path} cannot be read as a checkpoint ({error})", "it was cut short or altered: copy it again"
        ) from error
    if not isinstance(content, dict):
        raise SynBrainError(f"{path} holds a {type(content).__name__}, not a checkpoint", "check the path")
    return content


def tensors_of(content: Any, path: Path, key: str) -> State:
    """A state dict without the prefix that data-parallel training leaves; ``key`` is named in errors."""
    if not isinstance(content, dict) or not content:
        raise SynBrainError(f"{path} holds no state dict under {key!r}", "check the path")
    state = {str(name).removeprefix("module."): value for name, value in content.items()}
    odd = [name for name, value in state.items() if not isinstance(value, torch.Tensor)]
    if odd:
        raise SynBrainError(f"{path} holds no tensor for {listed(odd)}", "pass a reference checkpoint")
    return state


def _heads(arguments: dict[str, Any], flag: int | None, path: Path) -> int:
    saved = arguments.get("model_head")
    if saved is None and flag is None:
        raise SynBrainError(
            f"{path} does not say how many attention heads its mapper has",
            "pass --heads (13 in the published runs)",
        )
    if saved is not None and flag is not None and int(saved) != flag:
        raise SynBrainError(f"{path} was trained with {saved} heads, not {flag}", "leave --heads out")
    return int(saved) if saved is not None else int(flag or 0)


class Sizes:
    """Reads sizes off tensors; several tensors vote, so that one misshapen tensor is the one named."""

    def __init__(self, state: State, path: Path) -> None:
        self.state, self.path = state, path

    def vote(self, *places: tuple[str, int]) -> int:
        sizes = [
            self.state[name].shape[axis]
            for name, axis in places
            if name in self.state and self.state[name].ndim > axis
        ]
        if not sizes:
            raise SynBrainError(
                f"{self.path} lacks the tensor {places[0][0]}", "pass a complete reference checkpoint"
            )
        return int(Counter(sizes).most_common(1)[0][0])

    def count(self, pattern: str) -> int:
        """1 + the highest index that ``pattern`` captures in the names; 0 where none matches."""
        numbers = [int(match[1]) for name in self.state if (match := re.match(pattern, name))]
        return 1 + max(numbers, default=-1)

    def distinct(self, pattern: str) -> int:
        return len({match[1] for name in self.state if (match := re.match(pattern, name))})


def _vae_config(state: State, path: Path) -> BrainVAEConfig:
    sizes = Sizes(state, path)
    n_levels = sizes.count(r"encoder\.down\.(\d+)\.")
    channels = sizes.vote(
        ("encoder.conv_in.weight", 0), ("encoder.conv_in.bias", 0), ("encoder.down.0.block.0.norm1.weight", 0)
    )
    widths = [
        sizes.vote(*((f"encoder.down.{i}.block.0.{name}", 0) for name in _BLOCK_WIDTH))
        for i in range(n_levels)
    ]
    odd = [width for width in widths if width % channels]
    if odd or not widths:
        raise SynBrainError(
            f"{path} has levels of {widths} channels on a base of {channels}",
            "pass a reference checkpoint: its levels are multiples of the base",
        )
    down = sizes.distinct(r"encoder\.down\.(\d+)\.downsample\.")
    hidden = sizes.vote(
        ("pre_projector_mean.0.weight", 0), ("pre_projector_logvar.0.weight", 0), ("post_projector.8.bias", 0)
    )
    return _checked(
        BrainVAEConfig,
        path,
        tokens=sizes.vote(
            ("encoder.conv_out.weight", 0), ("encoder.conv_out.bias", 0), ("decoder.conv_in.weight", 1)
        ),
        dim=sizes.vote(
            ("pre_projector_mean.8.bias", 0), ("pre_projector_logvar.8.bias", 0), ("post_projector.0.bias", 0)
        ),
        channels=channels,
        multipliers=tuple(width // channels for width in widths),
        res_blocks=sizes.count(r"encoder\.down\.\d+\.block\.(\d+)\."),
        pooled_length=hidden * 2**down,
        down_blocks=down,
        up_blocks=sizes.distinct(r"decoder\.up\.(\d+)\.upsample\."),
        projector_width=sizes.vote(
            ("pre_projector_mean.2.bias", 0), ("pre_projector_mean.5.bias", 0), ("post_projector.2.bias", 0)
        ),
        edge_kernel=sizes.vote(
            ("encoder.conv_in.weight", 2), ("encoder.conv_out.weight", 2), ("decoder.conv_in.weight", 2)
        ),
    )


_BLOCK_WIDTH = ("conv1.weight", "conv1.bias", "norm2.weight", "conv2.weight", "conv2.bias")


def _mapper_config(state: State, path: Path, heads: int, prediction: str) -> MapperConfig:
    sizes = Sizes(state, path)
    dim = sizes.vote(
        ("pos_embed", 2),
        ("t_embedder.mlp.2.bias", 0),
        ("final_layer.linear.bias", 0),
        ("blocks.0.mlp.fc2.bias", 0),
    )
    width = sizes.vote(*((f"blocks.0.mlp.{name}", axis) for name, axis in _MLP_WIDTH))
    return _checked(
        MapperConfig,
        path,
        tokens=sizes.vote(("pos_embed", 1)),
        dim=dim,
        depth=sizes.count(r"blocks\.(\d+)\."),
        heads=heads,
        mlp_ratio=width / dim,
        prediction=prediction,
    )


_MLP_WIDTH = (("fc1.weight", 0), ("fc1.bias", 0), ("fc2.weight", 1))


def _checked(kind: type[Config], path: Path, **sizes: Any) -> Config:
    try:
        return kind(**sizes)
    except ValidationError as error:
        reasons = "; ".join(entry["msg"] for entry in error.errors())
        raise SynBrainError(f"{path} has sizes that do not fit together ({reasons})", "check it") from error


def _filled(network: Network, state: State, names: Callable[[str], list[str]], path: Path) -> Network:
    """``network`` (on the meta device) with the tensors of ``state``, or an error that names the odd ones."""
    left = dict(state)
    missing: list[str] = []
    misshapen: list[str] = []
    own_state: State = {}
    for ours, wanted in network.state_dict().items():
        theirs = names(ours)
        pieces = [left.pop(name, None) for name in theirs]
        shapes = reference_shapes(ours, wanted.shape, theirs)
        for name, piece, shape in zip(theirs, pieces, shapes, strict=True):
            if piece is None:
                missing.append(name)
            elif tuple(piece.shape) != shape:
                misshapen.append(f"{name} {tuple(piece.shape)} instead of {shape}")
        if not missing and not misshapen:
            own_state[ours] = join([piece for piece in pieces if piece is not None], wanted.shape)
    problems = {"missing": missing, "extra": sorted(left), "misshapen": misshapen}
    listed_problems = [f"{kind}: {listed(tensors)}" for kind, tensors in problems.items() if tensors]
    if listed_problems:
        raise SynBrainError(
            f"{path} does not fit the reference's architecture; {'; '.join(listed_problems)}",
            "pass a checkpoint written by the reference trainers",
        )
    network.load_state_dict(own_state, assign=True)
    return network.eval()


def listed(names: list[str]) -> str:
    """The first names, and how many more there are."""
    shown = ", ".join(names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"
