"""``synbrain predict`` and ``synbrain synthesize``: images to a file of responses."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from synbrain.model.options import PredictOptions, SynthesizeOptions

if TYPE_CHECKING:
    from synbrain.model.synbrain import SynBrain

AS_PREDICTED, AS_DRAWN = PredictOptions(), SynthesizeOptions()


def predict(
    run: Path,
    images: list[Path],
    *,
    out: Path,
    options: PredictOptions = AS_PREDICTED,
    encoder_weights: str | None = None,
    device: str = "auto",
    overwrite: bool = False,
) -> None:
    """Write expected responses of images; the suffix of --out decides the format.

    Args:
        run: run folder, or the id of a run on the Hugging Face hub; synbrain/demo comes with the package.
        images: images, folders, globs, or text files with one path a line.
        out: file to write: .npy, .nii.gz, .func.gii, .shape.gii, .dscalar.nii, .csv, .parquet or .nc.
        options: what is written.
        encoder_weights: file, folder or hub id of the encoder's weights, where the run cannot name it.
        device: auto, cpu, cuda, ...
        overwrite: replace what stands at out.
    """
    from synbrain.model.prediction import predict_to

    model = _open(run, encoder_weights, device)
    written = predict_to(model, images, out, options, overwrite=overwrite, show_progress=True)
    _tell("expected responses", written)


def synthesize(
    run: Path,
    images: list[Path],
    *,
    out: Path,
    options: SynthesizeOptions = AS_DRAWN,
    encoder_weights: str | None = None,
    device: str = "auto",
    overwrite: bool = False,
) -> None:
    """Write synthetic trials of images; the suffix of --out decides the format.

    The same command continues an interrupted synthesis.

    Args:
        run: run folder, or the id of a run on the Hugging Face hub; synbrain/demo comes with the package.
        images: images, folders, globs, or text files with one path a line.
        out: file to write: .npy, .nii.gz, .func.gii, .shape.gii, .dscalar.nii, .csv, .parquet or .nc.
        options: how trials are drawn.
        encoder_weights: file, folder or hub id of the encoder's weights, where the run cannot name it.
        device: auto, cpu, cuda, ...
        overwrite: replace what stands at out.
    """
    from synbrain.model.synthesis import synthesize as synthesize_images

    model = _open(run, encoder_weights, device)
    written = synthesize_images(model, images, out, options, overwrite=overwrite, show_progress=True)
    _tell(f"{options.samples} trials an image", written)


def _open(run: Path, encoder_weights: str | None, device: str) -> SynBrain:
    from synbrain.features.encoder import pick_device
    from synbrain.features.encoders import get_encoder
    from synbrain.model.synbrain import SynBrain

    where = pick_device(device)
    model = SynBrain.from_pretrained(run, device=where, fold=True)
    if encoder_weights is None:
        return model
    encoder = get_encoder(model.config.encoder, weights=encoder_weights, device=where)
    other = SynBrain(model.config, model.subjects, model.vae, model.mapper, device=where, encoder=encoder)
    other.digest = model.digest
    return other


def _tell(what: str, written: list[Path]) -> None:
    from synbrain.files import read_json

    about = read_json(written[-1])
    names = " and ".join(map(str, written))
    print(f"{what} of {len(about['images'])} images ({about['unit']}): {names}")
