"""EfficientNet-Lite as it is trained with frozen batch statistics: the same layers at a lower cost.

With its statistics frozen, a batch norm is a factor and an offset for each channel,
``y = s (w * x) + (b - s m)`` with ``s = gamma / sqrt(var + eps)``. They are put into the convolution before
it, ``(s w) * x + (b - s m)``: gamma, b and w get their gradients through the small weights, and a pass over
the activations is saved on the way forward and another on the way back. Depthwise convolutions stay in
float32 under autocast: their half-precision gradients take five to ten times as long on CPUs, and they hold
few of the multiplications.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from synbrain.features.encoder import grid_tokens


def training_tokens(net: Any, batch: Tensor, wanted: tuple[str, ...], largest_grid: int) -> dict[str, Tensor]:
    """The layers ``wanted`` of a preprocessed batch, differentiable in every weight that may be trained.

    Args:
        net: an EfficientNet of ``efficientnet_lite_pytorch``, in evaluation mode.
        batch: (n, 3, h, w) preprocessed images.
        wanted: among ``block0`` .. and ``final``; blocks after the last of them are not run.
        largest_grid: rows of a layer at most; see :func:`grid_tokens`.
    """
    last = max(len(net._blocks) if layer == "final" else int(layer[5:]) for layer in wanted)
    tokens: dict[str, Tensor] = {}
    x = net._swish(normed(batch.contiguous(memory_format=torch.channels_last), net._conv_stem, net._bn0))
    for i, block in enumerate(net._blocks):
        if i > last:
            break
        x = _through(block, x)
        if f"block{i}" in wanted:
            tokens[f"block{i}"] = grid_tokens(x, largest_grid)
    if "final" in wanted:
        tokens["final"] = grid_tokens(net._swish(normed(x, net._conv_head, net._bn1)))
    return tokens


def _through(block: Any, inputs: Tensor) -> Tensor:
    """An inverted bottleneck: expand, look around within each channel, project, and add the input."""
    x = inputs
    if hasattr(block, "_expand_conv"):
        x = block._swish(normed(x, block._expand_conv, block._bn0))
    x = block._swish(normed(x, block._depthwise_conv, block._bn1))
    x = normed(x, block._project_conv, block._bn2)
    return x + inputs if x.shape == inputs.shape and block.id_skip else x


def normed(x: Tensor, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> Tensor:
    """``norm(conv(x))`` with frozen statistics, the norm within the convolution's weights."""
    assert norm.running_var is not None
    assert norm.running_mean is not None
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    weight, bias = conv.weight * scale[:, None, None, None], norm.bias - norm.running_mean * scale
    pad = _padding(conv)
    if len(set(pad)) > 1:
        x, pad = F.pad(x, pad), (0,)
    if conv.groups == 1:
        return F.conv2d(x, weight, bias, conv.stride, pad[0])
    with torch.autocast(x.device.type, enabled=False):
        return F.conv2d(x.float(), weight, bias, conv.stride, pad[0], groups=conv.groups).to(x.dtype)


def _padding(conv: Any) -> tuple[int, ...]:
    """Of a convolution of the package, which pads by a module of its own: left, right, top, bottom."""
    pad = getattr(conv, "static_padding", None)
    return tuple(pad.padding) if isinstance(pad, nn.ZeroPad2d) else (0,)
