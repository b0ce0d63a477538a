"""What every image encoder is: preprocessing, a frozen network and named layers of tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from synbrain.data.known_pictures import NO_PICTURES, KnownPictures
from synbrain.errors import SynBrainError
from synbrain.features.preprocessing import Preprocessing
from synbrain.files import digest_of

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# Larger activations are given back to the system after every layer, and fetching them again costs as much
# as the arithmetic: EfficientNet-Lite0 takes 31 ms of one core an image in fours, 58 ms in thirty-twos.
CPU_BATCH = 4
# (batch (n, 3, h, w), layer names) -> layer -> (n, n_tokens, dim)
Network = Callable[[torch.Tensor, tuple[str, ...]], Mapping[str, torch.Tensor]]


@dataclass(frozen=True)
class Encoder:
    """A frozen network that turns images into tokens.

    Attributes:
        name: its key in ``ENCODERS``.
        digest: of weights, preprocessing and the definition of the layers; not of the choice of
            layers, nor of device and precision.
        layers: layer -> (n_tokens, dim), in the order of the network.
        default_layer: the one used where none is asked for; always a key of ``layers``.
        preprocess: PIL image -> (3, h, w) float32.
        describe: JSON-able statement of preprocessing and layers, as digested.
        network: the layers of a preprocessed batch.
        device: where the network lies.
        precision: "float32", or "bfloat16" / "float16" for autocast on a GPU.
        hub_id: where the weights can be had by name, else None (a local path is not told).
        module: what holds the weights that ``network`` computes with; None where there is nothing to train.
        parts: of a joint encoder (:mod:`synbrain.features.joint`), which has no network of its own.
        tuned_pictures: that it was tuned on, to know them again in other files.
        in_training: the same function as ``network`` but for rounding, in a form that is cheaper to train;
            None: there is no such form.
    """

    name: str
    digest: str
    layers: dict[str, tuple[int, int]]
    default_layer: str
    preprocess: Preprocessing
    describe: dict[str, Any]
    network: Network
    device: torch.device
    precision: str = "float32"
    hub_id: str | None = None
    module: nn.Module | None = None
    in_training: Network | None = None
    parts: tuple[Encoder, ...] = ()
    tuned_pictures: KnownPictures = NO_PICTURES

    def chosen(self, layers: Iterable[str] | None) -> tuple[str, ...]:
        """The layers asked for, without repetition; the default one for None.

        Raises:
            SynBrainError: where one is not a layer of this encoder.
        """
        names = tuple(dict.fromkeys(layers)) if layers else (self.default_layer,)
        unknown = [name for name in names if name not in self.layers]
        if unknown:
            raise SynBrainError(
                f"{self.name} has no layer {', '.join(unknown)}", f"choose from {', '.join(self.layers)}"
            )
        return names

    def forward(self, batch: torch.Tensor, layers: Iterable[str] | None = None) -> dict[str, torch.Tensor]:
        """Layer -> (n, n_tokens, dim) float32 on the CPU.

        Args:
            batch: (n, 3, h, w) float32, preprocessed images.
            layers: None for the default layer.
        """
        wanted = self.chosen(layers)
        casting = autocast_of(self.device, self.precision)
        step = CPU_BATCH if self.device.type == "cpu" else max(1, len(batch))
        parts: dict[str, list[torch.Tensor]] = {name: [] for name in wanted}
        with torch.inference_mode(), casting:
            for part in batch.split(step):
                outputs = self.network(part.to(self.device, non_blocking=True), wanted)
                for name in wanted:
                    parts[name].append(outputs[name].float().cpu())
            return {name: torch.cat(tensors) for name, tensors in parts.items()}


def pick_device(device: str | torch.device) -> torch.device:
    """``auto`` is CUDA, then Apple's MPS, then the CPU; anything else is taken as torch names it.

    Raises:
        SynBrainError: for a name that torch does not know, or a device that is not there.
    """
    if device != "auto":
        try:
            chosen = torch.device(device)
            float(torch.zeros(1, device=chosen))  # "meta" makes tensors but holds no values
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            reason = str(error).splitlines()[0]
            if reason.startswith("Expected one of"):  # a line of all that torch was ever built for
                reason = "torch knows none of that name"
            raise SynBrainError(
                f"no device {device!r} ({reason})", "choose auto, cpu, cuda or mps"
            ) from error
        return chosen
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def autocast_of(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """The context in which a network on ``device`` computes in ``precision``, a key of ``PRECISIONS``."""
    half = precision != "float32"
    return torch.autocast(device.type, PRECISIONS[precision]) if half else nullcontext()


def frozen(network: nn.Module, device: torch.device, *, channels_last: bool = False) -> nn.Module:
    """``network`` on ``device`` for inference, without gradients; convolutions channels last if asked."""
    network = network.eval().requires_grad_(False).to(device)
    return network.to(memory_format=torch.channels_last) if channels_last else network  # type: ignore[call-overload]


def weights_digest(state: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 over names, shapes, dtypes and values of a state dict, in the order of names.

    Names are taken without what depends on the version of transformers.
    """
    sha = hashlib.sha256()
    weights = {k.removeprefix("vision_model."): v for k, v in state.items() if not k.endswith("position_ids")}
    for name in sorted(weights):
        value = weights[name].detach().cpu().contiguous()
        sha.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        sha.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()


def encoder_digest(name: str, weights: str, describe: dict[str, Any]) -> str:
    """The digest of an encoder from its name, the digest of its weights and what it describes."""
    return digest_of({"encoder": name, "weights": weights, **describe})


def own_size_only(name: str, size: int | None, native: int) -> None:
    """Refuse another input size than the network's own, for networks that take no other."""
    if size not in (None, native):
        raise SynBrainError(
            f"{name} takes pictures of {native} pixels, not {size}", f"give size {native}, or none"
        )


def grid_tokens(features: torch.Tensor, largest: int | None = None) -> torch.Tensor:
    """(n, channels, h, w) to (n, h * w, channels), row by row from the top left.

    Args:
        features: a convolutional map.
        largest: maps with more than ``largest`` rows are average-pooled to that many.
    """
    if largest is not None and features.shape[-1] > largest:
        features = F.adaptive_avg_pool2d(features, largest)
    return features.flatten(2).transpose(1, 2)
