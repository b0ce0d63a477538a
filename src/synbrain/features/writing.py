"""How a token store is written: batch by batch, by any number of processes, resumable, whole at the end.

While it is written it lies in ``.ENCODER.partial`` beside its final place, with ``plan.json`` (what is
being made) and ``done.npy`` (one byte per batch). Batches are numbered over the whole image set, so
whoever encodes a batch, and after whatever interruption, it holds the same images and gives the same bytes.
"""

from __future__ import annotations

import os
import shutil
import time
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from numpy.typing import NDArray

from synbrain.errors import SynBrainError
from synbrain.features.encoder import Encoder, pick_device
from synbrain.features.encoding import encode_batches
from synbrain.features.format import FORMAT_VERSION, TOKENS_JSON, ImageSet, Written
from synbrain.features.image_sets import sizes_digest
from synbrain.features.options import StoreOptions
from synbrain.files import (
    allocate_array,
    alone,
    digest,
    open_array,
    publish_folder,
    read_json,
    require_writable,
    save_array,
    write_json,
    writing,
)
from synbrain.progress import bar

PLAN, DONE, SIZES = "plan.json", "done.npy", "sizes.npy"
FLUSH_EVERY = 32  # batches between two syncs to disk; what is not synced is encoded again


@dataclass(frozen=True)
class StoreJob:
    """A store to make or to extend.

    Attributes:
        folder: where it stands when it is whole.
        encoder, images: what encodes what.
        layers: of the encoder.
        options: batch size and threads.
        show_progress: show a bar.
    """

    folder: Path
    encoder: Encoder
    images: ImageSet
    layers: tuple[str, ...]
    options: StoreOptions
    show_progress: bool = False

    @property
    def partial(self) -> Path:
        """Where it lies while it is written."""
        return self.folder.with_name(f".{self.folder.name}.partial")

    @property
    def plan(self) -> dict[str, Any]:
        """What an interrupted run of the same job agrees on."""
        return {
            "digest": self.encoder.digest,
            "images": self.images.digest,
            "n_images": self.images.n,
            "batch_size": self.options.batch_size,
            "precision": self.encoder.precision,
            "layers": {layer: list(self.encoder.layers[layer]) for layer in self.layers},
        }


def write_store(job: StoreJob, overwrite: bool, shard: tuple[int, int] | None) -> Written:
    """Make or extend a store; see :func:`synbrain.features.store.write_tokens`."""
    if job.options.batch_size < 1:
        raise SynBrainError(f"the batch size is {job.options.batch_size}", "give at least 1")
    require_writable(job.folder)
    team = _Team.of(shard, job.encoder.device)
    with alone(job.folder) if team.world == 1 else nullcontext():
        return _write(job, overwrite, team)


def _write(job: StoreJob, overwrite: bool, team: _Team) -> Written:
    folder, images, layers_of = job.folder, job.images, job.encoder.layers
    kept = _layers_that_stay(job, overwrite)
    job = replace(job, layers=tuple(layer for layer in job.layers if layer not in kept))
    if not job.layers:
        return Written(folder, images.n, 0, 0.0, 0, finished=True, is_main=team.rank == 0)
    n_bytes = sum(2 * images.n * int(np.prod(layers_of[layer])) for layer in job.layers)
    if not overwrite:
        _require_same_plan(job.partial, job.plan)
        team.wait()  # before one process makes the folder
    if team.rank == 0 or not team.real:
        _prepare(job.partial, job.plan, images.sizes)
    team.wait()
    start = time.perf_counter()
    n_encoded = _encode_missing(job, team)
    seconds = time.perf_counter() - start
    team.wait()
    finished = bool(open_array(job.partial / DONE).all())
    team.wait()
    if finished and (team.rank == 0 or not team.real):
        _finish(job, kept)
    team.wait()
    return Written(folder, images.n, n_encoded, seconds, n_bytes, finished, team.rank == 0)


