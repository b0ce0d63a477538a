"""Pictures decoded from responses to test images: measured ones and a model's synthetic ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from synbrain.arrays import Float32, Rows
from synbrain.data.dataset import Dataset
from synbrain.decoding.decoder import Decoder
from synbrain.decoding.guards import part_beside
from synbrain.decoding.pictures.gallery import PixelDecoder, nearest_images
from synbrain.decoding.pictures.renderers import UnclipRenderer
from synbrain.decoding.subjects import require_untrained
from synbrain.errors import SynBrainError
from synbrain.features.store import open_tokens, open_untuned
from synbrain.features.tokens import pairs_of
from synbrain.files import new_folder, require_absent
from synbrain.model.synbrain import SynBrain

Pictures = list[NDArray[np.uint8]]
# predicted tokens (n, n_tokens, dim) -> pictures
Painter = Callable[[Float32], Pictures]
PIXELS = "pixels"  # these two renderers know nothing but training images
NEAREST = "nearest"


@dataclass(frozen=True)
class Reconstruction:
    """Decoded pictures of some test images.

    Attributes:
        names: of the images, file names or numbers.
        rows: what was decoded ("seen", "measured mean", "measured trial", "synthetic mean", "synthetic
            trial") -> a picture (h, w, 3) uint8 an image; "seen" are the images themselves.
    """

    names: list[str]
    rows: dict[str, Pictures]

    def save(self, out: Path, overwrite: bool = False) -> None:
        """Write a PNG an image into a folder for each row below ``out``."""
        with new_folder(out, overwrite) as building:
            for title, pictures in self.rows.items():
                folder = building / title.replace(" ", "-")
                folder.mkdir()
                for name, picture in zip(self.names, pictures, strict=True):
                    Image.fromarray(picture).save(folder / f"{name}.png")


def reconstruct(
    decoder: Decoder,
    dataset: Dataset,
    *,
    run: SynBrain | None = None,
    renderer: str = PIXELS,
    images: int = 6,
    seed: int = 0,
    out: Path | None = None,
    overwrite: bool = False,
) -> Reconstruction:
    """Decode measured and synthetic responses to test images into pictures.

    Nothing of a test image is used but the responses to it: pixel decoder and nearest pictures know training
    images alone. Writes a PNG each, in a folder for each row, below OUT.

    Args:
        decoder: of the dataset's subject, of tokens that are stored with the dataset.
        dataset: with test images.
        run: a model of the subject, whose synthetic responses are decoded too.
        renderer: pixels (ridge from tokens to small pictures), nearest (the training picture whose tokens
            are most alike), or the path of an unCLIP checkpoint.
        images: number of test images, drawn by the seed.
        seed: of images, synthetic trials and whatever a renderer draws.
        out: folder to write; nothing is written if left out.
        overwrite: replace what stands at out.

    Raises:
        SynBrainError: for voxels, a unit or tokens that do not fit the decoder, test images that it was
            trained on, no test images, or an unknown renderer.
    """
    if out is not None:
        require_absent(out, overwrite)
    decoder = decoder.for_dataset(dataset)
    require_untrained(decoder, dataset)
    painter = painter_of(renderer, decoder, dataset, seed=seed)
    decoded = decode_test_images(decoder, dataset, painter, run=run, images=images, seed=seed)
    if out is not None:
        decoded.save(out, overwrite)
    return decoded


def decode_test_images(
    decoder: Decoder, dataset: Dataset, painter: Painter, *, run: SynBrain | None, images: int, seed: int
) -> Reconstruction:
    """The same for a decoder that is known to fit, with pictures painted by ``painter``."""
    test = pairs_of(dataset, open_tokens(dataset, decoder.space.encoder, [decoder.space.layer]), "test")
    if test.n_images == 0:
        raise SynBrainError(f"{dataset.path} has no test images", "mark some images' trials as `test`")
    drawn = np.random.default_rng(seed).permutation(test.n_images)[:images]
    chosen = test.take(np.sort(drawn))
    responses = {"measured mean": chosen.repeat_means(), "measured trial": _first_trials(chosen)}
    if run is not None:
        read = open_tokens(dataset, run.config.encoder, run.config.layers).take(chosen.tokens.image_rows)
        subject = part_beside(run, dataset).name
        responses["synthetic mean"] = run.predict(read, subject=subject)
        responses["synthetic trial"] = run.sample(read, 1, seed, subject=subject)[0]
    rows = {"seen": [np.asarray(dataset.load_image(int(row))) for row in chosen.tokens.image_rows]}
    for name, values in responses.items():
        rows[name] = painter(decoder.predict_tokens(values, seed=seed)[0])
    return Reconstruction(picture_names(dataset, chosen.tokens.image_rows), rows)


def picture_names(dataset: Dataset, rows: Rows) -> list[str]:
    """Names of the images ``rows`` without folder and suffix; with its row where another has the same."""
    column = "name" if "name" in dataset.images else "row"
    stems = [Path(str(name)).stem for name in dataset.images[column]]
    counts = Counter(stems)
    return [stems[row] if counts[stems[row]] == 1 else f"{stems[row]}-{row}" for row in rows.tolist()]


def _first_trials(pairs: Any) -> Float32:
    """(n_images, n_voxels): the first recorded trial of each image."""
    first: Rows = np.unique(pairs.image_of_trial, return_index=True)[1]
    trials: Float32 = pairs.trial_responses(first)
    return trials


def painter_of(
    renderer: str, decoder: Decoder, dataset: Dataset, *, seed: int = 0, most: int | None = None
) -> Painter:
    """From predicted tokens to pictures, by training images of ``dataset`` or an unCLIP checkpoint.

    Args:
        renderer: ``pixels``, ``nearest``, or the path of an unCLIP checkpoint.
        decoder: whose tokens are read.
        dataset: with the training images that ``pixels`` and ``nearest`` know.
        seed: of what a checkpoint draws.
        most: at most so many training images, evenly spaced; None: all of them.

    Raises:
        SynBrainError: for an unknown renderer, or tokens that are not stored.
    """
    if renderer not in (PIXELS, NEAREST):
        if not Path(renderer).exists():
            raise SynBrainError(
                f"there is no renderer {renderer!r}",
                "choose pixels, nearest, or the path of an unCLIP checkpoint",
            )
        unclip = UnclipRenderer.from_checkpoint(renderer)
        return lambda predicted: list(unclip.render(predicted, seed=seed))
    dataset, tokens = open_untuned(dataset, decoder.space.encoder, [decoder.space.layer])
    train = pairs_of(dataset, tokens, "train")
    if most is not None and train.n_images > most:
        train = train.take(np.linspace(0, train.n_images - 1, most).astype(int))
    known = decoder.image_tokens(train.tokens)
    pictures = train.tokens.image_rows
    if renderer == NEAREST:

        def nearest(predicted: Float32) -> Pictures:
            rows = pictures[nearest_images(predicted, known, n=1)[:, 0]]
            return [np.asarray(dataset.load_image(int(row))) for row in rows]

        return nearest
    pixels = PixelDecoder.fit(known, (np.asarray(dataset.load_image(int(row))) for row in pictures))
    return lambda predicted: list(pixels.render(predicted))
