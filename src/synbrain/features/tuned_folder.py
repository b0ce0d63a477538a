"""Where a tuned encoder lies and what it is called. Light to import: no torch.

::

    ENCODER/
      config.json           base encoder, layers, datasets, marks of the images it was tuned on
      base/                 weights of the base encoder's network, tuned
      head.safetensors      what makes the layer ``readout``
      readouts/             a run with the readout of every subject as its linear path
      README.md             the card
      checksums.json
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

from synbrain.errors import SynBrainError
from synbrain.files import read_json

CONFIG, HEAD, BASE, READOUTS, CARD = "config.json", "head.safetensors", "base", "readouts", "README.md"
KIND, PREFIX = "synbrain tuned encoder", "tuned-"
READOUT = "readout"  # the layer
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")  # without `+`, which joins encoders; ./folder is none


def tuned_folder(given: str) -> Path | None:
    """The local folder of a tuned encoder given by path or hub id; None where it is neither.

    Raises:
        SynBrainError: for a hub id that cannot be fetched, or a folder that holds something else.
    """
    folder = Path(given)
    if not folder.is_dir():
        if not HUB_ID.fullmatch(given):
            return None
        folder = _fetched(given)
    if not (folder / CONFIG).exists() or read_json(folder / CONFIG).get("kind") != KIND:
        if "/" not in given:
            return None
        raise SynBrainError(f"{given} holds no tuned encoder", "give a folder that `tune-encoder` wrote")
    return folder


def encoder_name(given: str) -> str:
    """The name under which a dataset keeps the tokens of an encoder that is given by name, folder or hub id.

    >>> encoder_name("efficientnet-lite0")
    'efficientnet-lite0'
    """
    folder = tuned_folder(given)
    return given if folder is None else str(read_config(folder)["name"])


def digest_in(folder: Path) -> str:
    """The digest of a tuned encoder; folders of before it was written down are loaded for it."""
    digest = read_config(folder).get("digest")
    if digest is None:
        from synbrain.features.encoders import get_encoder  # torch

        digest = get_encoder(str(folder)).digest
    return str(digest)


def read_config(folder: Path) -> dict[str, Any]:
    """What ``config.json`` of a tuned encoder says."""
    config: dict[str, Any] = read_json(folder / CONFIG)
    return config


@cache
def _fetched(hub_id: str) -> Path:
    """The local snapshot. The hub is asked once in a process: all that is read is of one version."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(hub_id))
    except Exception as error:  # the hub raises many kinds: no connection, no such repository, no access
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise SynBrainError(
            f"no encoder could be fetched from {hub_id} ({first})",
            "check the spelling and the connection, or give the path of a local folder",
        ) from error
