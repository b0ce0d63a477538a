"""Tokens that a user has already, of another program, stored as those of an encoder are.

No network stands behind their name, so new pictures cannot be encoded, and what made them is known by their
name alone. The file that they came in is remembered: where a model meets tokens of another one, it says so.
"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synbrain.data.dataset import Dataset
from synbrain.data.tables import nearest, read_list
from synbrain.describe import counted
from synbrain.errors import SynBrainError
from synbrain.features.encoders import ENCODERS
from synbrain.features.format import FORMAT_VERSION, TOKENS_JSON, Written
from synbrain.features.image_sets import image_set_digest, picture_sizes, sizes_digest
from synbrain.features.joint import encoders_of
from synbrain.features.options import FeatureOptions
from synbrain.features.tuned_folder import PREFIX
from synbrain.files import (
    allocate_array,
    alone,
    digest,
    digest_of,
    open_array,
    publish_folder,
    read_json,
    require_writable,
    write_json,
)

LAYER = "final"  # what the layer is called, where no name was given
ROW_BLOCK = 256  # rows in memory at a time
MOST = float(np.finfo(np.float16).max)
COARSE = 1e-3  # of the norm of all values: rounding to float16 loses 2e-4 where they are near 1


def store_given(dataset: Dataset, folder: Path, options: FeatureOptions, overwrite: bool) -> Written:
    """Store the array ``options.tokens`` as a layer of the tokens ``options.encoder`` of a dataset.

    Args:
        dataset: whose images they are of.
        folder: where the dataset keeps tokens of that name.
        options: ``tokens`` (a .npy of (n, dim) or (n, n_tokens, dim)), ``names`` (the image of each row; may
            be left out where the dataset's images are rows of a stimulus file, as NSD's are, and the array
            has a row for each picture of it), ``encoder`` (a name of their own), ``layers`` (at most one).
        overwrite: replace tokens that stand there.

    Raises:
        SynBrainError: where the array does not fit the images, or does not fit into float16.
    """
    assert options.tokens is not None
    layer, start = _layer_of(options), time.perf_counter()
    if options.tokens.suffix != ".npy":
        raise SynBrainError(
            f"{options.tokens} is no .npy file", 'save it with numpy: np.save("features.npy", array)'
        )
    given = open_array(options.tokens)
    array = given[:, None] if given.ndim == 2 else given
    if array.ndim != 3 or array.dtype.kind not in "fiu" or 0 in array.shape:
        raise SynBrainError(
            f"{options.tokens} holds {given.dtype} of shape {given.shape}",
            "save real numbers as (images, width) or (images, tokens, width)",
        )
    rows = _rows_of(dataset, options, len(array))
    identity = digest_of({"given": options.encoder})
    require_writable(folder)
    with alone(folder):
        kept = {} if overwrite else _layers_there(folder, identity, layer, dataset)
        partial = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        try:
            _write(array, rows, partial / f"{layer}.npy", options.tokens)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        n_tokens, dim = array.shape[1:]
        entry = {
            "n_tokens": n_tokens,
            "dim": dim,
            "precision": str(array.dtype),
            "given": digest(options.tokens),
        }
        facts = {
            "format": FORMAT_VERSION, "encoder": options.encoder, "digest": identity, "weights": None,
            "describe": {"given": options.tokens.name}, "n_images": dataset.n_images,
            "images": image_set_digest(dataset), "sizes": sizes_digest(picture_sizes(dataset)),
            "dtype": "float16",
            "layers": kept | {layer: entry | {"sha256": digest(partial / f"{layer}.npy")}},
        }  # fmt: skip
        if kept:  # the JSON, written last, makes the new layer known
            os.replace(partial / f"{layer}.npy", folder / f"{layer}.npy")
            write_json(folder / TOKENS_JSON, facts)
            shutil.rmtree(partial)
        else:
            write_json(partial / TOKENS_JSON, facts)
            publish_folder(partial, folder)
    n_bytes, seconds = 2 * dataset.n_images * n_tokens * dim, time.perf_counter() - start
    return Written(folder, dataset.n_images, dataset.n_images, seconds, n_bytes, finished=True, is_main=True)


def _layer_of(options: FeatureOptions) -> str:
    name = options.encoder
    if name in ENCODERS or name.startswith(PREFIX) or len(encoders_of(name)) > 1 or Path(name).name != name:
        raise SynBrainError(
            f"tokens of a file cannot be called {name}", "give them a name of their own: --encoder my-clip"
        )
    layers = options.layers or [LAYER]
    if len(layers) > 1:
        raise SynBrainError(
            f"{options.tokens} is one layer", "name it by --layers, and run again for the next"
        )
    return layers[0]


def _rows_of(dataset: Dataset, options: FeatureOptions, n: int) -> NDArray[np.int64]:
    """(n_images,) the row of the array that belongs to each image of the dataset."""
    if options.names is None:
        rows = dataset.images["row"].to_numpy(dtype=np.int64) if "row" in dataset.images else None
        if rows is not None and rows.max() < n:
            return rows
        raise SynBrainError(
            f"which image each row of {options.tokens} belongs to is not known",
            f"pass --names with {counted(n, 'line')}: file names as in {dataset.path}, such as "
            f"{dataset.images['name'].iloc[0]}",
        )
    names = read_list(options.names)
    if len(names) != n:
        raise SynBrainError(
            f"{options.names} has {counted(len(names), 'line')} for {counted(n, 'row')} of {options.tokens}",
            "give one line per row, in the same order",
        )
    place = {name: row for row, name in enumerate(names)}
    if len(place) < n:
        raise SynBrainError(f"{options.names} names images twice", "give each image one row")
    missing = [name for name in dataset.images["name"].astype(str) if name not in place]
    if missing:
        hint = nearest(missing[0], names)
        raise SynBrainError(
            f"{counted(len(missing), 'image')} of {dataset.path} are not in {options.names}, such as "
            f"{missing[0]}" + (f" ({hint})" if hint else ""),
            "give tokens of every image, with names as the dataset has them",
        )
    return np.array([place[name] for name in dataset.images["name"].astype(str)], dtype=np.int64)


def _layers_there(folder: Path, identity: str, layer: str, dataset: Dataset) -> dict[str, Any]:
    if not (folder / TOKENS_JSON).exists():
        return {}
    facts = read_json(folder / TOKENS_JSON)
    same = facts.get("digest") == identity and facts.get("images") == image_set_digest(dataset)
    if not same or layer in facts["layers"]:
        raise SynBrainError(
            f"{folder} holds {f'the layer {layer}' if same else 'other tokens'} already",
            "pass --overwrite to replace all of them" + (", or --layers with another name" if same else ""),
        )
    return dict(facts["layers"])


def _write(array: NDArray[Any], rows: NDArray[np.int64], path: Path, source: Path) -> None:
    stored = allocate_array(path, (len(rows), *array.shape[1:]), np.float16)
    lost, power = 0.0, 0.0
    for start in range(0, len(rows), ROW_BLOCK):
        block = np.asarray(array[rows[start : start + ROW_BLOCK]], dtype=np.float32)
        peak = float(np.abs(block).max())
        if not peak <= MOST:
            raise SynBrainError(
                f"{source} holds values up to {peak:g}, which float16 cannot hold",
                "drop values that are not finite, or divide all by a power of two",
            )
        kept = block.astype(np.float16)
        stored[start : start + ROW_BLOCK] = kept
        power += float(np.sum(np.square(block, dtype=np.float64)))
        lost += float(np.sum(np.square(kept.astype(np.float64) - block)))
    if lost > COARSE**2 * power:  # float16 has steps of 6e-8
        raise SynBrainError(
            f"{source} holds values so small that float16 loses {np.sqrt(lost / power):.1%} of them",
            "multiply all by a power of two that brings the largest near 1",
        )
    stored.flush()
