"""What a command writes is looked at before anything is imported or opened: a taken name costs no time.

The library functions refuse the same outputs themselves; here the same is said seconds earlier. A command
that goes on where it was interrupted (``--resume``) is left to its function.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from synbrain.files import require_absent
from synbrain.model.output_names import require_free
from synbrain.training.interrupted import is_interrupted
from synbrain.viewer.requirements import require_page, require_report

# files in the folder --out whose presence is refused; other commands refuse the whole of --out
INSIDE = {
    "decoder compare": ("table.json",),
    "augmentation-curve": ("curve.json",),
}
TRAINS = ("train", "adapt", "tune-encoder")  # they say more where an interrupted training stands
RESPONSES = ("predict", "synthesize")  # the suffix says the format


def require_outputs(name: str, typed: dict[str, Any]) -> None:
    """Refuse outputs of command ``name`` that stand there already, or whose names say no known format.

    Args:
        name: of the command.
        typed: its values by parameter.

    Raises:
        SynBrainError: as the command's function would, later.
    """
    out, overwrite = typed.get("out", typed.get("export")), typed.get("overwrite")
    if out is None or overwrite is None or os.environ.get("RANK", "0") != "0":
        return
    options = typed.get("options")
    if typed.get("resume") or getattr(options, "resume", False):
        return
    out = Path(out)
    if name in RESPONSES:
        require_free(out, format=getattr(options, "format", None), overwrite=overwrite)
    elif name == "view":
        require_page(out, overwrite)
    elif name == "report":
        if not out.is_file():
            require_report(out, overwrite)
    elif name in INSIDE:
        if not out.is_file():  # its function says what to name instead
            for inside in INSIDE[name]:
                require_absent(out / inside, overwrite)
    elif name not in TRAINS or not is_interrupted(out):
        require_absent(out, overwrite)
    if name == "evaluate" and typed.get("decoder") is not None:
        require_absent(out.with_name(f"{out.stem}-decoding.json"), overwrite)
