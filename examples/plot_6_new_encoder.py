"""
Add an encoder
==============

An encoder turns a picture into tokens: vectors, each with its place. A new one is one function and one entry in a
dictionary; everything else (storage, training, scores) follows.
"""

# %%
# The function
# ------------
#
# Edge energies in eight directions on a grid of 8 x 8, as a model of early vision without any learning.

import numpy as np
import torch

from shared import example_dataset
from synbrain.features.encoder import Encoder, encoder_digest, grid_tokens
from synbrain.features.encoders import ENCODERS
from synbrain.features.preprocessing import Preprocessing

N_DIRECTIONS, SIDE = 8, 8


def edges(name: str, weights: str | None, device: torch.device, precision: str = "float32") -> Encoder:
    """Energy of oriented edges, eight directions in each of 8 x 8 places."""
    preprocess = Preprocessing(64, "pil-bicubic", value_range=1, mean=(0.5,) * 3, std=(0.5,) * 3)
    describe = {"preprocessing": preprocess.describe(), "directions": N_DIRECTIONS, "side": SIDE}
    angles = torch.arange(N_DIRECTIONS) * torch.pi / N_DIRECTIONS

    def network(batch: torch.Tensor, wanted: tuple[str, ...]) -> dict[str, torch.Tensor]:
        down, across = torch.gradient(batch.mean(dim=1), dim=(1, 2))
        cos, sin = torch.cos(angles)[:, None, None], torch.sin(angles)[:, None, None]
        return {"energy": grid_tokens((across[:, None] * cos + down[:, None] * sin).abs(), SIDE)}

    return Encoder(
        name=name,
        digest=encoder_digest(name, "none", describe),  # tokens of another definition will be refused
        layers={"energy": (SIDE**2, N_DIRECTIONS)},
        default_layer="energy",
        preprocess=preprocess,
        describe=describe,
        network=network,
        device=device,
        precision=precision,
    )


ENCODERS["edges"] = edges

# %%
# Tokens of a dataset
# -------------------

from synbrain.features.options import FeatureOptions
from synbrain.features.store import make_tokens, open_tokens

dataset = example_dataset()
make_tokens(dataset, FeatureOptions(encoder="edges"), overwrite=True)
tokens = open_tokens(dataset, "edges")
print(tokens.shapes)

# %%
# How much do they tell?
# ----------------------
#
# Ridge regression with either encoder, in early and in later areas. Choose encoders on training images, not by this
# table.

from synbrain.baselines.ridge import Ridge
from synbrain.features.tokens import split_pairs
from synbrain.metrics.voxel import voxel_r

streams = dataset.space.roi_masks("streams")
for encoder in ("edges", "efficientnet-lite0"):
    train, test = split_pairs(dataset, open_tokens(dataset, encoder))
    r = voxel_r(Ridge().fit(train).predict(test.tokens), test.repeat_means())
    by_area = {name.split("/")[1]: round(float(np.nanmean(r[mask])), 2) for name, mask in streams.items()}
    print(f"{encoder:<20}", by_area)
