"""The diffusion ablation sees the image as the latents were aligned with it."""

from __future__ import annotations

import numpy as np
import torch

from synbrain.comparison.diffusion import AlignedTokens
from synbrain.features.tokens import TokenSet
from synbrain.networks.losses import contrastive_target


def test_a_change_at_one_place_of_the_image_stays_at_that_place() -> None:
    stored = np.random.default_rng(0).standard_normal((12, 4, 10)).astype(np.float32)
    tokens = TokenSet("toy", "digest", {"final": stored}, np.arange(12))
    grid = AlignedTokens(tokens, 4, 6)
    found = grid.read(tokens)
    expected = contrastive_target(torch.from_numpy(stored - stored.mean(axis=0)), 4, 6)
    torch.testing.assert_close(found, expected / grid.scale)
    moved = stored.copy()
    moved[:, 2] += 1
    apart = grid.read(TokenSet("toy", "digest", {"final": moved}, np.arange(12))) - found
    assert apart[:, 2].abs().min() > 0
    assert apart[:, [0, 1, 3]].abs().max() == 0
