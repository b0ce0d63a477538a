"""Training metrics as JSON lines, and in TensorBoard where the user asks for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from synbrain.errors import SynBrainError
from synbrain.files import write_text, writing

LOG_NAME = "log.jsonl"


class MetricsLog:
    """Appends one JSON object a line to ``folder/log.jsonl``; silent where ``active`` is False.

    Rows hold ``stage``, ``step`` (steps finished), ``split`` ("train" or "validation") and scalars.
    """

    def __init__(self, folder: Path, *, active: bool = True, tensorboard: bool = False) -> None:
        self.path = folder / LOG_NAME
        self.active = active
        self._writer: Any = _tensorboard_writer(folder / "tensorboard") if tensorboard and active else None

    def write(self, row: dict[str, Any]) -> None:
        """Append ``row``; numbers other than the step also go to TensorBoard."""
        if not self.active:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with writing(self.path), self.path.open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(row) + "\n")
        if self._writer is not None:
            for name, value in row.items():
                if isinstance(value, float):
                    self._writer.add_scalar(f"{row['stage']}/{row['split']}/{name}", value, row["step"])

    def cut(self, stage: str, step: int) -> None:
        """Drop what a run that was killed wrote about ``stage`` after ``step``: it will come again."""
        if not self.active or not self.path.exists():
            return
        rows = read_log(self.path)
        kept = [row for row in rows if row["stage"] != stage or row["step"] <= step]
        write_text(self.path, "".join(json.dumps(row) + "\n" for row in kept))

    def close(self) -> None:
        """Flush TensorBoard."""
        if self._writer is not None:
            self._writer.close()


def read_log(path: Path) -> list[dict[str, Any]]:
    """The rows of a log; a last line cut short by a kill is left out."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def _tensorboard_writer(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise SynBrainError(
            "TensorBoard is not installed", "pip install 'synbrain[tensorboard]', or leave --tensorboard out"
        ) from error
    return SummaryWriter(str(folder))
