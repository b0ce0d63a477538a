"""The pictures of a dataset looked at once: readable, of which kinds and sizes, and none under two names."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from synbrain.data.dataset import Stimuli, relative_to_dataset
from synbrain.data.options import PictureOptions
from synbrain.data.pictures import RULES, PictureFacts, inspect_image
from synbrain.data.tables import nearest
from synbrain.data.thumbnails import SIDE, Thumbnails, copies, thumbnail
from synbrain.describe import counted
from synbrain.errors import SynBrainError
from synbrain.progress import track

SHOWN = 5


@dataclass(frozen=True)
class PictureReport:
    """What was seen in the pictures: one line on modes and sizes, and what the user should know."""

    summary: str
    notes: list[str]


def check_images(
    folder: Path, images: pd.DataFrame, rules: PictureOptions = RULES, show_progress: bool = False
) -> PictureReport:
    """Decode every image once, and see that no picture stands in both splits under two names.

    Equal pixels in both splits are an error. Re-encodings and other sizes of one picture are looked for by
    their thumbnails, and named in a note: they may be two pictures that look alike.

    Args:
        folder: the images' folder.
        images: name and split of each image.
        rules: how they are decoded.
        show_progress: show a bar.

    Raises:
        SynBrainError: naming the first image that is missing, unreadable or in both splits.
    """
    _require_all(folder, images)
    seen: dict[bytes, tuple[str, str]] = {}
    twice: list[str] = []
    facts: list[PictureFacts] = []
    small = np.zeros((len(images), SIDE, SIDE), dtype=np.uint8)
    pairs = list(zip(images["name"], images["split"], strict=True))
    for row, (name, split) in enumerate(track(pairs, "check images", unit="image", show=show_progress)):
        picture, fact = inspect_image(folder / name, rules)
        facts.append(fact)
        small[row] = thumbnail(picture)
        content = hashlib.sha256(repr(picture.size).encode() + picture.tobytes()).digest()
        other, its_split = seen.setdefault(content, (name, split))
        if its_split != split:
            raise SynBrainError(
                f"{name} ({split}) and {other} ({its_split}) are the same image",
                "give both the same split: an image belongs to one",
            )
        if other != name:
            twice.append(f"{name} = {other}")
    notes = _warnings(facts, rules)
    if twice:
        notes.append(
            f"{counted(len(twice), 'image is', 'images are')} there under two names, counted as two: "
            f"{_listed(twice)}"
        )
    notes += _lookalikes(images, small)
    return PictureReport(summarise(facts), notes)


def _lookalikes(images: pd.DataFrame, small: Thumbnails) -> list[str]:
    train, test = (np.flatnonzero((images["split"] == split).to_numpy()) for split in ("train", "test"))
    names = images["name"].tolist()
    pairs = [(names[test[i]], names[train[j]]) for i, j in copies(small[test], small[train])]
    if not pairs:
        return []
    n_test = len({one for one, _ in pairs})
    which = counted(n_test, "test image looks", "test images look")
    return [
        f"{which} like training images (one picture stored twice, or made alike?): "
        f"{_listed([f'{one} ~ {other}' for one, other in pairs])}; give both the same split if they are one"
    ]


def summarise(facts: list[PictureFacts]) -> str:
    """ "26 pictures: 26 8-bit colour; 48 x 48 pixels"."""
    modes = Counter(fact.mode for fact in facts)
    sizes = Counter(fact.size for fact in facts)
    (width, height), most = sizes.most_common(1)[0]
    size = f"{width} x {height} pixels"
    if len(sizes) > 1:
        size = f"{most} of {size}, the others of {len(sizes) - 1} other sizes"
    kinds = ", ".join(f"{n} {mode}" for mode, n in modes.most_common())
    return f"{counted(len(facts), 'picture')}: {kinds}; {size}"


def _warnings(facts: list[PictureFacts], rules: PictureOptions) -> list[str]:
    notes = []
    if len({fact.mode for fact in facts}) > 1:
        notes.append("the pictures are of mixed modes: check that the subject saw them alike")
    shapes = {fact.size[0] / fact.size[1] for fact in facts}
    if len({fact.size for fact in facts}) > 1:
        notes.append(
            "the pictures are of mixed sizes: each is squashed to a square for the encoder"
            + (", whatever its proportions" if len(shapes) > 1 else "")
        )
    tagged, moving = sum(fact.has_tag for fact in facts), sum(fact.n_frames > 1 for fact in facts)
    if tagged and rules.orientation == "upright":
        notes.append(
            f"{counted(tagged, 'picture was', 'pictures were')} turned as the orientation tag says; "
            "--orientation stored leaves that"
        )
    elif tagged:
        notes.append(
            f"{counted(tagged, 'picture has', 'pictures have')} an orientation tag that was not followed"
        )
    if any("transparency" in fact.mode for fact in facts) and rules.background is not None:
        notes.append(f"transparent pictures are shown on {rules.background}")
    if moving:
        notes.append(f"{counted(moving, 'picture has', 'pictures have')} several frames: the first is taken")
    return notes


def _require_all(folder: Path, images: pd.DataFrame) -> None:
    missing = [name for name in images["name"] if not (folder / name).is_file()]
    linked = next((name for name in missing if (folder / name).is_symlink()), None)
    if linked is not None:
        inspect_image(folder / linked)  # says what the link needs
    if missing:
        named = set(images["name"])  # a file that another row names is no misspelling of this one
        hint = nearest(missing[0], [file for file in files_below(folder) if file not in named])
        raise SynBrainError(
            f"{len(missing)} of {len(images)} images named in the trials are missing from {folder}, "
            f"such as {missing[0]}" + (f"; {hint}" if hint else ""),
            "write the names as the files have them"
            if hint
            else "restore the files, or drop their trials and response rows",
        )


def files_below(folder: Path) -> list[str]:
    """Names of the files below a folder, relative to it, with slashes; links are followed."""
    names = []
    for where, below, files in os.walk(folder):
        below[:] = sorted(name for name in below if not name.startswith("."))
        base = Path(where).relative_to(folder)
        names += [(base / name).as_posix() for name in sorted(files) if not name.startswith(".")]
    return names


def _listed(items: list[str]) -> str:
    return ", ".join(items[:SHOWN]) + (", ..." if len(items) > SHOWN else "")


def stimuli_in(folder: Path | None, out: Path, options: PictureOptions) -> Stimuli:
    """What a dataset at ``out`` says of pictures in ``folder``; None: they were copied into the dataset."""
    path = "images" if folder is None else relative_to_dataset(folder, out)
    return Stimuli(kind="folder", path=path, background=options.background, orientation=options.orientation)
