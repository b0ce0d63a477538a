"""The folder of a training: refused, begun, continued, and turned into a run when the model is whole.

``OUT/training`` holds the resolved configuration, the log and, while the training is not finished,
checkpoints and stored targets.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import PartialState

from synbrain.errors import SynBrainError
from synbrain.files import alone, read_json, require_absent, write_json
from synbrain.model.synbrain import SynBrain
from synbrain.training.interrupted import CONFIG, RESOLVED, TRAINING, UNFINISHED, is_interrupted


@dataclass(frozen=True)
class Output:
    """Where a model goes.

    Attributes:
        folder: the run folder to write; None: the model is given back and nothing is kept.
        resume: continue a training that was interrupted.
        overwrite: replace a run that stands there.
    """

    folder: Path | None = None
    resume: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.folder is not None:  # a path as text is taken too
            object.__setattr__(self, "folder", Path(self.folder))


NOWHERE = Output()


@contextmanager
def training_folder(output: Output, settings: dict[str, Any]) -> Iterator[Path]:
    """The folder for checkpoints and log of a training with these settings; the main process makes it.

    Args:
        output: where the run goes; without a folder, a temporary one is given and removed.
        settings: JSON-able; a training continues only under the same ones.

    Raises:
        SynBrainError: where something stands there that may not be replaced or continued.
    """
    process = PartialState()
    if output.folder is None:
        if process.num_processes > 1:
            raise SynBrainError(
                "several processes share checkpoints, and there is no folder for them", "give `out`"
            )
        with tempfile.TemporaryDirectory(prefix="synbrain-") as temporary:
            yield Path(temporary)
        return
    with ExitStack() as stack:
        if process.is_main_process:
            stack.enter_context(alone(output.folder))
            _begin(output.folder, settings, output.resume, output.overwrite)
        process.wait_for_everyone()
        yield output.folder / TRAINING


def save_finished(model: SynBrain, output: Output) -> None:
    """Write the run and remove its checkpoints; every process waits until the main one is done."""
    process = PartialState()
    if output.folder is not None and process.is_main_process:
        model.save_pretrained(output.folder, overwrite=output.overwrite)
        for name in UNFINISHED:
            shutil.rmtree(output.folder / TRAINING / name, ignore_errors=True)
    process.wait_for_everyone()


def _begin(out: Path, settings: dict[str, Any], resume: bool, overwrite: bool) -> None:
    """Make ``out/training`` ready, or say why not; nothing is removed that was not given up."""
    folder = out / TRAINING
    replaces = (out / CONFIG).exists()  # a finished run: its weights stay until the new ones are whole
    interrupted = is_interrupted(out)
    if resume and interrupted:
        if replaces:
            require_absent(out, overwrite)
        differing = sorted(_differences(read_json(folder / RESOLVED), settings))
        if differing:
            raise SynBrainError(
                f"the interrupted training had other values of {', '.join(differing)}",
                "give --resume the options of the first call, or pass --overwrite instead to start again",
            )
        return
    if interrupted and not overwrite:
        raise SynBrainError(
            f"{out} holds an interrupted training",
            "pass --resume to continue it, or --overwrite to start again",
        )
    if not resume or replaces:
        require_absent(out, overwrite)
    shutil.rmtree(folder, ignore_errors=True)
    try:
        write_json(folder / RESOLVED, settings)
    except SynBrainError:  # a full disk: no empty folders that the next call would take for a run
        for empty in (folder, out):
            with suppress(OSError):
                empty.rmdir()
        raise


def _differences(a: dict[str, Any], b: dict[str, Any], prefix: str = "") -> list[str]:
    names = []
    for key in a.keys() | b.keys():
        if isinstance(a.get(key), dict) and isinstance(b.get(key), dict):
            names += _differences(a[key], b[key], f"{prefix}{key}.")
        elif a.get(key) != b.get(key):
            names.append(prefix + key)
    return names
