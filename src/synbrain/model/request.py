"""What is to be written where: checked before any work, the same for predictions and synthetic trials."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from synbrain.arrays import Float32
from synbrain.data.options import PictureOptions
from synbrain.data.space import VoxelSpace
from synbrain.errors import SynBrainError
from synbrain.model.image_list import list_images
from synbrain.model.options import OutputOptions
from synbrain.model.output_names import FORM_OF
from synbrain.model.outputs import Responses, require_output
from synbrain.model.parts import SubjectPart
from synbrain.model.synbrain import SynBrain

FEW_IMAGES, MANY_TRIALS = 32, 256  # at a time
MOST_VOLUMES = 2**15 - 1  # of a NIfTI-1 file, whose header counts them in 16 bits


@dataclass(frozen=True)
class Request:
    """Responses of one subject to image files.

    Attributes:
        model: takes pictures as the options say.
        part: of the subject.
        files: (n_images,) image files.
        suffix: of the output; decides its format.
        rois: names (n_rois,) and weights (n_voxels, n_rois) where means over ROIs are asked for.
    """

    model: SynBrain
    part: SubjectPart
    files: list[Path]
    suffix: str
    rois: tuple[list[str], Float32] | None

    def at_once(self, batch_size: int | None, samples: int = 1) -> int:
        """Images of ``samples`` trials at a time: as many as asked for, or what suits the model.

        The linear path widens its weights once a batch, which at a million tokens is most of its work; what
        networks decode takes memory.
        """
        if batch_size is not None:
            return batch_size
        return FEW_IMAGES if self.model.vae is not None else max(FEW_IMAGES, MANY_TRIALS // samples)

    def responses(self, values: Float32, maps: list[str], about: dict[str, Any]) -> Responses:
        """(n_maps, n_images, n_columns) ``values`` with the names of their axes."""
        rois = None if self.rois is None else self.rois[0]
        images = [str(file) for file in self.files]
        return Responses(values, maps, images, self.part.space, self.part.unit, rois, about)


def requested(
    model: SynBrain,
    images: Sequence[str | Path],
    out: Path,
    options: OutputOptions,
    overwrite: bool,
    *,
    n_maps: int,
) -> Request:
    """Check everything that can be checked before the work.

    Args:
        model: whose responses.
        images: images, folders, globs, lists.
        out: file to write.
        options: whose responses in what form.
        overwrite: replace what stands at out.
        n_maps: of each image.

    Raises:
        SynBrainError: an unknown or contradictory format, an output that exists, an image that is missing, a
            subject that the model does not have, more maps than the format holds.
    """
    part = model.subject(options.subject)
    by_roi = options.by == "roi"
    suffix = require_output(out, part.space, by_roi=by_roi, format=options.format, overwrite=overwrite)
    rules = PictureOptions(background=options.background, orientation=options.orientation)
    reader = model.using(pictures=rules, encoder_weights=options.encoder_weights)
    rois = roi_means(part.space) if by_roi else None
    files = list_images(images)
    if FORM_OF[suffix] == "nifti" and n_maps * len(files) > MOST_VOLUMES:
        raise SynBrainError(
            f"{n_maps * len(files)} volumes in one NIfTI file, which holds {MOST_VOLUMES} at most",
            "end --out in .npy, or give fewer images at a time",
        )
    return Request(reader, part, files, suffix, rois)


def roi_means(space: VoxelSpace) -> tuple[list[str], Float32]:
    """Names (n_rois,) as "atlas/label", and the matrix (n_voxels, n_rois) that takes means over them."""
    masks = space.roi_masks()
    weights = np.stack([mask / mask.sum() for mask in masks.values()], axis=1)
    return list(masks), np.asarray(weights, dtype=np.float32)
