"""``synbrain prepare table|nsd|bids``: recordings to a dataset."""

from __future__ import annotations

from pathlib import Path

from synbrain.data import table
from synbrain.data.dataset import Dataset


def prepare_table(
    src: Path,
    out: Path,
    *,
    unit: str = "as recorded",
    name: str | None = None,
    copy_images: bool = False,
    overwrite: bool = False,
) -> None:
    """Make a dataset of images/, trials.csv and responses.npy.

    Args:
        src: folder with images/, trials.csv (image, repeat, split, optionally session) and responses.npy.
        out: the dataset folder to write.
        unit: what one unit of response is, such as "percent signal change".
        name: the dataset's name; the source folder's if left out.
        copy_images: copy the images into the dataset.
        overwrite: replace a dataset that stands there.
    """
    made = table.prepare_table(
        src, out, unit=unit, name=name, copy_images=copy_images, overwrite=overwrite, show_progress=True
    )
    tell(made)


def tell(dataset: Dataset) -> None:
    """Print what a prepared dataset holds, and what was noticed while it was made."""
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
