"""Batches through an encoder, with images decoded ahead of the network."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from synbrain.arrays import Rows
from synbrain.data.options import PictureOptions
from synbrain.data.pictures import RULES
from synbrain.errors import SynBrainError
from synbrain.features.encoder import Encoder
from synbrain.features.images import Images, check_images, first_of_each, image_at
from synbrain.features.joint import joint_tokens, layers_of
from synbrain.features.tokens import TokenSet
from synbrain.progress import bar

AHEAD = 2  # batches decoded while the network works on the present one


def encode_batches(
    encoder: Encoder,
    load: Callable[[int], Image.Image],
    batches: Iterable[Rows],
    layers: tuple[str, ...],
    *,
    threads: int = 1,
) -> Iterator[tuple[Rows, dict[str, NDArray[np.float16]]]]:
    """Yield (rows, layer -> (n, n_tokens, dim) float16) for each batch of rows, in order.

    Args:
        encoder: what encodes.
        load: gives the image of a row; called from ``threads`` threads.
        batches: rows of each batch.
        layers: names of layers.
        threads: how many decode and resize images while the network works.

    Raises:
        SynBrainError: where tokens are not finite or exceed float16.
    """

    def prepare(row: int) -> torch.Tensor:
        return encoder.preprocess(load(row))

    waiting: deque[tuple[Rows, list[Future[torch.Tensor]]]] = deque()
    with ThreadPoolExecutor(max_workers=max(1, threads)) as pool:
        try:
            remaining = iter(batches)
            exhausted = False
            while waiting or not exhausted:
                while not exhausted and len(waiting) < AHEAD:
                    rows = next(remaining, None)
                    if rows is None:
                        exhausted = True
                    else:
                        waiting.append((rows, [pool.submit(prepare, int(row)) for row in rows]))
                if waiting:
                    rows, ready = waiting.popleft()
                    batch = torch.stack([future.result() for future in ready])
                    encoded = encoder.forward(batch, layers)
                    yield rows, {layer: to_float16(encoded[layer], layer, encoder) for layer in layers}
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def to_float16(tokens: torch.Tensor, layer: str, encoder: Encoder) -> NDArray[np.float16]:
    """The same tokens as float16, or an error where that would lose them."""
    peak = float(tokens.abs().max())
    if not peak <= float(np.finfo(np.float16).max):
        raise SynBrainError(
            f"layer {layer} of {encoder.name} gives values up to {peak:g}, which float16 cannot hold",
            "choose another layer, check the weights, or encode with --precision float32",
        )
    return tokens.numpy().astype(np.float16)


def encode_images(
    encoder: Encoder,
    images: Images,
    layers: Iterable[str] | None = None,
    *,
    rules: PictureOptions = RULES,
    batch_size: int = 32,
    threads: int = 1,
    show_progress: bool = False,
) -> TokenSet:
    """Tokens of images at hand, in memory as float16, equal to what the store would hold.

    Images that are given twice are encoded once.

    Args:
        encoder: what encodes.
        images: paths, PIL images, or (n, h, w, 3) uint8.
        layers: None for the encoder's default layer.
        rules: how transparent and turned pictures are decoded.
        batch_size: images in one forward pass.
        threads: how many decode images ahead.
        show_progress: show a bar.

    Returns:
        One row per image given, in the order given.

    Raises:
        SynBrainError: where an image cannot be read, or shape or dtype are wrong.
    """
    images = check_images(images)
    if encoder.parts:
        names = [part.name for part in encoder.parts]
        return joint_tokens(
            [
                encode_images(
                    part, images, layers_of(part.name, names, layers), rules=rules, batch_size=batch_size,
                    threads=threads, show_progress=show_progress,
                )
                for part in encoder.parts
            ]
        )  # fmt: skip
    wanted = encoder.chosen(layers)
    firsts, which = first_of_each(images)
    arrays = {layer: np.empty((len(firsts), *encoder.layers[layer]), dtype=np.float16) for layer in wanted}
    batches = (
        np.arange(start, min(start + batch_size, len(firsts))) for start in range(0, len(firsts), batch_size)
    )
    with bar(f"encode with {encoder.name}", total=len(firsts), unit="image", show=show_progress) as moving:
        for rows, encoded in encode_batches(
            encoder, lambda row: image_at(images, int(firsts[row]), rules), batches, wanted, threads=threads
        ):
            for layer, tokens in encoded.items():
                arrays[layer][rows] = tokens
            moving.update(len(rows))
    return TokenSet(encoder=encoder.name, digest=encoder.digest, layers=dict(arrays), rows=which)


def batches_of(
    images: Images | TokenSet, batch_size: int, start: int = 0
) -> Iterator[tuple[slice, Images | TokenSet]]:
    """(rows, the images there), ``batch_size`` at a time from image ``start`` on.

    Raises:
        SynBrainError: where they are no images, or a batch would hold none.
    """
    if batch_size < 1:
        raise SynBrainError(f"the batch size is {batch_size}", "give at least 1")
    given = images if isinstance(images, TokenSet) else check_images(images)
    for first in range(start, len(given), batch_size):
        rows = slice(first, min(first + batch_size, len(given)))
        yield rows, given.take(np.arange(first, rows.stop)) if isinstance(given, TokenSet) else given[rows]
