"""Tokens on disk: ``DATASET/tokens/ENCODER/{tokens.json, LAYER.npy}``, one float16 row per distinct image.

A store may also be shared: ``STORE/ENCODER/`` then holds one row for each picture of an HDF5 stimulus
file, and the folder in the dataset holds only a ``tokens.json`` that points there. Writing is batched
and resumable (see :mod:`synbrain.features.writing`); reading maps memory.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from synbrain.data.dataset import Dataset, read_brick
from synbrain.data.marks import packed, unpacked
from synbrain.errors import SynBrainError, unreadable
from synbrain.features.format import FORMAT_VERSION, TOKENS_JSON, ImageSet, Written
from synbrain.features.image_sets import image_set_digest, picture_sizes, rules_digest_part, sizes_digest
from synbrain.features.joint import alone, each_encoder, encoders_of, joint_tokens, layers_of
from synbrain.features.options import FeatureOptions, StoreOptions
from synbrain.features.tokens import TokenFile, TokenSet
from synbrain.features.tuned_folder import PREFIX, digest_in, tuned_folder
from synbrain.features.tuned_folder import encoder_name as name_of
from synbrain.features.tuned_images import refuse_tuned_test_images, tuned_rows, without_images
from synbrain.files import beside, digest, digest_of, open_array, read_json, save_array, write_json

if TYPE_CHECKING:
    from synbrain.features.encoder import Encoder

DEFAULTS = StoreOptions()
FEATURES = FeatureOptions()


def tokens_folder(dataset: Dataset, encoder_name: str) -> Path:
    """Where a dataset keeps the tokens of an encoder: in its folder, or where read-only storage has them.

    Those in its own folder are taken where they are there; new ones go to :func:`synbrain.files.beside`.
    """
    inside = dataset.path / "tokens" / encoder_name
    return inside if (inside / TOKENS_JSON).exists() else beside(dataset.path) / "tokens" / encoder_name


def stored_encoders(dataset: Dataset) -> list[str]:
    """Names of the encoders whose tokens a dataset has."""
    folders = {dataset.path, beside(dataset.path)}
    return sorted({path.parent.name for folder in folders for path in folder.glob(f"tokens/*/{TOKENS_JSON}")})


def write_tokens(
    dataset: Dataset,
    encoder: Encoder,
    layers: Iterable[str] | None = None,
    options: StoreOptions = DEFAULTS,
    *,
    overwrite: bool = False,
    shard: tuple[int, int] | None = None,
    show_progress: bool = False,
) -> Written:
    """Encode every distinct image of a dataset, each once; an interrupted run goes on where it stopped.

    Layers that are stored already are not encoded again.

    Args:
        dataset: whose images.
        encoder: what encodes.
        layers: None for the encoder's default layer.
        options: batch size, threads, and where tokens are shared between datasets.
        overwrite: replace tokens of other weights, preprocessing or images.
        shard: (rank, world size): encode only the batches of that rank. The call that finds all
            batches done finishes the store. None: taken from accelerate (one process without it).
        show_progress: show a bar.

    Raises:
        SynBrainError: where tokens of another digest stand there, an image cannot be read, the disk
            is full, or tokens overflow float16.
    """
    from synbrain.features.writing import StoreJob, write_store  # torch: reading tokens does without

    wanted, store = encoder.chosen(layers), options.store
    folder = tokens_folder(dataset, encoder.name)
    if encoder.describe.get("tuned_on"):
        known, marks = encoder.tuned_pictures, unpacked(encoder.describe["tuned_on"])
        tuned_on = packed(known.with_copies(marks, dataset, "the encoder"))
        refuse_tuned_test_images(dataset, encoder.name, tuned_rows(dataset, tuned_on))
        encoder = replace(encoder, describe=encoder.describe | {"tuned_on": tuned_on})
    if store is None:
        if folder.exists() and "store" in _read(folder) and not overwrite:
            raise SynBrainError(
                f"{folder} points to a shared store",
                "pass --store with its path, or --overwrite to have own tokens",
            )
        digest_of_names, sizes = image_set_digest(dataset), picture_sizes(dataset)
        images = ImageSet(dataset.n_images, digest_of_names, dataset.load_image, sizes)
        job = StoreJob(folder, encoder, images, wanted, options, show_progress)
        return write_store(job, overwrite, shard)
    brick = _Brick(dataset)
    shared = store / encoder.name
    job = StoreJob(shared, encoder, brick.images(), wanted, options, show_progress)
    written = write_store(job, overwrite, shard)
    if written.finished and written.is_main:
        _point_to(folder, shared, dataset, encoder, overwrite)
    return written


def open_tokens(dataset: Dataset, encoder_name: str, layers: Iterable[str] | None = None) -> TokenSet:
    """The stored tokens of a dataset's images, memory-mapped, in the order of ``dataset.images``.

    Args:
        dataset: whose tokens.
        encoder_name: a name in ``ENCODERS``; name, folder or hub id of a tuned encoder; several of these
            joined by ``+``, whose layers then are called ``ENCODER:LAYER``.
        layers: None for all that are stored.

    Raises:
        SynBrainError: where they are missing, cut short, or belong to other images; where the encoder
            was tuned on test images of the dataset.

    >>> from synbrain.simulate.example import toy_dataset
    >>> open_tokens(toy_dataset(), "pixels").shapes
    {'grid4': (16, 3)}
    """
    if len(several := encoders_of(encoder_name)) > 1:
        names = [name_of(one) for one in several]
        each = zip(several, names, strict=True)
        return joint_tokens([open_tokens(dataset, one, layers_of(name, names, layers)) for one, name in each])
    given, encoder_name = encoder_name, name_of(encoder_name)
    folder = tokens_folder(dataset, encoder_name)
    called = "FOLDER" if given.startswith(PREFIX) else given  # a tuned encoder is found by its folder
    command = f"synbrain features {dataset.path} --encoder {called}"
    if not (folder / TOKENS_JSON).exists():
        stored = " or ".join(stored_encoders(dataset))
        others = f", or name what it has tokens of: --encoder {stored}" if stored else ""
        raise SynBrainError(f"{dataset.path} has no tokens of {encoder_name}", f"run `{command}`{others}")
    facts = _read(folder)
    if facts["images"] != image_set_digest(dataset):
        raise SynBrainError(
            f"the tokens in {folder} belong to other images than the dataset's",
            f"run `{command} --overwrite`",
        )
    images: NDArray[np.int64] = np.arange(dataset.n_images, dtype=np.int64)
    rows = images
    _require_as_encoded(facts.get("sizes", ""), dataset, folder, command)
    pointer = facts
    if "store" in facts:
        folder, facts = _pointed_to(folder, facts, command)
        rows = dataset.images["row"].to_numpy(dtype=np.int64)
    _require_its_own(given, encoder_name, facts["digest"], dataset, command)
    of_encoder = facts.get("describe", {}).get("tuned_on", "")
    tuned = tuned_rows(dataset, pointer.get("tuned_on", of_encoder))
    refuse_tuned_test_images(dataset, encoder_name, tuned)
    wanted = list(layers) if layers else list(facts["layers"])
    missing = [layer for layer in wanted if layer not in facts["layers"]]
    if missing:
        raise SynBrainError(
            f"tokens of {encoder_name} have layers {', '.join(facts['layers'])}, not {', '.join(missing)}",
            f"choose among them, or run `{command} --layers {' '.join(missing)}`",
        )
    return TokenSet(
        encoder=encoder_name,
        digest=facts["digest"],
        layers={layer: _open_layer(folder, layer, facts) for layer in wanted},
        rows=rows,
        tuned=rows[tuned],
        files={layer: TokenFile.of(beside(folder), layer, facts["layers"][layer]) for layer in wanted},
        images=images,
    )


def open_untuned(
    dataset: Dataset, encoder: str, layers: Iterable[str] | None = None
) -> tuple[Dataset, TokenSet]:
    """A dataset without the training images that an encoder was tuned on, and :func:`open_tokens` of it.

    This is what models may be fitted and scored on: the dataset itself where its tokens are of no tuned
    encoder; otherwise a warning says how many training images are left.

    Args:
        dataset: with tokens of ``encoder``.
        encoder: name, folder or hub id.
        layers: None for all that are stored.

    Raises:
        SynBrainError: as :func:`open_tokens`; where fewer than 3 training images are left.
    """
    tokens = open_tokens(dataset, encoder, layers)
    if tokens.is_tuned.any():
        dataset = without_images(dataset, np.flatnonzero(tokens.is_tuned), tokens.encoder)
    return dataset, tokens


def make_tokens(
    dataset: Dataset,
    options: FeatureOptions = FEATURES,
    *,
    overwrite: bool = False,
    show_progress: bool = False,
) -> Written:
    """Encode every distinct image of a dataset, each once; run again to go on after an interruption.

    Under `accelerate launch -m synbrain features ...` (or torchrun) the processes share the batches.

    Args:
        dataset: the dataset's folder.
        options: which encoder, and how it runs.
        overwrite: replace tokens of other weights, preprocessing or images.
        show_progress: show a bar.

    Raises:
        SynBrainError: see :func:`write_tokens`; for an encoder or device that is not there.
    """
    from synbrain.features.encoders import get_encoder
    from synbrain.features.given import store_given
    from synbrain.features.writing import device_of_process

    if len(several := encoders_of(options.encoder)) > 1:
        raise SynBrainError(
            f"tokens of {' and '.join(several)} are stored apart",
            f"run `synbrain features` for each: --encoder {several[0]}, then --encoder {several[1]}",
        )
    if options.tokens is not None:
        return store_given(dataset, tokens_folder(dataset, options.encoder), options, overwrite)
    device = device_of_process(options.device)
    weights, precision = options.weights, options.precision
    encoder = get_encoder(options.encoder, weights=weights, device=device, precision=precision)
    return write_tokens(
        dataset, encoder, options.layers, options, overwrite=overwrite, show_progress=show_progress
    )


def verify_tokens(dataset: Dataset, encoder_name: str) -> None:
    """Read every stored token file and compare its checksum; raises SynBrainError where one differs."""
    if len(given := encoders_of(encoder_name)) > 1:
        for one in given:
            verify_tokens(dataset, one)
        return
    folder = tokens_folder(dataset, encoder_name)
    facts = _read(folder)
    if "store" in facts:
        folder = (folder / facts["store"]).resolve()
        facts = _read(folder)
    for layer, entry in facts["layers"].items():
        if digest(folder / f"{layer}.npy") != entry["sha256"]:
            raise SynBrainError(
                f"{folder / layer}.npy was altered after it was written (its checksum differs)",
                "run `synbrain features` with --overwrite",
            )


def _require_as_encoded(sizes: str, dataset: Dataset, folder: Path, command: str) -> None:
    """Pictures may be gone once they are encoded; those that are there must be the encoded ones."""
    now = sizes_digest(picture_sizes(dataset)) if sizes else ""
    if now and now != sizes:
        raise SynBrainError(
            f"pictures of {dataset.path} were changed after the tokens in {folder} were made",
            f"run `{command} --overwrite`, or restore the pictures",
        )


def _require_its_own(given: str, name: str, digest: str, dataset: Dataset, command: str) -> None:
    """An encoder that is given by its folder must be the one that made the tokens of its name."""
    folder = tuned_folder(given)
    if folder is not None and digest_in(folder) != digest:
        raise SynBrainError(
            f"the tokens of {name} in {dataset.path} are of another encoder of that name than {given}",
            f"rename that folder and tune again, or run `{command} --overwrite`",
        )


def _pointed_to(folder: Path, pointer: dict[str, Any], command: str) -> tuple[Path, dict[str, Any]]:
    """The shared store that ``folder`` points to, and its facts."""
    shared = (folder / pointer["store"]).resolve()
    if not (shared / TOKENS_JSON).exists():
        raise SynBrainError(
            f"the shared tokens {shared} are missing",
            f"restore them, or run `{command} --store FOLDER --overwrite`",
        )
    facts = _read(shared)
    if facts["digest"] != pointer["digest"] or facts["images"] != pointer["store_images"]:
        raise SynBrainError(
            f"the shared tokens {shared} were replaced",
            f"run `{command} --store {shared.parent} --overwrite`",
        )
    return shared, facts


def _open_layer(folder: Path, layer: str, facts: dict[str, Any]) -> NDArray[np.floating]:
    array = open_array(folder / f"{layer}.npy")
    entry = facts["layers"][layer]
    expected = (facts["n_images"], entry["n_tokens"], entry["dim"])
    if array.shape != expected or array.dtype != np.float16:
        raise SynBrainError(
            f"{folder / layer}.npy has shape {array.shape} {array.dtype}, expected {expected} float16",
            "run `synbrain features` with --overwrite",
        )
    return array


def _read(folder: Path) -> dict[str, Any]:
    facts = read_json(folder / TOKENS_JSON)
    needed = {"format", "digest", "images"}
    if not isinstance(facts, dict) or not needed <= set(facts):
        raise SynBrainError(
            f"{folder / TOKENS_JSON} is not valid", "run `synbrain features` with --overwrite"
        )
    if facts["format"] != FORMAT_VERSION:
        raise SynBrainError(
            f"{folder} has format {facts['format']}, this version reads {FORMAT_VERSION}",
            f"make it again: `synbrain features DATASET --encoder {folder.name} --overwrite`",
        )
    if not {"store", "layers"} & set(facts):
        raise SynBrainError(
            f"{folder / TOKENS_JSON} is not valid", "run `synbrain features` with --overwrite"
        )
    return facts


def _point_to(folder: Path, shared: Path, dataset: Dataset, encoder: Encoder, overwrite: bool) -> None:
    if folder.exists() and "store" not in _read(folder):
        if not overwrite:
            raise SynBrainError(
                f"{folder} holds tokens of its own", "pass --overwrite to use the shared store instead"
            )
        for path in folder.glob("*.npy"):
            path.unlink()
    facts = _read(shared)
    write_json(
        folder / TOKENS_JSON,
        {
            "format": FORMAT_VERSION,
            "encoder": encoder.name,
            "digest": encoder.digest,
            "images": image_set_digest(dataset),
            "store": os.path.relpath(shared.resolve(), folder.resolve()),
            "store_images": facts["images"],
            # of a tuned encoder, with this dataset's copies of pictures that it was tuned on
            **{key: encoder.describe[key] for key in ("tuned_on",) if key in encoder.describe},
        },
    )


@dataclass(frozen=True)
class _Brick:
    """Every picture of a dataset's HDF5 stimulus file."""

    dataset: Dataset

    def images(self) -> ImageSet:
        info = self.dataset.info.stimuli
        if info.kind != "hdf5":
            raise SynBrainError(
                f"{self.dataset.path} has its stimuli in a folder",
                "a shared store needs an HDF5 file: leave --store out",
            )
        path = self.dataset.stimulus_path()
        try:
            import h5py

            with h5py.File(path, "r") as file:
                pictures = file[info.key]
                shape = [int(size) for size in pictures.shape]
                ends = [int(pictures[row].sum(dtype=np.int64)) for row in (0, shape[0] // 2, shape[0] - 1)]
        except (OSError, KeyError) as error:
            raise unreadable(path, error, "restore the stimuli") from error
        content = {"shape": shape, "sums": ends} | rules_digest_part(info)
        return ImageSet(shape[0], digest_of(content), partial(read_brick, path, info))


def copy_tokens(tokens: TokenSet, source: Dataset, target: Dataset, rows: NDArray[np.int64]) -> None:
    """Give ``target`` the tokens of the images ``rows`` of ``source``: they are the same pictures.

    Args:
        tokens: of all images of ``source``, from one encoder.
        source: whose store says how they were made.
        target: its image i is image ``rows[i]`` of ``source``.
        rows: (target.n_images,) rows of ``source.images``.
    """
    if len(parts := each_encoder(tokens)) > 1:
        for part in parts:
            copy_tokens(alone(part), source, target, rows)
        return
    own = tokens_folder(source, tokens.encoder)
    pointer = _read(own)
    made = _read((own / pointer["store"]).resolve()) if "store" in pointer else pointer
    if "tuned_on" in pointer:  # the shared store knows copies of tuned pictures in its first dataset alone
        made = made | {"describe": made["describe"] | {"tuned_on": pointer["tuned_on"]}}
    folder = tokens_folder(target, tokens.encoder)
    folder.mkdir(parents=True, exist_ok=True)
    layers = {}
    for layer, array in tokens.layers.items():
        save_array(folder / f"{layer}.npy", np.asarray(array[tokens.rows[rows]], dtype=np.float16))
        layers[layer] = made["layers"][layer] | {"sha256": digest(folder / f"{layer}.npy")}
    content = made | {"n_images": len(rows), "images": image_set_digest(target), "layers": layers}
    content["sizes"] = sizes_digest(picture_sizes(target))
    write_json(folder / TOKENS_JSON, content)
