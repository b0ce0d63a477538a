"""Encoders that were tuned on recordings: a base encoder with other weights and one more layer, ``readout``.

The layer ``readout`` is the map that the subjects' readouts saw when the encoder was tuned: chosen layers of
the base, each brought to one grid, side by side, standardised by channel, mixed by a 1 x 1 convolution, GELU.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from synbrain.data.known_pictures import PICTURES, KnownPictures
from synbrain.data.marks import unpacked
from synbrain.errors import SynBrainError
from synbrain.features.encoder import Encoder, encoder_digest, frozen, weights_digest
from synbrain.features.tuned_folder import BASE, CARD, CONFIG, HEAD, KIND, READOUT, READOUTS, read_config
from synbrain.files import atomic_path, verify_manifest, write_json, write_text

WEIGHTS = "model.safetensors"
MOST_ROWS = 16  # of a map whose side nobody chose; a unit has a weight for each of its places


class FeatureMap(nn.Module):
    """Layers of an encoder to one map of ``side * side`` places and ``channels`` channels.

    ``GELU(W ((x - mean) / sd) + b)`` at every place, x being the layers' channels there. Mean and sd are
    those of the encoder before it was tuned. A batch norm would follow the weights, but make an image's
    features depend on the others of its batch, and the result on the number of processes.

    Args:
        shapes: layer -> (n_tokens, dim); every layer a square grid.
        side: rows of the map.
        channels: of the map.
    """

    mean: Tensor
    sd: Tensor

    def __init__(self, shapes: Mapping[str, tuple[int, int]], side: int, channels: int) -> None:
        super().__init__()
        for layer, (n_tokens, _) in shapes.items():
            if math.isqrt(n_tokens) ** 2 != n_tokens:
                raise SynBrainError(f"layer {layer} has {n_tokens} tokens, no square grid", "leave it out")
        self.layers, self.side, self.channels = tuple(shapes), side, channels
        width = sum(dim for _, dim in shapes.values())
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("sd", torch.ones(width))
        self.mix = nn.Linear(width, channels)

    def joined(self, tokens: Mapping[str, Tensor]) -> Tensor:
        """(n, side * side, sum of dims), the layers side by side."""
        return torch.cat([regridded(tokens[layer], self.side) for layer in self.layers], dim=2)

    def forward(self, tokens: Mapping[str, Tensor]) -> Tensor:
        """(n, side * side, channels) of layer -> (n, n_tokens, dim)."""
        mixed: Tensor = self.mix((self.joined(tokens) - self.mean) / self.sd)
        return F.gelu(mixed)


def finest_side(shapes: Mapping[str, tuple[int, int]]) -> int:
    """Rows of the finest of these layers, layer -> (n_tokens, dim); at most :data:`MOST_ROWS`.

    A coarser map hides where a unit looks: with 14 rows instead of 7, V4 sessions that were not tuned on are
    predicted better by .002 to .009 (docs/research/tuning.md).

    >>> finest_side({"block7": (196, 80), "block14": (49, 192)})
    14
    """
    return min(MOST_ROWS, max(math.isqrt(n_tokens) for n_tokens, _ in shapes.values()))


def regridded(tokens: Tensor, side: int) -> Tensor:
    """(n, rows * rows, dim) to (n, side * side, dim): averaged to fewer rows, bilinear to more."""
    n, n_tokens, dim = tokens.shape
    rows = math.isqrt(n_tokens)
    if rows == side:
        return tokens
    grid = tokens.transpose(1, 2).reshape(n, dim, rows, rows)
    if rows > side:
        grid = F.adaptive_avg_pool2d(grid, side)
    else:
        grid = F.interpolate(grid, size=(side, side), mode="bilinear", align_corners=False)
    return grid.flatten(2).transpose(1, 2)


def with_readout(base: Encoder, head: FeatureMap) -> Callable[[Tensor, tuple[str, ...]], dict[str, Tensor]]:
    """The base encoder's network with the layer ``readout`` beside its own."""

    def network(batch: Tensor, wanted: tuple[str, ...]) -> dict[str, Tensor]:
        inside = tuple(layer for layer in wanted if layer != READOUT)
        needed = head.layers if READOUT in wanted else ()
        tokens = base.network(batch, tuple(dict.fromkeys((*inside, *needed))))
        outputs = {layer: tokens[layer] for layer in inside}
        if READOUT in wanted:
            outputs[READOUT] = head.forward(tokens)
        return outputs

    return network


