"""Pictures that a decoder makes of responses, each named for what it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from synbrain.arrays import Float32
from synbrain.data.dataset import Dataset
from synbrain.decoding.decoder import Decoder
from synbrain.decoding.pictures.gallery import SIDE
from synbrain.decoding.pictures.reconstruct import NEAREST, PIXELS, Painter, decode_test_images, painter_of
from synbrain.decoding.subjects import require_untrained
from synbrain.model.synbrain import SynBrain

MOST_IMAGES = 2000  # training images that are searched, and that the pixel decoder is fitted on


@dataclass(frozen=True)
class Kind:
    """A way to show decoded tokens: its label, and what it is in a sentence."""

    label: str
    words: str


PIXEL_WORDS = f"ridge regression from the decoded tokens to {SIDE} x {SIDE} pixels, fitted on training images"
KINDS = {
    PIXELS: Kind("small pixel decoder", PIXEL_WORDS),
    NEAREST: Kind("retrieved", "the training image whose tokens are most like the decoded ones"),
}


@dataclass(frozen=True)
class DecodedPictures:
    """A decoder of a dataset's subject, and the ways in which its tokens are shown.

    Attributes:
        decoder: of the subject.
        painters: kind (key of KINDS) -> from tokens to pictures.
        words: what a reader must know of these pictures.
    """

    decoder: Decoder
    painters: dict[str, Painter]
    words: str

    @classmethod
    def of(cls, decoder: Decoder, dataset: Dataset) -> Self:
        """Fit the pixel decoder and gather the training images that are searched.

        Raises:
            SynBrainError: for a decoder of other voxels, another unit or tokens that the dataset lacks, and
                for one that was trained on test images of the dataset.
        """
        decoder = decoder.for_dataset(dataset)
        require_untrained(decoder, dataset)
        painters = {kind: painter_of(kind, decoder, dataset, most=MOST_IMAGES) for kind in KINDS}
        kinds = "; ".join(f"{kind.label}: {kind.words}" for kind in KINDS.values())
        words = f"A {decoder.config.kind} decoder reads image tokens from a response. "
        words += f"{kinds[0].upper()}{kinds[1:]}."
        if not len(dataset.image_rows("test")):
            words += " The images shown are training images, which the decoder knows."
        return cls(decoder, painters, words)

    def __call__(self, responses: Float32) -> dict[str, list[Image.Image]]:
        """Label of a kind -> a picture of each of the responses (n, n_voxels), in the dataset's unit."""
        tokens = self.decoder.predict_tokens(responses)[0]
        return {
            KINDS[kind].label: [Image.fromarray(picture) for picture in paint(tokens)]
            for kind, paint in self.painters.items()
        }

    def of_test_images(self, dataset: Dataset, model: SynBrain, n_images: int, seed: int) -> DecodedTable:
        """What is decoded from measured and synthetic responses to test images, which the seed draws."""
        names: list[str] = []
        seen: list[NDArray[np.uint8]] = []
        kinds = []
        for kind, painter in self.painters.items():
            made = decode_test_images(self.decoder, dataset, painter, run=model, images=n_images, seed=seed)
            names, seen = made.names, made.rows["seen"]
            kinds.append((KINDS[kind], {title: row for title, row in made.rows.items() if title != "seen"}))
        return DecodedTable(names, seen, kinds)


@dataclass(frozen=True)
class DecodedTable:
    """Test images, and what is decoded from responses to them.

    Attributes:
        names: of the images.
        seen: the images, (h, w, 3) uint8.
        kinds: each kind with its rows: "measured mean", "synthetic trial", ... -> a picture an image.
    """

    names: list[str]
    seen: list[NDArray[np.uint8]]
    kinds: list[tuple[Kind, dict[str, list[NDArray[Any]]]]]
