"""The list of commands. Each is a typed function in ``synbrain.commands``; there is no logic here."""

from __future__ import annotations

import os
import sys
from importlib import import_module

FEW_CORES = 4
# command -> (module, function, one line of help); two-word commands are groups.
COMMANDS: dict[str, tuple[str, str, str]] = {
    "demo": ("demo", "demo", "the whole pipeline on a simulated brain, ending in a report"),
    "simulate": ("simulate", "simulate", "write an NSD-layout tree of simulated subjects"),
    "download nsd": ("download", "download_nsd", "fetch the Natural Scenes Dataset"),
    "prepare table": ("prepare", "prepare_table", "images/ + trials.csv + responses.npy to a dataset"),
    "prepare nsd": ("prepare", "prepare_nsd", "the NSD layout to a dataset"),
    "prepare bids": ("prepare", "prepare_bids", "single-trial NIfTI betas with events to a dataset"),
    "check": ("check", "check", "find data that is out of step"),
    "features": ("features", "features", "images to tokens"),
    "train": ("train", "train", "fit a model"),
    "adapt": ("adapt", "adapt", "fit a trained model to a new subject"),
    "calibrate": ("calibrate", "calibrate", "refit the trial noise of a run"),
    "synthesize": ("synthesize", "synthesize", "images to synthetic responses"),
    "evaluate": ("evaluate", "evaluate", "score a run on a dataset"),
    "report": ("report", "report", "score a run and write one page of pictures"),
    "compare": ("compare", "compare", "train and score every method on one dataset"),
    "consistency": ("consistency", "consistency", "ROI profiles across subjects and trials"),
    "import-reference": ("import_reference", "import_reference", "published checkpoints to a run"),
    "info": ("info", "info", "what a dataset, run or config holds and needs"),
}


def main(argv: list[str] | None = None) -> int:
    """Run one command; bad input is told in one line on stderr with exit code 2."""
    _set_threads()
    words = sys.argv[1:] if argv is None else argv
    name = next((n for n in (" ".join(words[:2]), " ".join(words[:1])) if n in COMMANDS), None)
    if name is None:
        return _list_commands(words)
    module, function, _ = COMMANDS[name]
    from synbrain.commands.parsing import run_function
    from synbrain.errors import SynBrainError

    command = getattr(import_module(f"synbrain.commands.{module}"), function)
    rest = words[len(name.split()) :]
    try:
        result = run_function(command, name, rest)
    except SynBrainError as error:
        print(f"synbrain {name}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"synbrain {name}: interrupted; finished parts are kept", file=sys.stderr)
        return 130
    return result if isinstance(result, int) else 0


def _set_threads() -> None:
    """Set what numpy and torch read when they start their threads, unless the user has.

    Waiting threads sleep instead of spinning. On few cores OpenBLAS gets one thread: its own wait by
    spinning whatever the policy says, and on a busy two-core machine that costs ten times the time.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if (os.cpu_count() or 1) <= FEW_CORES:
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def _list_commands(words: list[str]) -> int:
    asked = not words or words[0] in ("-h", "--help")
    lines = [f"  {name:<18} {text}" for name, (_, _, text) in COMMANDS.items()]
    print("usage: synbrain COMMAND ...   (synbrain COMMAND --help says more)\n", *lines, sep="\n")
    if words[:1] == ["--version"]:
        return 0
    if not asked:
        print(f"\nsynbrain: no command {' '.join(words[:2])!r}", file=sys.stderr)
    return 0 if asked else 2


if __name__ == "__main__":
    sys.exit(main())