def tuned_encoder(base: Encoder, head: FeatureMap, config: dict[str, Any], hub_id: str | None) -> Encoder:
    """The encoder that ``base``, with tuned weights, and ``head`` make.

    Args:
        base: at the size it was tuned at.
        head: on the same device.
        config: content of ``config.json``.
        hub_id: where it can be had by name; None: nowhere.
    """
    layers = {layer: base.layers[layer] for layer in head.layers}
    layers |= {READOUT: (head.side**2, head.channels)}
    describe = {
        "preprocessing": base.describe["preprocessing"],
        "layers": {layer: list(shape) for layer, shape in layers.items()},
        "tokens": base.describe["tokens"],
        "base": config["base"],
        "datasets": config["datasets"],
        "tuned_on": config["tuned_on"],
    }
    assert base.module is not None
    of_base = weights_digest(base.module.state_dict())  # base.digest may be of the weights before the tuning
    weights = encoder_digest("head", weights_digest(head.state_dict()), {"base": of_base})
    return replace(
        base,
        name=config["name"],
        digest=encoder_digest(KIND, weights, describe),
        layers=layers,
        default_layer=READOUT,
        describe=describe,
        network=with_readout(base, head),
        hub_id=hub_id,
        module=None,
        in_training=None,
    )


def save_tuned(folder: Path, base: Encoder, head: FeatureMap, config: dict[str, Any], card: str) -> list[str]:
    """Write a tuned encoder into ``folder``, and return the names of the files."""
    assert base.module is not None
    (folder / BASE).mkdir(parents=True, exist_ok=True)
    network: Any = base.module
    if hasattr(network, "save_pretrained"):
        network.save_pretrained(folder / BASE)  # transformers: config.json and model.safetensors
    else:
        _save(network, folder / BASE / WEIGHTS)
    _save(head, folder / HEAD)
    write_json(folder / CONFIG, config)
    write_text(folder / CARD, card)
    return [CONFIG, HEAD, *(f"{BASE}/{path.name}" for path in sorted((folder / BASE).iterdir()))]


def load_tuned(
    folder: Path,
    factories: Mapping[str, Callable[..., Encoder]],
    device: torch.device,
    precision: str,
    hub_id: str | None = None,
) -> Encoder:
    """The encoder that :func:`save_tuned` wrote.

    Args:
        folder: of the encoder.
        factories: the registry of base encoders.
        device, precision: see :class:`Encoder`.
        hub_id: what it was asked for by; kept where that is no local folder.

    Raises:
        SynBrainError: a file that was altered or is missing, or a base encoder that is not known.
    """
    verify_manifest(folder)
    config = read_config(folder)
    name, where = config["base"], folder / BASE
    if name not in factories:
        raise SynBrainError(f"{folder} was tuned from the encoder {name}, unknown here", "update synbrain")
    weights = where if (where / CONFIG).exists() else where / WEIGHTS
    base = factories[name](name, str(weights), device, precision, config["size"])
    head = FeatureMap({k: base.layers[k] for k in config["layers"]}, config["side"], config["channels"])
    head.load_state_dict(load_file(folder / HEAD))
    frozen(head, device)
    local = hub_id is None or Path(hub_id).is_dir()
    encoder = tuned_encoder(base, head, config, None if local else hub_id)
    seen = KnownPictures.load(folder / READOUTS / PICTURES)
    return replace(encoder, tuned_pictures=seen.only(unpacked(config["tuned_on"])))


def _save(module: nn.Module, path: Path) -> None:
    state = {name: value.detach().cpu().contiguous() for name, value in module.state_dict().items()}
    with atomic_path(path) as partial:
        save_file(state, partial)
