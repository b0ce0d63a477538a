"""``synbrain synthesize``: images to a file of synthetic trials."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from synbrain.errors import SynBrainError
from synbrain.files import require_absent
from synbrain.model.folder import fetch, run_digest
from synbrain.model.synbrain import SynBrain
from synbrain.model.synthesis import list_images, sidecar_of, synthesize_to, write_nifti


def synthesize(
    run: Path,
    images: Path,
    *,
    out: Path,
    samples: int = 8,
    format: Literal["npy", "nifti"] = "npy",
    seed: int = 0,
    subject: str | None = None,
    noise_factor: float | None = None,
    encoder_weights: str | None = None,
    batch_size: int = 32,
    device: str = "auto",
    overwrite: bool = False,
) -> None:
    """Write synthetic trials of images, streamed to a memory-mapped file with a JSON sidecar.

    The same command continues an interrupted synthesis.

    Args:
        run: run folder, or the id of a run on the Hugging Face hub.
        images: folder of images, one image, or a text file with one path a line.
        out: file to write, (samples, images, voxels) .npy or a 4-D NIfTI.
        samples: trials per image.
        format: npy, or nifti where the run's voxels lie in a volume.
        seed: of the trials; one seed, the same bytes.
        subject: whose responses, where the run has several subjects.
        noise_factor: published isotropic noise on the latents instead of the run's trial noise.
        encoder_weights: file, folder or hub id of the encoder's weights, where the run cannot name it.
        batch_size: images at a time.
        device: auto, cpu, cuda, ...
        overwrite: replace what stands at out.
    """
    from synbrain.features.encoder import pick_device
    from synbrain.features.encoders import get_encoder

    if samples < 1 or batch_size < 1:
        raise SynBrainError(f"--samples {samples} --batch-size {batch_size}", "give at least 1 of each")
    where = pick_device(device)
    folder = fetch(run)
    model = SynBrain.from_pretrained(folder, device=where, fold=True)
    if encoder_weights is not None:
        encoder = get_encoder(model.config.encoder, weights=encoder_weights, device=where)
        model = SynBrain(model.config, model.subjects, model.vae, model.mapper, device=where, encoder=encoder)
    files = list_images(images)
    part = model.subject(subject)
    if format == "nifti" and part.space.kind != "volume":
        raise SynBrainError(f"{part.name} has no volume (its space: {part.space.kind})", "use --format npy")
    require_absent(out, overwrite)
    array = out if format == "npy" else out.with_name(out.name + ".npy")
    synthesize_to(
        array, model, files, samples, seed, subject=part.name, noise_factor=noise_factor,
        run_digest=run_digest(folder), overwrite=overwrite, batch_size=batch_size, show_progress=True,
    )  # fmt: skip
    if format == "nifti":
        write_nifti(out, array, part.space, overwrite=overwrite)
        array.unlink()
    print(f"{samples} trials of {len(files)} images for {part.n_voxels} voxels: {out} and {sidecar_of(out)}")
