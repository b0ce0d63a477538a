"""Expected responses of many images to a file, with the spread of single trials beside them."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from synbrain.arrays import Float32
from synbrain.errors import SynBrainError
from synbrain.files import allocate_array, alone
from synbrain.model.options import PredictOptions
from synbrain.model.outputs import write_responses
from synbrain.model.request import requested
from synbrain.model.synbrain import SynBrain
from synbrain.progress import bar

AS_USUAL = PredictOptions()


def predict_to(
    model: SynBrain,
    images: Sequence[str | Path],
    options: PredictOptions = AS_USUAL,
    *,
    out: Path,
    overwrite: bool = False,
    show_progress: bool = False,
) -> list[Path]:
    """Write expected responses of images, with sd and intervals of single trials where asked for.

    The suffix of ``out`` decides the format.

    Args:
        model: run folder, or the id of a run on the Hugging Face hub.
        images: images, folders, globs, or text files with one path a line.
        options: what is written.
        out: file to write: .npy, .nii.gz, .func.gii, .shape.gii, .dscalar.nii, .csv, .parquet or .nc.
        overwrite: replace what stands at out.
        show_progress: show a bar.

    Returns:
        the files written; the last is the JSON sidecar with the names of maps and images.

    Raises:
        SynBrainError: an unknown or contradictory format, a run without trial noise where a spread is asked
            for, an image that cannot be read.
    """
    asked = requested(model, images, out, options, overwrite)
    part, files, rois = asked.part, asked.files, asked.rois
    maps = _map_names(options)
    if len(maps) > 1 and part.noise is None:
        raise SynBrainError(
            f"the run has no trial noise for {part.name}, so no sd and no interval",
            "leave out --sd and --interval, or `synbrain calibrate` the run",
        )
    n_columns = part.n_voxels if rois is None else len(rois[0])
    with (
        alone(out),
        tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as scratch,
        bar("predict", total=len(files), unit="image", show=show_progress) as moving,
    ):
        shape = (len(maps), len(files), n_columns)
        values = allocate_array(Path(scratch) / "values.npy", shape, np.float32)
        for rows, mean in asked.model.iter_means(files, subject=part.name, batch_size=options.batch_size):
            values[:, rows] = _statistics(mean, rows.start, part.noise, rois, options)
            moving.update(rows.stop - rows.start)
        about = {"kind": "prediction", "subject": part.name, "run": model.digest, "seed": options.seed}
        about |= {"background": options.background, "orientation": options.orientation}
        written = write_responses(out, asked.responses(values, maps, about))
        del values
    return written


def _map_names(options: PredictOptions) -> list[str]:
    names = ["expected"]
    if options.sd:
        names.append("sd")
    if options.interval is not None:
        names += [f"{side}_{100 * options.interval:g}" for side in ("lower", "upper")]
    return names


def _statistics(
    mean: Float32, first: int, noise: Any, rois: tuple[list[str], Float32] | None, options: PredictOptions
) -> Float32:
    """(n_maps, n, n_columns): the mean, and sd and quantiles of trials around it.

    The sd of an ROI's mean is that of the trials' means: voxels vary together, so it does not follow
    from the sd of its voxels.
    """
    rows = [mean if rois is None else mean @ rois[1]]
    if options.sd and rois is None:
        rows.append(np.sqrt(noise.variance(mean)))
    if options.interval is None and (not options.sd or rois is None):
        return np.stack(rows)
    n = len(mean)
    outer = [] if options.interval is None else [(1 - options.interval) / 2, (1 + options.interval) / 2]
    n_columns = rows[0].shape[1]
    sds, bounds = np.empty((n, n_columns)), np.empty((len(outer), n, n_columns))
    for i in range(n):  # image by image: 200 trials of all voxels of one image are enough to hold
        trials = noise.sample(mean[i : i + 1], options.samples, options.seed, first + i)[:, 0]
        trials = trials if rois is None else trials @ rois[1]
        sds[i] = trials.std(axis=0, ddof=1)
        if outer:
            bounds[:, i] = np.quantile(trials, outer, axis=0)
    if options.sd and rois is not None:
        rows.append(sds.astype(np.float32))
    return np.stack([*rows, *bounds.astype(np.float32)])
