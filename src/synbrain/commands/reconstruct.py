"""``synbrain decoder reconstruct``: pictures decoded from measured and synthetic responses."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from synbrain.data.dataset import Dataset
    from synbrain.model.synbrain import SynBrain


def reconstruct(
    decoder: Path,
    dataset: Dataset,
    *,
    out: Path,
    run: SynBrain | None = None,
    renderer: str = "pixels",
    images: int = 6,
    seed: int = 0,
    overwrite: bool = False,
) -> None:
    """Decode responses to test images into pictures: OUT/decoded.png, and a PNG each below OUT.

    Args:
        decoder: folder of a decoder (`synbrain decoder train`).
        dataset: the subject's dataset, with tokens of the decoder's encoder.
        out: folder to write.
        run: a model of the subject; its synthetic responses are decoded too, and its device is taken.
        renderer: pixels, nearest (the most similar training picture), or the path of an unCLIP checkpoint.
        images: number of test images, drawn by the seed.
        seed: of images, synthetic trials and pictures.
        overwrite: replace what stands at out.
    """
    from PIL import Image

    from synbrain.decoding.decoder import Decoder
    from synbrain.decoding.reconstruct import reconstruct as decode
    from synbrain.figures.decoded import decoded_figure
    from synbrain.figures.style import save_png
    from synbrain.files import new_folder

    device = "cpu" if run is None else str(run.device)
    opened = Decoder.from_pretrained(decoder, device=device)
    decoded = decode(opened, dataset, run, renderer=renderer, n_images=images, seed=seed)
    with new_folder(out, overwrite) as building:
        for title, pictures in decoded.rows.items():
            folder = building / title.replace(" ", "-")
            folder.mkdir()
            for name, picture in zip(decoded.names, pictures, strict=True):
                Image.fromarray(picture).save(folder / f"{name}.png")
        save_png(decoded_figure(decoded.rows, decoded.names), building / "decoded.png")
    print(f"decoded pictures -> {out / 'decoded.png'}")
