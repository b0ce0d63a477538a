"""A decoder on disk: one folder of JSON and safetensors that loads alone.

::

    DECODER/
      config.json         kind, sizes, token space, subjects with units, lineage
      model.safetensors   the method's tensors (method.*), token targets (targets.*), scales (subjects.NAME.*)
      pictures.safetensors  marks and thumbnails of images that it was trained on or kept from
      README.md           card
      checksums.json      SHA-256 of config and tensors
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from synbrain.data.known_pictures import PICTURES, KnownPictures
from synbrain.decoding.card import decoder_card
from synbrain.decoding.decoder import DECODER_FORMAT, Decoder, DecoderConfig, DecoderSubject
from synbrain.decoding.protocol import State, TokenSpace
from synbrain.decoding.registry import METHODS
from synbrain.decoding.streamed import write_tensors
from synbrain.decoding.targets import TokenTargets
from synbrain.errors import SynBrainError
from synbrain.files import (
    MANIFEST,
    atomic_path,
    digest,
    new_folder,
    read_json,
    require_replaceable,
    verify_manifest,
    write_json,
    write_manifest,
    write_text,
)
from synbrain.model.folder import fetch

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"


def save_decoder(decoder: Decoder, folder: Path, *, half: bool = False, overwrite: bool = False) -> Path:
    """Write ``decoder``; nothing stands at ``folder`` until all of it is written.

    Args:
        decoder: any.
        folder: where to.
        half: matrices in float16, half the size; they are computed with in float32.
        overwrite: replace what stands there.

    Raises:
        SynBrainError: where ``folder`` is taken, or the disk is full.
    """
    require_replaceable(folder, overwrite)
    tensors: State = {f"method.{name}": tensor for name, tensor in decoder.method.state().items()}
    tensors |= {f"targets.{name}": tensor for name, tensor in decoder.targets.state().items()}
    for subject in decoder.subjects.values():
        tensors[f"subjects.{subject.name}.mean"] = torch.from_numpy(subject.mean)
        tensors[f"subjects.{subject.name}.sd"] = torch.from_numpy(subject.sd)
    content = decoder.config.model_dump(mode="json") | {
        "method": decoder.method.config(),
        "targets": {
            "source": decoder.targets.source.model_dump(),
            "grid": decoder.targets.grid,
            "scale": decoder.targets.scale,
        },
        "subjects": {s.name: {"unit": s.unit, "n_voxels": s.n_voxels} for s in decoder.subjects.values()},
        "active": decoder.active,
    }
    with new_folder(folder, overwrite) as building:
        with atomic_path(building / WEIGHTS) as partial:
            write_tensors(partial, tensors, half=half)
        write_json(building / CONFIG, content)
        write_text(building / CARD, decoder_card(decoder))
        files = [CONFIG, WEIGHTS]
        if decoder.known_pictures.marks:
            decoder.known_pictures.save(building / PICTURES)
            files.append(PICTURES)
        write_manifest(building, files)
    return folder


def load_decoder(folder: str | Path, device: str = "cpu") -> Decoder:
    """Read a decoder that :func:`save_decoder` wrote, after checking every checksum.

    Raises:
        SynBrainError: where a file is missing or was altered, or another version wrote it.
    """
    where = fetch(folder)
    if not (where / CONFIG).exists() or not (where / MANIFEST).exists():
        raise SynBrainError(
            f"{where} is not a decoder (no {CONFIG} with {MANIFEST})",
            "give the folder that `synbrain decoder train --out` wrote",
        )
    verify_manifest(where)
    content: dict[str, Any] = read_json(where / CONFIG)
    if content.get("format") != DECODER_FORMAT or "targets" not in content:
        raise SynBrainError(
            f"{where} is no decoder of format {DECODER_FORMAT}",
            "give a folder that `synbrain decoder train` of this version wrote",
        )
    method, targets = content.pop("method"), content.pop("targets")
    names, active = content.pop("subjects"), content.pop("active")
    try:
        config = DecoderConfig.model_validate(content)
        source = TokenSpace.model_validate(targets["source"])
    except ValidationError as error:
        raise SynBrainError(f"{where / CONFIG} is not valid ({error})", "copy the decoder again") from error
    if config.kind not in METHODS:
        raise SynBrainError(
            f"{where} holds a decoder of kind {config.kind!r}", f"this version knows {', '.join(METHODS)}"
        )
    tensors = load_file(where / WEIGHTS, device="cpu")
    subjects = {
        name: DecoderSubject(
            name, facts["unit"], *(tensors[f"subjects.{name}.{part}"].numpy() for part in ("mean", "sd"))
        )
        for name, facts in names.items()
    }
    return Decoder(
        config=config,
        method=METHODS[config.kind].restore(method, _under(tensors, "method."), device),
        targets=TokenTargets.restore(source, targets["grid"], targets["scale"], _under(tensors, "targets.")),
        subjects=subjects,
        active=active,
        known_pictures=KnownPictures.load(where / PICTURES),
    )


def decoder_digest(folder: Path) -> str:
    """Digest of everything that a decoder's output depends on."""
    return digest(folder / MANIFEST)


def _under(tensors: State, prefix: str) -> State:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