def launched_together() -> bool:
    """Whether this is one of several processes started by accelerate or torchrun."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def device_of_process(device: str) -> str:
    """Each of accelerate's processes takes its own GPU where ``device`` is auto."""
    if device != "auto" or not launched_together():
        return device
    return str(PartialState(cpu=pick_device(device).type == "cpu").device)


@dataclass(frozen=True)
class _Team:
    """The processes that write one store; ``real`` where accelerate started them."""

    rank: int
    world: int
    real: bool

    @classmethod
    def of(cls, shard: tuple[int, int] | None, device: torch.device) -> _Team:
        if shard is not None:
            rank, world = shard
            if not 0 <= rank < world:
                raise SynBrainError(f"there is no shard {rank} of {world}", "count ranks from 0")
            return cls(rank, world, real=False)
        if not launched_together():
            return cls(0, 1, real=False)
        state = PartialState(cpu=device.type == "cpu")  # without cpu=True it would not join processes on CPUs
        return cls(state.process_index, state.num_processes, real=True)

    def wait(self) -> None:
        if self.real:
            PartialState().wait_for_everyone()


def _layers_that_stay(job: StoreJob, overwrite: bool) -> dict[str, dict[str, Any]]:
    folder = job.folder
    if overwrite or not (folder / TOKENS_JSON).exists():
        return {}
    facts = read_json(folder / TOKENS_JSON)
    for key, value, what in (
        ("digest", job.encoder.digest, "of other weights or preprocessing"),
        ("images", job.images.digest, "of other images"),
        ("sizes", sizes_digest(job.images.sizes), "of pictures that were changed since"),
    ):
        if value and facts.get(key, value) != value:  # sizes are not always known
            raise SynBrainError(f"{folder} holds tokens {what}", "pass --overwrite to replace them")
    return dict(facts["layers"])


# what a plan says, in the words of the command
_OF_PLAN = {
    "digest": "other weights or preprocessing",
    "images": "other images",
    "batch_size": "--batch-size {}",
    "precision": "--precision {}",
    "layers": "--layers {}",
}


def _require_same_plan(partial: Path, plan: dict[str, Any]) -> None:
    """Refuse to drop what an interrupted run of another plan has encoded.

    Raises:
        SynBrainError: where it encoded anything.
    """
    if not ((partial / PLAN).exists() and (partial / DONE).exists()):
        return
    earlier, done = read_json(partial / PLAN), open_array(partial / DONE)
    other = [key for key in _OF_PLAN if earlier.get(key) != plan[key]]
    if not other or not done.any():
        return
    said = (" ".join(earlier[key]) if key == "layers" else earlier.get(key) for key in other)
    told = ", ".join(_OF_PLAN[key].format(value) for key, value in zip(other, said, strict=True))
    share = f"{round(100 * float(done.mean()))} %"
    raise SynBrainError(
        f"{partial} holds {share} of the tokens of an interrupted run with {told}",
        "give the same to go on with it, or pass --overwrite to start anew",
    )


