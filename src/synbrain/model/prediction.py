"""Expected responses of many images to a file, with predictive sd and intervals beside them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from synbrain.arrays import Float32
from synbrain.errors import SynBrainError
from synbrain.files import allocate_array
from synbrain.model.options import PredictOptions
from synbrain.model.output_names import making
from synbrain.model.outputs import write_responses
from synbrain.model.request import Request, requested
from synbrain.model.synbrain import SynBrain
from synbrain.noise.predictive import Predictive
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
    """Write expected responses of images, with predictive sd and intervals of single trials where asked for.

    Both hold what a trial adds to the true mean and what is not known of the mean, which is more for images
    unlike the training images.

    The suffix of ``out`` decides the format.

    Args:
        model: run folder, or the id of a run on the Hugging Face hub.
        images: images, folders, globs, or text files with one path a line.
        options: what is written.
        out: file to write: .npy, .nii.gz, .func.gii, .shape.gii, .mgh, .dscalar.nii, .dtseries.nii, .csv,
            .parquet or .nc.
        overwrite: replace what stands at out.
        show_progress: show a bar.

    Returns:
        the files written; the last is the JSON sidecar with the names of maps and images.

    Raises:
        SynBrainError: an unknown or contradictory format, a run without trial noise where a spread is asked
            for, an image that cannot be read.
    """
    out = Path(out)
    maps = _map_names(options)
    asked = requested(model, images, out, options, overwrite, n_maps=len(maps))
    part, files = asked.part, asked.files
    if len(maps) > 1 and part.noise is None:
        raise SynBrainError(
            f"the run has no trial noise for {part.name}, so no sd and no interval",
            "leave out --sd and --interval, or `synbrain calibrate` the run",
        )
    with (
        making(out),
        tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as scratch,
        bar("predict", total=len(files), unit="image", show=show_progress) as moving,
    ):
        shape = (len(maps), len(files), part.n_voxels if asked.rois is None else len(asked.rois[0]))
        values = allocate_array(Path(scratch) / "values.npy", shape, np.float32)
        for rows, statistics in _batches(asked, options, len(maps)):
            values[:, rows] = statistics
            moving.update(rows.stop - rows.start)
        about = {"kind": "prediction", "subject": part.name, "run": model.digest, "seed": options.seed}
        about |= {"background": options.background, "orientation": options.orientation}
        written = write_responses(out, asked.responses(values, maps, about))
        del values
    return written


def _batches(asked: Request, options: PredictOptions, n_maps: int) -> Iterator[tuple[slice, Float32]]:
    """Batch by batch the places of the images and their maps, (n_maps, n, n_columns)."""
    weights = None if asked.rois is None else asked.rois[1]
    samples = 1 if n_maps == 1 else options.samples
    named: dict[str, Any] = {"subject": asked.part.name}
    named["batch_size"] = asked.at_once(options.batch_size, samples)
    if n_maps == 1:
        for rows, mean in asked.model.iter_means(asked.files, **named):
            yield rows, (mean if weights is None else mean @ weights)[None]
    else:
        for rows, batch in asked.model.iter_predictive(asked.files, **named):
            yield rows, _statistics(batch, weights, rows.start, options)


def _map_names(options: PredictOptions) -> list[str]:
    names = ["expected"]
    if options.sd:
        names.append("sd")
    if options.interval is not None:
        names += [f"{side}_{100 * options.interval:g}" for side in ("lower", "upper")]
    return names


def _statistics(batch: Predictive, rois: Float32 | None, first: int, options: PredictOptions) -> Float32:
    """(n_maps, n, n_columns): the mean, and where they are asked for predictive sd and interval.

    Of voxels they are known without sampling. Those of an ROI's mean are taken from predictive draws: voxels
    vary together, so they do not follow from those of its voxels.

    Args:
        batch: of n images.
        rois: (n_voxels, n_rois) weights; None: voxels.
        first: position of the first image in the whole list.
        options: what is asked for.
    """
    level = options.interval
    if rois is None:
        sd = batch.sd if options.sd else None
        ends = None if level is None else batch.interval(level)
        return _stacked(batch.mean, sd, ends)
    outer = [0.25, 0.75] if level is None else [(1 - level) / 2, (1 + level) / 2]
    sds = np.empty((len(batch.mean), rois.shape[1]), dtype=np.float32)
    quantiles = np.empty((2, *sds.shape), dtype=np.float32)
    for i in range(len(sds)):  # image by image: 200 draws of all voxels of one image are enough to hold
        one = replace(batch, mean=batch.mean[i : i + 1], growth=batch.growth[i : i + 1])
        of_rois = one.sample(options.samples, options.seed, first + i)[:, 0] @ rois
        sds[i] = of_rois.std(axis=0, ddof=1)
        quantiles[:, i] = np.quantile(of_rois, outer, axis=0, method="weibull")
    return _stacked(batch.mean @ rois, sds if options.sd else None, None if level is None else quantiles)


def _stacked(mean: Float32, sd: Float32 | None, ends: Float32 | None) -> Float32:
    return np.stack([mean, *([] if sd is None else [sd]), *([] if ends is None else ends)])
