"""Synthesis of many images to a file: streamed, in bounded memory, resumable with the same bytes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from synbrain.data.space import VoxelSpace
from synbrain.errors import SynBrainError
from synbrain.files import (
    allocate_array,
    atomic_path,
    digest_of,
    open_array,
    read_json,
    require_absent,
    require_space,
    write_json,
)
from synbrain.model.synbrain import SynBrain
from synbrain.progress import bar

BATCH = 32
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".gif"}


def synthesize_to(
    out: Path,
    model: SynBrain,
    images: Sequence[Path],
    n_samples: int,
    seed: int = 0,
    *,
    subject: str | None = None,
    noise_factor: float | None = None,
    run_digest: str = "",
    overwrite: bool = False,
    batch_size: int = BATCH,
    show_progress: bool = False,
) -> Path:
    """Write trials of ``images`` to ``out``, (n_samples, n_images, n_voxels) float32 .npy, memory-mapped.

    A JSON sidecar (``out`` with suffix .json) names images, seed, unit and run. Until all is written the
    array is called ``out.partial`` and ``out.progress.json`` says how far it came; the same call then
    continues there, and ends in the bytes of an uninterrupted run.

    Args:
        out: the .npy to write.
        model: what synthesizes.
        images: image files.
        n_samples: trials per image.
        seed: of the trials.
        subject: whose responses, where the model has several.
        noise_factor: see :meth:`SynBrain.sample`.
        run_digest: of the run's files, for the sidecar.
        overwrite: replace a finished ``out``.
        batch_size: images at a time; memory grows with it alone.
        show_progress: show a bar.

    Raises:
        SynBrainError: where ``out`` exists, the disk is too small, or an image cannot be read (what was
            written before is kept for resuming).
    """
    require_absent(out, overwrite)
    part = model.subject(subject)
    about: dict[str, Any] = {
        "images": [str(image) for image in images],
        "n_samples": n_samples,
        "n_voxels": part.n_voxels,
        "axes": ["sample", "image", "voxel"],
        "seed": seed,
        "noise_factor": noise_factor,
        "subject": part.name,
        "unit": part.unit,
        "run": run_digest,
        "batch_size": batch_size,
    }
    partial, progress = out.with_name(out.name + ".partial"), out.with_name(out.name + ".progress.json")
    key = digest_of(about)
    start = _resume_at(partial, progress, key)
    if start == 0:
        require_absent(sidecar_of(out), overwrite)  # it may be anyone's: scores.json beside scores.npy
        array = allocate_array(partial, (n_samples, len(images), part.n_voxels), np.float32)
        write_json(progress, {"key": key, "done": 0})
    else:
        array = open_array(partial, writable=True)
    moving = bar("synthesize", total=len(images), unit="image", show=show_progress, initial=start)
    batches = model.iter_samples(
        list(images), n_samples, seed, subject=part.name, noise_factor=noise_factor, batch_size=batch_size,
        start=start,
    )  # fmt: skip
    try:
        for rows, trials in batches:
            array[:, rows] = trials
            array.flush()
            write_json(progress, {"key": key, "done": rows.stop})
            moving.update(rows.stop - rows.start)
    finally:
        moving.close()
    del array
    write_json(sidecar_of(out), about)
    os.replace(partial, out)
    progress.unlink()
    return out


def _resume_at(partial: Path, progress: Path, key: str) -> int:
    """First image that is still to be written; 0 where nothing fit to continue stands there."""
    if not (partial.exists() and progress.exists()):
        return 0
    told = read_json(progress)
    return int(told["done"]) if told.get("key") == key else 0


def sidecar_of(out: Path) -> Path:
    """``responses.npy`` -> ``responses.json``."""
    name = out.name.removesuffix(".npy").removesuffix(".gz").removesuffix(".nii")
    return out.with_name(name + ".json")


def write_nifti(out: Path, array: Path, space: VoxelSpace, *, overwrite: bool = False) -> Path:
    """Write a finished synthesis as a 4-D NIfTI of the subject's grid: volumes image by image, then sample.

    Volume ``image * n_samples + sample`` is that trial; voxels outside the mask are 0.

    Args:
        out: .nii or .nii.gz.
        array: (n_samples, n_images, n_voxels) .npy.
        space: a volume space.
        overwrite: replace ``out``.

    Raises:
        SynBrainError: where the space is no volume.
    """
    import nibabel as nib

    require_absent(out, overwrite)
    if space.kind != "volume" or space.shape is None:
        raise SynBrainError(f"a {space.kind} space cannot be written as NIfTI", "use --format npy")
    trials = open_array(array)
    n_samples, n_images, _ = trials.shape
    n_bytes = int(np.prod(space.shape)) * n_samples * n_images * 4
    require_space(out.parent, n_bytes * 2)
    scratch = out.with_name(out.name + ".volumes.partial")  # the volumes may not fit in memory
    volumes = np.memmap(
        scratch, dtype=np.float32, mode="w+", shape=(*space.shape, n_images * n_samples), order="F"
    )
    try:
        for image in range(n_images):
            block = slice(image * n_samples, (image + 1) * n_samples)
            volumes[..., block] = space.to_volume(np.asarray(trials[:, image]), 0.0)
        with atomic_path(out) as partial:
            named = partial.with_name("partial." + out.name)  # nibabel goes by the suffix
            try:
                nib.save(nib.Nifti1Image(volumes, space.affine), named)
                os.replace(named, partial)
            finally:
                named.unlink(missing_ok=True)
    finally:
        del volumes
        scratch.unlink(missing_ok=True)
    return out


def list_images(source: Path) -> list[Path]:
    """Image files that ``source`` names: a folder, one image, or a text file with one path a line.

    Paths in a text file are relative to it; a folder's files come in order of name.

    Raises:
        SynBrainError: where there is none, or a listed file is missing.
    """
    if source.is_dir():
        found = sorted(path for path in source.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    elif not source.exists():
        raise SynBrainError(
            f"{source} is missing", "give a folder, an image or a text file with one path a line"
        )
    elif source.suffix.lower() in IMAGE_SUFFIXES:
        found = [source]
    else:
        try:
            lines = [line.strip() for line in source.read_text(encoding="utf-8").splitlines()]
        except UnicodeDecodeError as error:
            raise SynBrainError(
                f"{source} is neither an image nor a text file", "give a folder, an image or a list of paths"
            ) from error
        found = [source.parent / line for line in lines if line and not line.startswith("#")]
        missing = [path for path in found if not path.exists()]
        if missing:
            raise SynBrainError(
                f"{len(missing)} of {len(found)} images in {source} are missing, the first is {missing[0]}",
                "mend the list",
            )
    if not found:
        raise SynBrainError(f"{source} holds no images", f"give files of {', '.join(sorted(IMAGE_SUFFIXES))}")
    return found
