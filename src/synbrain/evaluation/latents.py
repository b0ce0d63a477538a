"""Retrieval of images in the latent space of a model's own VAE, by measured and by synthetic responses.

The published protocol: flattened posterior means against flattened tokens (where shapes differ, against
what training contrasted latents with, :func:`contrastive_target`), cosine, n-way. *Raw* encodes the
measured repeat mean. *Syn* encodes the synthetic response with the encoder of the very VAE whose decoder
made it: circular, so it says little about the brain; ``response_retrieval`` is its honest counterpart.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from synbrain.arrays import Float64
from synbrain.evaluation.measured import Measured
from synbrain.evaluation.row import Row
from synbrain.features.tokens import TokenSet
from synbrain.metrics.retrieval import N_SUBSETS, N_WAY, both_directions, cosine_matrix
from synbrain.metrics.voxel import blocks
from synbrain.model.synbrain import SynBrain
from synbrain.networks.losses import contrastive_target

CIRCULAR = "circular: the encoder that reads the synthetic response belongs to the decoder that made it"
SHAPES = "tokens were brought to the latent's shape by the projection that training contrasted with"
LATENT_VALUES = 2**26  # of latents and of tokens in memory at a time: 256 MiB each


def latent_retrieval(
    model: SynBrain,
    subject: str,
    predicted: NDArray[np.float32],
    measured: Measured,
    *,
    n_way: int = N_WAY,
    n_subsets: int = N_SUBSETS,
) -> Row:
    """Raw and synthetic retrieval; an empty row where the model has no VAE.

    The plain name ranks images for each response, ``_backward`` ranks responses for each image.

    Args:
        model: with a VAE.
        subject: whose scale the responses are in.
        predicted: (n_test_images, n_voxels), synthetic mean responses.
        measured: the measured side.
        n_way, n_subsets: of the retrieval.
    """
    layer = model.config.mapper_layer
    row = Row()
    if model.vae is None or layer is None or measured.test.n_images < 2:
        return row
    tokens = measured.test.tokens
    shape = (model.vae.config.tokens, model.vae.config.dim)
    if tokens.shapes[layer] != shape:
        row.notes["raw_retrieval"] = SHAPES
    for name, responses in (("raw_retrieval", measured.repeat_means), ("syn_retrieval", predicted)):
        similarity = _similarity(model, subject, responses, tokens, layer, shape)
        forward, backward = both_directions(similarity, n_way=n_way, n_subsets=n_subsets, seed=measured.seed)
        row.values[name], row.values[f"{name}_backward"] = forward, backward
    row.notes["syn_retrieval"] = row.notes["syn_retrieval_backward"] = CIRCULAR
    return row


def _similarity(
    model: SynBrain,
    subject: str,
    responses: NDArray[np.float32],
    tokens: TokenSet,
    layer: str,
    shape: tuple[int, int],
) -> Float64:
    """(n_responses, n_images) cosines, some responses and some images in memory at a time."""
    out = np.empty((len(responses), len(tokens)))
    for rows in blocks(len(responses), int(np.prod(shape)), LATENT_VALUES):
        latents = encode(model, subject, responses[rows])
        for columns in blocks(len(tokens), int(np.prod(tokens.shapes[layer])), LATENT_VALUES):
            images = tokens.read(layer, np.arange(columns.start, columns.stop))
            if images.shape[1:] != shape:
                images = contrastive_target(torch.from_numpy(images), *shape).numpy()
            out[rows, columns] = cosine_matrix(latents, images)
    return out


def encode(
    model: SynBrain, subject: str, responses: NDArray[np.float32], batch_size: int = 32
) -> NDArray[np.float32]:
    """(n, tokens, dim) float32, posterior means of responses (n, n_voxels) in the subject's unit."""
    assert model.vae is not None
    scale = model.subject(subject).scale
    means = []
    for start in range(0, len(responses), batch_size):
        scaled = scale.scaled(responses[start : start + batch_size])
        batch = torch.from_numpy(np.ascontiguousarray(scaled)).to(model.device)
        with torch.inference_mode():
            means.append(model.vae.encode(batch).mode().float().cpu().numpy())
    return np.concatenate(means)
