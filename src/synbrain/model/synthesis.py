"""Synthesis of many images to a file: streamed, in bounded memory, resumable with the same bytes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from synbrain.arrays import Float32
from synbrain.files import (
    allocate_array,
    digest_of,
    open_array,
    read_json,
    require_absent,
    write_json,
)
from synbrain.model.image_list import list_images
from synbrain.model.options import SynthesizeOptions
from synbrain.model.outputs import Responses, require_output, sidecar_of, write_responses
from synbrain.model.prediction import roi_means
from synbrain.model.synbrain import SynBrain
from synbrain.progress import bar

BATCH = 32
AS_USUAL = SynthesizeOptions()


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
        "precision": model.network_precision,
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


def synthesize(
    model: SynBrain,
    images: Sequence[str | Path],
    out: Path,
    options: SynthesizeOptions = AS_USUAL,
    *,
    overwrite: bool = False,
    show_progress: bool = False,
) -> list[Path]:
    """Write synthetic trials of images; the same call continues an interrupted synthesis.

    The suffix of ``out`` decides the format, see :mod:`synbrain.model.outputs`.

    Args:
        model: run folder, or the id of a run on the Hugging Face hub.
        images: images, folders, globs, or text files with one path a line.
        out: file to write: .npy, .nii.gz, .func.gii, .shape.gii, .dscalar.nii, .csv, .parquet or .nc.
        options: number of trials, seed, subject.
        overwrite: replace what stands at out.
        show_progress: show a bar.

    Returns:
        the files written; the last is the JSON sidecar with the names of images.

    Raises:
        SynBrainError: an unknown or contradictory format, or an image that cannot be read.
    """
    part, model = model.subject(options.subject), model.computing_in(options.precision)
    suffix = require_output(
        out, part.space, by_roi=options.by == "roi", format=options.format, overwrite=overwrite
    )
    files = list_images(images)
    plain = suffix == ".npy" and options.by == "voxel"
    array = out if plain else out.with_name(f".{out.name}.trials.npy")
    synthesize_to(
        array, model, files, options.samples, options.seed, subject=part.name,
        noise_factor=options.noise_factor, run_digest=model.digest, overwrite=overwrite,
        batch_size=options.batch_size, show_progress=show_progress,
    )  # fmt: skip
    if plain:
        return [out, sidecar_of(out)]
    about = read_json(sidecar_of(array)) | {"kind": "trials"}
    trials: Float32 = open_array(array)
    rois = None
    if options.by == "roi":
        rois, weights = roi_means(part.space)
        trials = np.stack([np.asarray(trial) @ weights for trial in trials])
    names = [f"trial_{k}" for k in range(options.samples)]
    responses = Responses(trials, names, about["images"], part.space, part.unit, rois, about)
    written = write_responses(out, responses)
    for path in (array, sidecar_of(array)):
        path.unlink()
    return written
