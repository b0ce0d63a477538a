"""``synbrain features``: the images of a dataset to tokens."""

from __future__ import annotations

from pathlib import Path

from accelerate import PartialState

from synbrain.data.dataset import load_dataset
from synbrain.features.encoder import pick_device
from synbrain.features.encoders import get_encoder
from synbrain.features.store import write_tokens
from synbrain.features.writing import launched_together


def features(
    dataset: Path,
    *,
    encoder: str = "efficientnet-lite0",
    layers: list[str] | None = None,
    weights: str | None = None,
    batch_size: int = 32,
    device: str = "auto",
    precision: str = "float32",
    threads: int = 2,
    store: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Encode every distinct image of a dataset, each once; run again to go on after an interruption.

    Under `accelerate launch -m synbrain.cli features ...` (or torchrun) the processes share the batches.

    Args:
        dataset: the dataset's folder.
        encoder: name of the encoder (efficientnet-lite0, clip, pixels).
        layers: layers of the encoder's network; its final one by default.
        weights: file, folder or hub id of the encoder's weights; clip needs it.
        batch_size: images in one forward pass.
        device: auto, cpu, cuda, ...
        precision: float32, bfloat16 or float16 (the latter two for GPUs).
        threads: threads that decode images ahead of the network.
        store: folder of tokens shared by the datasets of one HDF5 stimulus file.
        overwrite: replace tokens of other weights, preprocessing or images.
    """
    recordings = load_dataset(dataset)
    made = write_tokens(
        recordings,
        get_encoder(encoder, weights=weights, device=_device_of_process(device), precision=precision),
        layers,
        batch_size=batch_size,
        threads=threads,
        store=store,
        overwrite=overwrite,
        show_progress=True,
    )
    if not made.is_main:
        return
    if made.n_encoded:
        rate = made.n_encoded / made.seconds
        print(
            f"{made.folder}: {made.n_images} images, {made.n_bytes / 1e6:.1f} MB; "
            f"encoded {made.n_encoded} in {made.seconds:.1f} s ({rate:.1f} images/s in this process)"
        )
    else:
        print(f"{made.folder}: {made.n_images} images, nothing was missing")


def _device_of_process(device: str) -> str:
    """Each of accelerate's processes takes its own GPU where ``device`` is auto."""
    if device != "auto" or not launched_together():
        return device
    return str(PartialState(cpu=pick_device(device).type == "cpu").device)
