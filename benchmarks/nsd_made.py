"""A made-up subject of NSD's size: structured tokens, voxels with receptive fields, noise of real strength.

Pictures are tiny and hold nothing but their number; tokens of CLIP's shape are a function of that number:
smooth maps of a few latent features with falling strengths, plus independent noise. Voxels see the features
through receptive fields, in patterns that they share, and a part that no linear map of the tokens reaches;
trials add noise of NSD's strength (ncsnr from .15 to .85), part of it shared among voxels.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd
import torch
from PIL import Image

from synbrain.data.dataset import Dataset
from synbrain.features.encoder import Encoder, encoder_digest
from synbrain.features.preprocessing import Preprocessing
from synbrain.features.store import write_tokens
from synbrain.prepare.table import prepare_table
from synbrain.progress import track

ENCODER, GRID, DIM, LATENTS = "made", 16, 1664, 64
REPEATS, FIELDS = 3, 8  # trials an image; receptive fields a side
PATTERNS, NOISE_PATTERNS = 60, 12


def latent_maps(numbers: np.ndarray) -> torch.Tensor:
    """(n, GRID * GRID, LATENTS) float32, smooth over positions, a function of each picture's number."""
    maps = []
    for number in numbers:
        rng = torch.Generator().manual_seed(int(number) + 1)
        coarse = torch.randn(1, LATENTS, 4, 4, generator=rng)
        fine = torch.randn(1, LATENTS, 8, 8, generator=rng)
        grown = [
            torch.nn.functional.interpolate(m, size=(GRID, GRID), mode="bilinear") for m in (coarse, fine)
        ]
        maps.append((grown[0] + 0.7 * grown[1])[0].flatten(1).T)
    return torch.stack(maps)


def made_encoder() -> Encoder:
    """Tokens of CLIP ViT-bigG's shape from the number that a picture holds."""
    rng = torch.Generator().manual_seed(7)
    strength = torch.arange(1, LATENTS + 1) ** -0.5
    mixing = strength[:, None] * torch.randn(LATENTS, DIM, generator=rng) / LATENTS**0.5

    def network(batch: torch.Tensor, wanted: tuple[str, ...]) -> dict[str, torch.Tensor]:
        numbers = batch[:, 0, 0, 0] + 256 * batch[:, 1, 0, 0] + 65536 * batch[:, 2, 0, 0]
        noise = torch.randn(
            len(batch), GRID**2, DIM, generator=torch.Generator().manual_seed(int(numbers[0]) + 10**9)
        )
        return {"final": latent_maps(numbers.numpy()) @ mixing + 0.3 * noise}

    def preprocess(image: Image.Image) -> torch.Tensor:
        return torch.from_numpy(np.asarray(image.convert("RGB"), dtype=np.float32)).permute(2, 0, 1)

    layers = {"final": (GRID**2, DIM)}
    describe = {"tokens": "made from the picture's number", "layers": {"final": [GRID**2, DIM]}}
    return Encoder(
        ENCODER, encoder_digest(ENCODER, "none", describe), layers, "final",
        cast(Preprocessing, preprocess), describe, network, torch.device("cpu"),
    )  # fmt: skip


def bank_encoder(size: int = 64) -> Encoder:
    """The made encoder as if it took no time: a picture has the tokens of one of ``size`` pictures."""
    made = made_encoder()
    pictures = torch.zeros(size, 3, 1, 1)
    pictures[:, 0, 0, 0] = torch.arange(size)
    bank = made.network(pictures, ("final",))["final"]

    def network(batch: torch.Tensor, wanted: tuple[str, ...]) -> dict[str, torch.Tensor]:
        return {"final": bank[(batch[:, 0, 0, 0] % size).long()]}

    return replace(made, network=network)


def truth(numbers: np.ndarray, n_voxels: int, seed: int) -> np.ndarray:
    """(n, n_voxels) float32 mean responses of variance about 1."""
    rng = np.random.default_rng([seed, 1])
    centres = (np.arange(FIELDS) + 0.5) / FIELDS
    at = (np.arange(GRID) + 0.5) / GRID
    line = np.exp(-((at[None] - centres[:, None]) ** 2) / (2 * 0.1**2))
    line /= line.sum(axis=1, keepdims=True)
    fields = np.concatenate([np.kron(line, line), np.full((1, GRID**2), 1 / GRID**2)]).astype(np.float32)
    field_of = rng.integers(0, len(fields), n_voxels)
    patterns = rng.standard_normal((PATTERNS, LATENTS)) * (np.arange(1, PATTERNS + 1) ** -0.5)[:, None]
    loadings = rng.standard_normal((n_voxels, PATTERNS))
    weights = (loadings @ patterns).astype(np.float32)
    bent = rng.standard_normal((n_voxels, LATENTS)).astype(np.float32)
    out = np.empty((len(numbers), n_voxels), dtype=np.float32)
    for start in range(0, len(numbers), 500):
        seen = np.einsum(
            "fp,npl->fnl", fields, latent_maps(numbers[start : start + 500]).numpy(), optimize=True
        )
        for f in range(len(fields)):
            mine = np.flatnonzero(field_of == f)
            out[start : start + 500, mine] = seen[f] @ weights[mine].T
            out[start : start + 500, mine] += 1.5 * np.abs(seen[f]) @ bent[mine].T
    return np.asarray((out - out.mean(axis=0)) / out.std(axis=0))


def picture(folder: Path, number: int) -> None:
    """Write a picture that holds ``number``, unless it is there."""
    path = folder / f"{number:06d}.png"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.zeros((8, 8, 3), dtype=np.uint8)
        pixels[:] = number % 256, number // 256 % 256, number // 65536
        Image.fromarray(pixels).save(path)


def make(out: Path, n_train: int, n_test: int, n_voxels: int, seed: int, first: int = 0) -> Dataset:
    """A dataset with tokens; pictures are numbered from ``first``."""
    source, n = out.with_name(out.name + "-source"), n_train + n_test
    numbers = np.arange(first, first + n)
    for number in numbers:
        picture(source / "images", int(number))
    rng = np.random.default_rng([seed, 2])
    shown = rng.permutation(np.repeat(np.arange(n), REPEATS))
    table = pd.DataFrame({"image": [f"{first + i:06d}.png" for i in shown]})
    table["repeat"] = table.groupby("image").cumcount()
    table["split"] = np.where(shown < n_train, "train", "test")
    table["session"] = np.arange(len(shown)) // 750
    table.to_csv(source / "trials.csv", index=False)
    ncsnr = np.clip(rng.lognormal(np.log(0.45), 0.5, n_voxels), 0.1, 1.2).astype(np.float32)
    shared = rng.standard_normal((NOISE_PATTERNS, n_voxels)).astype(np.float32) / NOISE_PATTERNS**0.5
    means = truth(numbers, n_voxels, seed)
    responses = np.lib.format.open_memmap(
        source / "responses.npy", mode="w+", dtype=np.float32, shape=(len(shown), n_voxels)
    )
    for start in track(range(0, len(shown), 750), "make trials", unit="session", show=True):
        part = shown[start : start + 750]
        noise = 0.8 * rng.standard_normal((len(part), n_voxels), dtype=np.float32)
        noise += 0.6 * rng.standard_normal((len(part), NOISE_PATTERNS), dtype=np.float32) @ shared
        responses[start : start + 750] = means[part] + noise / ncsnr
    responses.flush()
    del means
    dataset = prepare_table(source, out, unit="sd of the signal", name=out.name, overwrite=True)
    (source / "responses.npy").unlink()
    write_tokens(dataset, made_encoder(), show_progress=True)
    return dataset