def _prepare(partial: Path, plan: dict[str, Any], sizes: NDArray[np.int64] | None) -> None:
    """Keep what an interrupted run of the same plan left, but for pictures that changed, or start anew."""
    if partial.exists():
        names = [DONE, *(f"{layer}.npy" for layer in plan["layers"])]
        whole = (partial / PLAN).exists() and all((partial / name).exists() for name in names)
        if whole and read_json(partial / PLAN) == plan:
            _undo_changed(partial, sizes, plan["batch_size"])
            return
        shutil.rmtree(partial)
    partial.mkdir(parents=True)
    try:
        for layer, (n_tokens, dim) in plan["layers"].items():
            allocate_array(partial / f"{layer}.npy", (plan["n_images"], n_tokens, dim), np.float16)
        n_batches = -(-plan["n_images"] // plan["batch_size"])
        allocate_array(partial / DONE, (n_batches,), np.uint8).flush()
        if sizes is not None:
            save_array(partial / SIZES, sizes)
        write_json(partial / PLAN, plan)  # last: without it the folder counts as nothing
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _undo_changed(partial: Path, sizes: NDArray[np.int64] | None, batch_size: int) -> None:
    """Encode batches again whose pictures have other sizes than when the run began."""
    if sizes is None or not (partial / SIZES).exists():
        return
    changed = np.flatnonzero(np.asarray(open_array(partial / SIZES)) != sizes)
    if len(changed):
        done = open_array(partial / DONE, writable=True)
        done[np.unique(changed // batch_size)] = 0
        done.flush()
        save_array(partial / SIZES, sizes)


def _encode_missing(job: StoreJob, team: _Team) -> int:
    partial, images, batch_size = job.partial, job.images, job.options.batch_size
    arrays = {layer: open_array(partial / f"{layer}.npy", writable=True) for layer in job.layers}
    done: NDArray[np.uint8] = open_array(partial / DONE, writable=True)
    mine = np.arange(team.rank, len(done), team.world)
    todo = mine[done[mine] == 0]

    def rows_of(batch: int) -> NDArray[np.int64]:
        return np.arange(batch * batch_size, min((batch + 1) * batch_size, images.n), dtype=np.int64)

    n_mine = sum(len(rows_of(int(batch))) for batch in mine)
    n_todo = sum(len(rows_of(int(batch))) for batch in todo)
    unsynced: list[int] = []

    def sync() -> None:
        for array in arrays.values():
            array.flush()
        done[unsynced] = 1  # only now: a batch is done when its tokens are on disk
        done.flush()  # type: ignore[attr-defined]
        unsynced.clear()

    encoded = 0
    with ExitStack() as stack:
        stack.enter_context(writing(partial))
        moving = stack.enter_context(
            bar(
                f"encode with {job.encoder.name}",
                total=n_mine,
                unit="image",
                show=job.show_progress and team.rank == 0,
                initial=n_mine - n_todo,
            )
        )
        stack.callback(sync)  # on Ctrl-C or an unreadable image too: finished batches are kept
        batches = (rows_of(int(batch)) for batch in todo)
        for rows, tokens_of in encode_batches(
            job.encoder, images.load, batches, job.layers, threads=job.options.threads
        ):
            for layer, tokens in tokens_of.items():
                arrays[layer][rows[0] : rows[-1] + 1] = tokens
            unsynced.append(int(rows[0]) // batch_size)
            encoded += len(rows)
            if len(unsynced) >= FLUSH_EVERY:
                sync()
            moving.update(len(rows))
    return encoded


def _finish(job: StoreJob, kept: dict[str, dict[str, Any]]) -> None:
    folder, partial, encoder, images, new = job.folder, job.partial, job.encoder, job.images, job.layers
    entries = dict(kept)
    for layer in new:
        n_tokens, dim = encoder.layers[layer]
        entries[layer] = {
            "n_tokens": n_tokens,
            "dim": dim,
            "sha256": digest(partial / f"{layer}.npy"),
            "precision": encoder.precision,
        }
    facts = {
        "format": FORMAT_VERSION,
        "encoder": encoder.name,
        "digest": encoder.digest,
        "weights": encoder.hub_id,
        "describe": encoder.describe,
        "n_images": images.n,
        "images": images.digest,
        "sizes": sizes_digest(images.sizes),
        "dtype": "float16",
        "layers": {layer: entries[layer] for layer in encoder.layers if layer in entries},
    }
    if kept:  # more layers for a store that stands: the JSON, written last, makes them known
        for layer in new:
            os.replace(partial / f"{layer}.npy", folder / f"{layer}.npy")
        write_json(folder / TOKENS_JSON, facts)
        shutil.rmtree(partial)
        return
    write_json(partial / TOKENS_JSON, facts)
    (partial / PLAN).unlink()
    (partial / DONE).unlink()
    (partial / SIZES).unlink(missing_ok=True)
    publish_folder(partial, folder)
