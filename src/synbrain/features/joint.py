"""Several encoders read as one: ``efficientnet-lite0+tuned-v4`` has the layers of both.

A layer of a joint encoder is ``ENCODER:LAYER``. Nothing is stored twice: its tokens are those of the encoders
it is made of. A linear path is fitted on the layers of each encoder, and the paths are averaged voxel by
voxel (:mod:`synbrain.linear.by_encoder`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from synbrain.errors import SynBrainError
from synbrain.features.tokens import TokenSet
from synbrain.features.tuned_folder import tuned_folder
from synbrain.files import digest_of

AND, OF = "+", ":"


def encoders_of(given: str) -> list[str]:
    """The encoders of a joint name, each as it was given; the name alone where it is of one encoder.

    Raises:
        SynBrainError: where one is named twice, or not at all.

    >>> encoders_of("efficientnet-lite0+clip"), encoders_of("clip")
    (['efficientnet-lite0', 'clip'], ['clip'])
    """
    if AND not in given or tuned_folder(given) is not None:  # a folder's name may hold the sign
        return [given]
    names = given.split(AND)
    if not all(names) or len(set(names)) < len(names):
        raise SynBrainError(f"{given!r} names no encoders or one twice", "say ENCODER+ENCODER")
    return names


def joint_name(names: Iterable[str]) -> str:
    """The name of several encoders as one."""
    return AND.join(names)


def joint_digest(digests: Sequence[str]) -> str:
    """The digest of several encoders as one; empty where one is not known."""
    return digest_of(list(digests)) if all(digests) else ""


def joint_layer(encoder: str, layer: str) -> str:
    """The name of an encoder's layer among those of several encoders."""
    return f"{encoder}{OF}{layer}"


def owner_of(layer: str) -> str:
    """The encoder of a layer that :func:`joint_layer` named; empty for a layer of one encoder alone."""
    return layer.rpartition(OF)[0]


def layers_of(encoder: str, names: Sequence[str], layers: Iterable[str] | None) -> list[str] | None:
    """Those of joint ``layers`` that are ``encoder``'s, by their own names; None where all are meant.

    Args:
        encoder: one of ``names``.
        names: the encoders of the joint one.
        layers: as :func:`joint_layer` names them; None: all that there are.

    Raises:
        SynBrainError: where a layer does not say whose it is, or none is this encoder's.
    """
    if layers is None:
        return None
    split = [layer.rpartition(OF) for layer in layers]
    odd = [layer for of, _, layer in split if of not in names]
    if odd:
        raise SynBrainError(
            f"layers {odd} of the encoders {' and '.join(names)}", f"say whose they are: {names[0]}{OF}LAYER"
        )
    own = [layer for of, _, layer in split if of == encoder]
    if not own:
        raise SynBrainError(f"no layer of {encoder} was named", f"add one, or leave {encoder} out")
    return own


def joint_tokens(parts: Sequence[TokenSet]) -> TokenSet:
    """The same images through the layers of several encoders.

    Raises:
        SynBrainError: where the encoders' tokens are stored in different orders.
    """
    first = parts[0]
    if any(not np.array_equal(part.rows, first.rows) for part in parts):
        raise SynBrainError(
            f"tokens of {' and '.join(part.encoder for part in parts)} are stored in different orders",
            "run `synbrain features` for each of them with --store, or for each without",
        )
    tuned = [part.tuned for part in parts if part.tuned is not None]
    return TokenSet(
        encoder=joint_name(part.encoder for part in parts),
        digest=joint_digest([part.digest for part in parts]),
        layers={joint_layer(p.encoder, layer): array for p in parts for layer, array in p.layers.items()},
        rows=first.rows,
        images=first.images,
        tuned=np.unique(np.concatenate(tuned)) if tuned else None,
        files={joint_layer(p.encoder, layer): file for p in parts for layer, file in p.files.items()},
    )


def each_encoder(tokens: TokenSet) -> list[TokenSet]:
    """The same images through the layers of each encoder alone; layers keep their names."""
    owners = dict.fromkeys(owner_of(layer) for layer in tokens.layers)
    if len(owners) < 2:
        return [tokens]
    return [
        replace(tokens, layers={k: v for k, v in tokens.layers.items() if owner_of(k) == owner})
        for owner in owners
    ]


def alone(tokens: TokenSet) -> TokenSet:
    """One of :func:`each_encoder` as its own encoder names it, without the digest, which is not known."""
    owner = owner_of(next(iter(tokens.layers)))
    layers = {name.rpartition(OF)[2]: array for name, array in tokens.layers.items()}
    files = {name.rpartition(OF)[2]: tokens.files[name] for name in tokens.layers if name in tokens.files}
    return replace(tokens, encoder=owner, digest="", layers=layers, files=files)
