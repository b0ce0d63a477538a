"""The pictures of a dataset looked at once: readable, of which kinds and sizes, and none under two names."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from synbrain.data.dataset import Stimuli, relative_to_dataset
from synbrain.data.options import PictureOptions
from synbrain.data.pictures import RULES, PictureFacts, inspect_image
from synbrain.data.tables import nearest
from synbrain.describe import counted
from synbrain.errors import SynBrainError
from synbrain.progress import track

SIDE = 16  # pixels of a fingerprint
ALIKE = 0.98  # correlation of two fingerprints from which they are taken for one picture
NEAR = 6.0  # mean difference of their grey levels up to which they are
FLAT = 4.0  # sd of grey levels below which a picture has no structure to go by
# A fine grating leaves coarse blobs on the 16 x 16 grid (aliasing), alike for gratings that differ. On a
# finer grid such pairs correlate at .71 at most, copies at .89 at least (48 pixels, JPEG of quality 30).
FINE_SIDE, FINE_ALIKE = 32, 0.8
SHOWN = 5
BLOCK = 512


@dataclass(frozen=True)
class PictureReport:
    """What was seen in the pictures: one line on modes and sizes, and what the user should know."""

    summary: str
    notes: list[str]


def check_images(
    folder: Path, images: pd.DataFrame, rules: PictureOptions = RULES, show_progress: bool = False
) -> PictureReport:
    """Decode every image once, and see that no picture stands in both splits under two names.

    Equal pixels in both splits are an error. Re-encodings and other sizes of one picture are looked for by a
    coarse fingerprint, compared again on a finer grid, and named in a note: they may be two pictures that
    look alike.

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
    prints = np.zeros((len(images), SIDE * SIDE), dtype=np.float32)
    pairs = list(zip(images["name"], images["split"], strict=True))
    for row, (name, split) in enumerate(track(pairs, "check images", unit="image", show=show_progress)):
        picture, fact = inspect_image(folder / name, rules)
        facts.append(fact)
        prints[row] = fingerprint(picture)
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
    notes += _lookalikes(images, prints, lambda name: inspect_image(folder / name, rules)[0])
    return PictureReport(summarise(facts), notes)


def fingerprint(picture: Image.Image) -> NDArray[np.float32]:
    """(256,) float32, the picture as 16 x 16 grey pixels: it survives other encodings and sizes."""
    small = picture.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32).ravel()


def fine_fingerprint(picture: Image.Image) -> NDArray[np.float32]:
    """(1024,) float32, the picture as 32 x 32 grey pixels without their mean, of length 1.

    Grey, as JPEG keeps brightness and blurs colour: a copy of colour noise correlates at .63 in colour.
    """
    small = picture.convert("L").resize((FINE_SIDE, FINE_SIDE), Image.Resampling.BOX)
    values = np.asarray(small, dtype=np.float32).ravel()
    values -= values.mean()
    return np.asarray(values / max(float(np.linalg.norm(values)), 1e-6), dtype=np.float32)


def lookalikes(first: NDArray[np.float32], second: NDArray[np.float32]) -> Iterator[tuple[int, int]]:
    """Pairs (row of ``first``, row of ``second``) whose fingerprints are of one picture.

    Args:
        first, second: (n, 256) from :func:`fingerprint`.
    """
    a, flat_a = _standardised(first)
    b, flat_b = _standardised(second)
    for start in range(0, len(a), BLOCK):
        alike = a[start : start + BLOCK] @ b.T >= ALIKE
        for i, j in np.argwhere(alike):
            row = start + int(i)
            if not flat_a[row] and not flat_b[j] and np.abs(first[row] - second[j]).mean() <= NEAR:
                yield row, int(j)


def _standardised(prints: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    centred = prints - prints.mean(axis=1, keepdims=True)
    sd = centred.std(axis=1)
    scale = np.maximum(sd, 1e-6)[:, None] * np.sqrt(prints.shape[1])
    return np.asarray(centred / scale, dtype=np.float32), sd < FLAT


def _lookalikes(
    images: pd.DataFrame, prints: NDArray[np.float32], picture_of: Callable[[str], Image.Image]
) -> list[str]:
    train, test = (np.flatnonzero((images["split"] == split).to_numpy()) for split in ("train", "test"))
    if not len(train) or not len(test):
        return []
    names = images["name"].tolist()
    fine = lru_cache(maxsize=1000)(lambda name: fine_fingerprint(picture_of(name)))
    pairs = []
    for i, j in lookalikes(prints[test], prints[train]):
        one, other = names[test[i]], names[train[j]]
        if fine(one) @ fine(other) >= FINE_ALIKE:
            pairs.append((one, other))
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
