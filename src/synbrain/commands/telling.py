"""What commands print about what a library function returned: ``tell(result, typed)``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from synbrain.data.dataset import Dataset
    from synbrain.features.writing import Written

Typed = dict[str, Any]


def simulated(result: None, typed: Typed) -> None:
    """A simulated tree."""
    print(
        f"{typed['out']}: {typed['subjects']} simulated subject(s), size {typed['size']}, "
        f"noise {typed['noise']}, seed {typed['seed']}"
    )


def prepared(dataset: Dataset, typed: Typed) -> None:
    """What a prepared dataset holds, and what was noticed while it was made."""
    info = dataset.info
    n_train, n_test = (len(dataset.image_rows(split)) for split in ("train", "test"))
    print(
        f"{info.name}: {info.n_trials} trials x {info.n_voxels} voxels in {info.unit}; "
        f"{n_train} training and {n_test} test images -> {dataset.path}"
    )
    constant = info.provenance.get("constant_voxels") or []
    if constant:
        shown = ", ".join(map(str, constant[:8])) + (", ..." if len(constant) > 8 else "")
        print(f"{len(constant)} voxels never vary over the training trials (kept, ncsnr 0): {shown}")
    for note in info.provenance.get("notes") or []:
        print(note)


def encoded(made: Written, typed: Typed) -> None:
    """How many images were encoded, and how fast; one process of several speaks."""
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
