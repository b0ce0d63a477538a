"""Synthesis of many images to a file: streamed, in bounded memory, resumable with the same bytes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from synbrain.arrays import Float32
from synbrain.files import allocate_array, digest_of, open_array, read_json, write_json
from synbrain.model.options import SynthesizeOptions
from synbrain.model.output_names import making, sidecar_of
from synbrain.model.outputs import write_responses
from synbrain.model.request import Request, requested
from synbrain.model.synbrain import SynBrain
from synbrain.progress import bar

AS_USUAL = SynthesizeOptions()


def synthesize(
    model: SynBrain,
    images: Sequence[str | Path],
    options: SynthesizeOptions = AS_USUAL,
    *,
    out: Path,
    overwrite: bool = False,
    show_progress: bool = False,
) -> list[Path]:
    """Write synthetic trials of images; the same call continues an interrupted synthesis.

    The suffix of ``out`` decides the format. Memory does not grow with the number of images. Until all is
    written the trials lie in ``out.partial`` beside ``out`` (hidden, of other formats than .npy), and
    ``out.progress.json`` says how far they came; continued, they end in the bytes of an uninterrupted run.

    Args:
        model: run folder, or the id of a run on the Hugging Face hub.
        images: images, folders, globs, or text files with one path a line.
        options: number of trials, seed, subject.
        out: file to write: .npy, .nii.gz, .func.gii, .shape.gii, .mgh, .dscalar.nii, .dtseries.nii, .csv,
            .parquet or .nc.
        overwrite: replace what stands at out.
        show_progress: show a bar.

    Returns:
        the files written; the last is the JSON sidecar with the names of images.

    Raises:
        SynBrainError: an unknown or contradictory format, an image that cannot be read (what was written
            before is kept), another process that writes ``out``.
    """
    out = Path(out)
    reader = model.computing_in(options.precision)
    asked = requested(reader, images, out, options, overwrite, n_maps=options.samples)
    with making(out):
        is_array = asked.suffix == ".npy" and asked.rois is None
        array = out if is_array else out.with_name(f".{out.name}.trials.npy")
        drawn = _draw(asked, array, options, show_progress)
        if is_array:
            write_json(sidecar_of(out), drawn.about | {"files": [out.name]})
            os.replace(drawn.array, out)
            written = [out, sidecar_of(out)]
        else:
            trials: Float32 = open_array(drawn.array)
            if asked.rois is not None:
                trials = np.stack([np.asarray(trial) @ asked.rois[1] for trial in trials])
            names = [f"trial_{k}" for k in range(options.samples)]
            written = write_responses(out, asked.responses(trials, names, drawn.about | {"kind": "trials"}))
            drawn.array.unlink()
        drawn.progress.unlink()  # last: a disk that is full is no reason to draw all trials again
    return written


class _Drawn(NamedTuple):
    """Trials in a file: (n_samples, n_images, n_voxels) float32, how far they came, and what they are."""

    array: Path
    progress: Path
    about: dict[str, Any]


def _draw(asked: Request, out: Path, options: SynthesizeOptions, show_progress: bool) -> _Drawn:
    """All trials beside ``out``, mapped to memory, from where an earlier call ended."""
    part, files = asked.part, asked.files
    batch_size = asked.at_once(options.batch_size, options.samples)
    about: dict[str, Any] = {
        "images": [str(file) for file in files],
        "n_samples": options.samples,
        "n_voxels": part.n_voxels,
        "axes": ["sample", "image", "voxel"],
        "seed": options.seed,
        "noise_factor": options.noise_factor,
        "subject": part.name,
        "unit": part.unit,
        "run": asked.model.digest,
        "batch_size": batch_size,
        "background": options.background,
        "orientation": options.orientation,
        "precision": asked.model.network_precision,
    }
    partial, progress = out.with_name(out.name + ".partial"), out.with_name(out.name + ".progress.json")
    key = digest_of(about | {"model": _told_apart(asked, options)})
    start = _resume_at(partial, progress, key)
    if start == 0:
        progress.unlink(missing_ok=True)  # first: it would say of the new file what was true of an older one
        array = allocate_array(partial, (options.samples, len(files), part.n_voxels), np.float32)
        write_json(progress, {"key": key, "done": 0})
    else:
        array = open_array(partial, writable=True)
    batches = asked.model.iter_samples(
        files, options.samples, options.seed, subject=part.name, noise_factor=options.noise_factor,
        batch_size=batch_size, start=start,
    )  # fmt: skip
    with bar("synthesize", total=len(files), unit="image", show=show_progress, initial=start) as moving:
        for rows, trials in batches:
            array[:, rows] = trials
            array.flush()
            write_json(progress, {"key": key, "done": rows.stop})
            moving.update(rows.stop - rows.start)
    del array
    return _Drawn(partial, progress, about)


def _told_apart(asked: Request, options: SynthesizeOptions) -> str:
    """What tells a model that was opened from no folder from others: a trial of the first image."""
    model, part = asked.model, asked.part
    if model.digest:
        return model.digest
    named: dict[str, Any] = {"subject": part.name, "noise_factor": options.noise_factor}
    return hashlib.sha256(model.sample(asked.files[:1], 1, options.seed, **named).tobytes()).hexdigest()


def _resume_at(partial: Path, progress: Path, key: str) -> int:
    """First image that is still to be written; 0 where nothing fit to continue stands there."""
    if not (partial.exists() and progress.exists()):
        return 0
    kept = read_json(progress)
    return int(kept["done"]) if kept.get("key") == key else 0
