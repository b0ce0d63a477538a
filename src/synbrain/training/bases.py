"""Several base runs as one: what subjects recorded by other encoders' tokens teach about a new subject."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from synbrain.data.known_pictures import KnownPictures
from synbrain.data.marks import packed, unpacked
from synbrain.errors import SynBrainError
from synbrain.features.joint import encoders_of, joint_digest, joint_layer, joint_name
from synbrain.files import digest_of
from synbrain.linear.path import LinearPath
from synbrain.model.parts import RunConfig, SubjectPart
from synbrain.model.synbrain import SynBrain

Value = TypeVar("Value")


def joined_bases(bases: Sequence[SynBrain]) -> SynBrain:
    """A run that reads the layers of every base's encoder and has the subjects of all.

    Its networks are the first's. A single run is given back as it is. Where a base reads several encoders
    itself the encoder's digest is not known: that of several does not tell each one's.

    Raises:
        SynBrainError: where two of them read tokens of one encoder.
    """
    if len(bases) == 1:
        return bases[0]
    names = [name for base in bases for name in encoders_of(base.config.encoder)]
    if len(set(names)) < len(names):
        raise SynBrainError(
            f"base runs on tokens of {' and '.join(names)}",
            "give one run for each encoder; `synbrain train DATASET DATASET` makes one of several subjects",
        )
    configs, first = [_named(base.config) for base in bases], bases[0]
    each_digest = [base.config.encoder_digest for base in bases]
    subjects: dict[str, SubjectPart] = {}
    for base in bases:
        for part in base.subjects.values():
            name = part.name if part.name not in subjects else f"{part.name} ({base.config.encoder})"
            subjects[name] = replace(part, name=name, linear=_path_named(base.config, part))
    config = RunConfig(
        recipe=first.config.recipe,
        encoder=joint_name(names),
        encoder_digest=joint_digest(each_digest) if len(names) == len(bases) else "",
        linear_layers=tuple(layer for config in configs for layer in config.linear_layers),
        mapper_layer=configs[0].mapper_layer,
        token_shapes={layer: shape for config in configs for layer, shape in config.token_shapes.items()},
        given_tokens={layer: file for config in configs for layer, file in config.given_tokens.items()},
        seeds=first.config.seeds,
        trained_images=packed({m for b in bases for m in unpacked(b.config.trained_images)}),
        test_images=packed({m for b in bases for m in unpacked(b.config.test_images)}),
    )
    known = KnownPictures.joined(base.known_pictures for base in bases)
    made = SynBrain(config, subjects, first.vae, first.mapper, known_pictures=known, device=first.device)
    made.digest = digest_of([base.digest for base in bases])
    return made


def _named(config: RunConfig) -> RunConfig:
    """``config`` whose layers say whose they are."""
    mapper = config.mapper_layer
    return config.model_copy(
        update={
            "linear_layers": tuple(_layer(config, layer) for layer in config.linear_layers),
            "mapper_layer": None if mapper is None else _layer(config, mapper),
            "token_shapes": _keys_named(config, config.token_shapes),
            "given_tokens": _keys_named(config, config.given_tokens),
        }
    )


def _path_named(config: RunConfig, part: SubjectPart) -> LinearPath | None:
    if part.linear is None:
        return None
    return replace(
        part.linear,
        projections=_keys_named(config, part.linear.projections),
        shapes=_keys_named(config, part.linear.shapes),
    )


def _keys_named(config: RunConfig, by_layer: Mapping[str, Value]) -> dict[str, Value]:
    return {_layer(config, layer): value for layer, value in by_layer.items()}


def _layer(config: RunConfig, layer: str) -> str:
    """The layer's name among those of several encoders; a run on several has such names already."""
    return layer if len(encoders_of(config.encoder)) > 1 else joint_layer(config.encoder, layer)
