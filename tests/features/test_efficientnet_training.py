"""EfficientNet in the form in which it is trained: the same layers and the same gradients."""

from __future__ import annotations

import pytest
import torch

from synbrain.features.encoders import get_encoder

LAYERS = ("block0", "block7", "block14", "final")


@pytest.mark.parametrize("size", [64, 112])
def test_layers_and_gradients_are_those_of_the_plain_network(size: int) -> None:
    encoder = get_encoder("efficientnet-lite0", size=size)
    assert encoder.module is not None
    assert encoder.in_training is not None
    encoder.module.requires_grad_(True)
    pixels = torch.randint(0, 256, (2, 3, size, size), generator=torch.Generator().manual_seed(0))
    batch = encoder.preprocess.normalised(pixels.float())
    layers, gradients = [], []
    for network in (encoder.network, encoder.in_training):
        tokens = network(batch, LAYERS)
        encoder.module.zero_grad(set_to_none=True)
        torch.stack([value.square().mean() for value in tokens.values()]).sum().backward()
        layers.append(tokens)
        gradients.append(
            {name: p.grad for name, p in encoder.module.named_parameters() if p.grad is not None}
        )
    for layer in LAYERS:
        torch.testing.assert_close(layers[1][layer], layers[0][layer], rtol=1e-4, atol=1e-3)
    assert gradients[0].keys() == gradients[1].keys()
    assert "_conv_stem.weight" in gradients[0]
    for name, plain in gradients[0].items():
        # a unit at the edge of ReLU6 may fall to either side
        assert (gradients[1][name] - plain).norm() < 0.02 * plain.norm(), name


def test_half_precision_gives_nearly_the_same_layers() -> None:
    encoder = get_encoder("efficientnet-lite0", size=64)
    assert encoder.in_training is not None
    batch = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    full = encoder.in_training(batch, ("block7",))["block7"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = encoder.in_training(batch, ("block7",))["block7"]
    assert half.dtype == torch.bfloat16
    assert (half.float() - full).norm() < 0.05 * full.norm()
