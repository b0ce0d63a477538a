"""Image to network input: the two resizings, stated exactly because tokens depend on every detail.

Both squash the whole image to a square without cropping: a voxel's receptive field may lie anywhere
in what the subject saw, so nothing of it is thrown away.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from synbrain.data.pictures import to_rgb

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class Preprocessing:
    """RGB image -> (3, size, size) float32, ``(resized - mean) / std`` per channel.

    Attributes:
        size: height and width of the result, pixels.
        resize: "pil-bicubic" (PIL's antialiased bicubic on uint8) or "tensor-bicubic"
            (:func:`resize_tensor_bicubic`, the reference's).
        value_range: 255 where mean and std are in grey levels, 1 where they are in [0, 1].
        mean, std: per channel R, G, B, in that range.
    """

    size: int
    resize: Literal["pil-bicubic", "tensor-bicubic"]
    value_range: Literal[1, 255]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __call__(self, image: Image.Image) -> torch.Tensor:
        """(3, size, size) float32 of any PIL image, decoded by :mod:`synbrain.data.pictures`."""
        return self.normalised(self.resized(image))

    def resized(self, image: Image.Image) -> torch.Tensor:
        """(3, size, size) float32, grey levels 0 to 255 (whole numbers where PIL resizes)."""
        rgb = to_rgb(image)
        if self.resize == "pil-bicubic":
            return to_tensor(rgb.resize((self.size, self.size), Image.Resampling.BICUBIC))
        return resize_tensor_bicubic(to_tensor(rgb), self.size)

    def normalised(self, pixels: torch.Tensor) -> torch.Tensor:
        """(..., 3, size, size) grey levels, any dtype, to what the network takes, float32."""
        mean, std = (
            torch.tensor(values, device=pixels.device).view(3, 1, 1) for values in (self.mean, self.std)
        )
        return (pixels * (self.value_range / 255.0) - mean) / std

    def describe(self) -> dict[str, Any]:
        """JSON-able fields; part of an encoder's digest."""
        return asdict(self)


# The scaling with which TensorFlow's EfficientNet-Lite weights were trained: (x - 127) / 128.
EFFICIENTNET_LITE = Preprocessing(
    size=224, resize="pil-bicubic", value_range=255, mean=(127.0,) * 3, std=(128.0,) * 3
)


def clip_preprocessing(size: int) -> Preprocessing:
    """The reference's CLIP input at ``size`` pixels.

    Source: SynBrain ``FrozenOpenCLIPImageEmbedder.preprocess``: values in [0, 1], kornia ``resize``
    (bicubic, align_corners, antialias) of the whole image, then CLIP's mean and std.
    """
    return Preprocessing(size=size, resize="tensor-bicubic", value_range=1, mean=CLIP_MEAN, std=CLIP_STD)


def squashed(size: int, mean: tuple[float, float, float], std: tuple[float, float, float]) -> Preprocessing:
    """The whole image by PIL's bicubic at ``size`` pixels, then ``mean`` and ``std`` of values in [0, 1]."""
    return Preprocessing(size=size, resize="pil-bicubic", value_range=1, mean=mean, std=std)


def to_tensor(image: Image.Image) -> torch.Tensor:
    """(3, h, w) float32 in 0..255 of an RGB image."""
    return torch.from_numpy(np.array(image, dtype=np.float32)).permute(2, 0, 1).contiguous()


def resize_tensor_bicubic(pixels: torch.Tensor, size: int) -> torch.Tensor:
    """Resize as kornia does with ``interpolation="bicubic", align_corners=True, antialias=True``.

    Where any side shrinks, both sides are first smoothed by a Gaussian with reflected borders:
    sigma = max((factor - 1) / 2, 0.001), window = the odd number from max(4 sigma, 3). Then torch's
    bicubic (a = -0.75) with aligned corners, without clipping.

    Args:
        pixels: (3, h, w) float32.
        size: height and width of the result, pixels.
    """
    height, width = pixels.shape[-2:]
    batch = pixels[None]
    factors = (height / size, width / size)
    if max(factors) > 1:
        for axis, factor in zip((2, 3), factors, strict=True):
            batch = _gaussian_along(batch, axis, max((factor - 1) / 2, 0.001))
    return F.interpolate(batch, size=(size, size), mode="bicubic", align_corners=True)[0]


def _gaussian_along(batch: torch.Tensor, axis: int, sigma: float) -> torch.Tensor:
    if batch.shape[axis] == 1:
        return batch
    window = int(max(4.0 * sigma, 3.0))
    window += 1 - window % 2
    half = window // 2
    offsets = torch.arange(-half, half + 1, dtype=torch.float32)
    kernel = torch.exp(-(offsets**2) / (2 * sigma**2))
    kernel /= kernel.sum()
    shape, padding = ((1, 1, -1, 1), (0, 0, half, half)) if axis == 2 else ((1, 1, 1, -1), (half, half, 0, 0))
    channels = batch.shape[1]
    padded = F.pad(batch, padding, mode="reflect")
    return F.conv2d(padded, kernel.view(shape).expand(channels, 1, *shape[2:]), groups=channels)
