"""Which images are test images (a list, a column or a draw), and the folder that images lie in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from synbrain.data.tables import nearest, read_list
from synbrain.describe import counted
from synbrain.errors import SynBrainError
from synbrain.prepare.options import SourceOptions

REPEATED = Path("repeated")  # in place of a list: the images that were shown more than once


def split_images(trials: pd.DataFrame, options: SourceOptions) -> tuple[pd.DataFrame, list[str]]:
    """``trials`` with a column ``split``, and a note where it was drawn.

    A list of test images counts before a column that is there; without either, a share is drawn by image.

    Raises:
        SynBrainError: where the list names an image that was never shown, or repeated images shall be the
            test images and all are, or none.
    """
    names, shown = np.unique(trials["image"].dropna().to_numpy(dtype=str), return_counts=True)
    notes: list[str] = []
    if options.test_images == REPEATED:
        chosen = set(names[shown > 1])
        if len(chosen) in (0, len(names)):
            raise SynBrainError(
                f"{'no image was' if not chosen else 'all images were'} shown more than once",
                "pass --test-images with a list, or leave it out for a random split",
            )
        notes.append(f"test images are the {len(chosen)} of {len(names)} that were shown more than once")
    elif options.test_images is not None:
        chosen = set(read_list(options.test_images))
        unknown = sorted(chosen - set(names))
        if unknown:
            hint = nearest(unknown[0], names.tolist())
            raise SynBrainError(
                f"{len(unknown)} test images were never shown, such as {unknown[0]}"
                + (f" ({hint})" if hint else ""),
                f"mend {options.test_images}",
            )
    elif "split" in trials:
        return trials, notes
    else:
        n_test = round(options.test_fraction * len(names))
        chosen = set(np.random.default_rng(options.seed).permutation(names)[:n_test])
        notes.append(
            f"no split was given: {n_test} of {len(names)} images were drawn as test, seed {options.seed}"
        )
        told = [str(name) for name in trials if {"train", "test"} <= set(trials[name].dropna().map(str))]
        if told:
            notes.append(f"the column {told[0]} holds train and test, and is not read: call it split")
        if 0 < (n_repeated := int((shown > 1).sum())) < len(names):
            were = counted(n_repeated, "image of them was", "images of them were")
            notes.append(
                f"{were} shown more than once, which noise ceilings need: --test-images repeated makes these "
                "the test images; trial noise is fitted on repeats of training images, and would have none"
            )
    return trials.assign(split=np.where(trials["image"].isin(chosen), "test", "train")), notes


def images_folder(src: Path, images: Path | None, defaults: tuple[str, ...]) -> Path:
    """``images``, or else the first of the folders ``defaults`` below ``src`` that is there.

    Raises:
        SynBrainError: where there is none.
    """
    candidates = [images] if images is not None else [src / name for name in defaults]
    for folder in candidates:
        if folder.is_dir():
            return folder
    raise SynBrainError(f"{candidates[0]} is no folder", "pass --images with the folder of the stimuli")
