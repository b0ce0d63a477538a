"""The released code's checkpoints to a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from synbrain.data.dataset import Dataset
from synbrain.data.scaling import RAW_PER_PERCENT, REFERENCE_DIVISOR
from synbrain.data.space import VoxelSpace
from synbrain.data.units import UNITS
from synbrain.describe import counted
from synbrain.errors import SynBrainError
from synbrain.features.encoders import get_encoder
from synbrain.features.transformer import TOWERS
from synbrain.files import require_absent
from synbrain.model.parts import RunConfig, SubjectPart
from synbrain.model.synbrain import SynBrain
from synbrain.prepare.nsd.layout import NSDGENERAL_VOXELS
from synbrain.reference.checkpoints import read_reference_mapper, read_reference_vae
from synbrain.reference.options import ReferenceOptions

# Voxels of NSD's nsdgeneral mask at 1.8 mm, which the published models were trained on.
NSD_VOXELS = {f"subj{i:02}": n_voxels for i, n_voxels in enumerate(NSDGENERAL_VOXELS, start=1)}
PUBLISHED_TOKENS = (256, 1664)
LAYER = "final"
OF_SUBJECT_1 = ReferenceOptions()
PUBLISHED_ENCODER = TOWERS["clip"].example


def import_reference(
    *,
    vae: Path,
    mapper: Path,
    out: Path | None = None,
    dataset: Dataset | None = None,
    options: ReferenceOptions = OF_SUBJECT_1,
    overwrite: bool = False,
) -> SynBrain:
    """Turn checkpoints of the published code into a run; nothing pickled in them is executed.

    Args:
        vae: the VAE trainer's checkpoint (last.pth).
        mapper: the mapper trainer's checkpoint (last.pt), of which the EMA weights are taken.
        out: the run folder to write; without it nothing is kept on disk.
        dataset: a dataset of the subject, to take positions, ROIs and unit of its voxels from. NSD's must be
            in the unit that the published code trains on (``--scaling reference``).
        options: what the checkpoints do not say.
        overwrite: replace a run that stands there.

    Raises:
        SynBrainError: where the two do not fit each other, the dataset, its unit or the encoder.
    """
    if out is not None:
        require_absent(out, overwrite)
    weights, part = options.weights, _subject(options.subject, options.n_voxels, dataset)
    networks = read_reference_vae(vae), read_reference_mapper(mapper, options.heads)
    shape = (networks[1].config.tokens, networks[1].config.dim)
    latent = (networks[0].config.tokens, networks[0].config.dim)
    if shape != latent:
        raise SynBrainError(
            f"the VAE's latent is {latent}, the mapper's {shape} (tokens, width)",
            "pass two checkpoints of one model",
        )
    encoder = None if weights is None else get_encoder("clip", weights=weights)
    if encoder is not None and encoder.layers[LAYER] != shape:
        raise SynBrainError(
            f"{weights} gives tokens of {encoder.layers[LAYER]}, the mapper reads {shape}",
            f"pass the encoder that the mapper was trained on ({PUBLISHED_ENCODER} in the published runs)",
        )
    known = PUBLISHED_ENCODER if shape == PUBLISHED_TOKENS else None
    config = RunConfig(
        recipe="reference",
        encoder="clip",
        encoder_digest="" if encoder is None else encoder.digest,
        encoder_hub_id=known if encoder is None else encoder.hub_id,
        mapper_layer=LAYER,
        token_shapes={LAYER: shape},
    )
    model = SynBrain(config, {part.name: part}, *networks)
    if out is not None:
        model.save_pretrained(out, overwrite=overwrite)
    return model


def _subject(name: str, n_voxels: int | None, dataset: Dataset | None) -> SubjectPart:
    scaling: dict[str, Any]
    if dataset is not None:
        space, unit, scaling = dataset.space, dataset.info.unit, dataset.info.scaling
        if n_voxels not in (None, space.n_voxels):
            raise SynBrainError(
                f"{dataset.path} has {counted(space.n_voxels, 'voxel')}, not {n_voxels}",
                "leave --n-voxels out",
            )
        if scaling.get("kind") in set(UNITS) - {"reference"}:  # scores in it would be off by a factor
            raise SynBrainError(
                f"{dataset.path} holds {unit}, the published code trains on {UNITS['reference']}",
                "prepare it with --scaling reference",
            )
    else:
        count = NSD_VOXELS.get(name) if n_voxels is None else n_voxels
        if count is None or count < 1:
            raise SynBrainError(
                f"the checkpoints do not tell how many voxels {name} has", "pass --n-voxels or --dataset"
            )
        space, unit = VoxelSpace(count), UNITS["reference"]
        scaling = {"kind": "reference", "raw": "integer", "raw_per_percent": RAW_PER_PERCENT}
        scaling |= {"raw_per_unit": REFERENCE_DIVISOR}
    return SubjectPart(
        name=name,
        space=space,
        unit=unit,
        scaling=scaling,
        response_mean=np.zeros(space.n_voxels, dtype=np.float32),
        response_sd=np.ones(space.n_voxels, dtype=np.float32),
    )
