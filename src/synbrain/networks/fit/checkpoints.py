"""Checkpoints of a training stage: written whole, checked by checksum, loaded without unpickling code.

::

    FOLDER/step-00001200/
      weights.safetensors    "model.*" trained parameters, "ema.*" their average, "kept.*" the best so far
      optimizer.pt           the optimiser's tensors and numbers (read with weights_only=True)
      state.json             step, early-stopping state, running sums, digest of the configuration
      checksums.json
"""

from __future__ import annotations

import pickle
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from synbrain.errors import SynBrainError
from synbrain.files import (
    new_folder,
    read_json,
    require_space,
    verify_manifest,
    write_json,
    write_manifest,
)

WEIGHTS, OPTIMIZER, STATE = "weights.safetensors", "optimizer.pt", "state.json"
_NAME = re.compile(r"step-(\d+)")


@dataclass
class Checkpoint:
    """Everything the loop needs to go on as if it had never stopped.

    Randomness is derived from (seed, step), so that no generator state has to be kept.
    """

    groups: dict[str, dict[str, Tensor]]  # "model", "ema", "kept" -> parameter name -> tensor
    optimizer: dict[str, Any]
    state: dict[str, Any] = field(default_factory=dict)


def save_checkpoint(folder: Path, step: int, checkpoint: Checkpoint) -> Path:
    """Write ``folder/step-N`` whole, then remove the older ones; returns its path."""
    tensors = {
        f"{group}.{name}": tensor.detach().cpu().contiguous()
        for group, named in checkpoint.groups.items()
        for name, tensor in named.items()
    }
    n_bytes = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    require_space(folder, int(1.7 * n_bytes))
    target = folder / f"step-{step:08d}"
    try:
        with new_folder(target, overwrite=True) as building:
            # a tensor that "model" and "kept" share would be refused: each is written as its own copy
            save_file({name: tensor.clone() for name, tensor in tensors.items()}, building / WEIGHTS)
            torch.save(checkpoint.optimizer, building / OPTIMIZER)
            write_json(building / STATE, checkpoint.state)
            write_manifest(building, [WEIGHTS, OPTIMIZER, STATE])
    except (RuntimeError, SafetensorError) as error:  # how torch and safetensors report a failed write
        raise SynBrainError(
            f"the checkpoint {target} could not be written ({error})",
            "free some space on that disk and pass --resume; the previous checkpoint was kept",
        ) from error
    for older in list_checkpoints(folder)[:-1]:
        shutil.rmtree(older)
    return target


def list_checkpoints(folder: Path) -> list[Path]:
    """Checkpoint folders, oldest first; unfinished ones do not carry the name and are not listed."""
    folders = [path for path in folder.glob("step-*") if _NAME.fullmatch(path.name)]
    return sorted(folders, key=lambda path: int(path.name.removeprefix("step-")))


def load_checkpoint(folder: Path) -> Checkpoint | None:
    """The newest checkpoint in ``folder``, or None where there is none.

    Raises:
        SynBrainError: where a file was altered, is missing or cannot be read.
    """
    folders = list_checkpoints(folder)
    if not folders:
        return None
    newest = folders[-1]
    try:
        verify_manifest(newest)
        tensors = load_file(newest / WEIGHTS)
        optimizer = torch.load(newest / OPTIMIZER, map_location="cpu", weights_only=True)
    except SynBrainError as error:
        raise SynBrainError(
            f"the checkpoint {newest} is damaged: {error.problem}",
            "copy it again from the original, or pass --overwrite to train from the start",
        ) from error
    except (pickle.UnpicklingError, RuntimeError, ValueError, OSError, EOFError) as error:
        raise SynBrainError(
            f"the checkpoint {newest} cannot be read ({error})", "pass --overwrite to train from the start"
        ) from error
    groups: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        group, name = key.split(".", 1)
        groups.setdefault(group, {})[name] = tensor
    return Checkpoint(groups=groups, optimizer=optimizer, state=read_json(newest / STATE))
