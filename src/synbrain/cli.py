"""The list of commands. A command is a library function; there is no logic here.

To add one, put a typed function with a docstring into the library and name it here::

    "compare": Command(
        "synbrain.comparison.compare:compare",      # module:function
        "train and score every method on one dataset",  # one line of help
        SCORES,                                     # the group it is listed in
        example="synbrain compare DATA --out comparison",
        tell="synbrain.commands.telling:compared",  # prints: tell(result, typed) -> exit code or None
    ),

How a signature becomes options (``options``, ``Dataset``, ``SynBrain``, ``show_progress``) is said
in :mod:`synbrain.commands.parsing`. Help is built from the source file, without importing the module, so
keep options objects in a module that imports no torch. ``tell`` gets what the function returned and the
typed values by parameter (paths, not opened). ``hidden`` names parameters that only Python code passes.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module

FEW_CORES = 4
START, DATA, MODEL, SCORES = "start here", "data", "models", "scores and pictures"
USAGE = "usage: synbrain COMMAND ...   (synbrain COMMAND --help says more)"
HERE = "synbrain.commands."


@dataclass(frozen=True)
class Command:
    """A command: where its function lives, and what help says."""

    home: str
    help: str
    group: str
    example: str = ""
    tell: str = ""
    hidden: tuple[str, ...] = ()


COMMANDS: dict[str, Command] = {
    "demo": Command(
        HERE + "demo:demo",
        "the whole pipeline on a simulated brain, ending in a report",
        START,
        "synbrain demo --out demo-out --size tiny",
    ),
    "info": Command(
        HERE + "info:info", "what a dataset, run or config holds and needs", START, "synbrain info demo-out"
    ),
    "doctor": Command(
        HERE + "doctor:doctor", "versions, device, threads, disk, weights, and what is missing", START
    ),
    "completion": Command(
        HERE + "completion:completion",
        "completion of commands and options for a shell",
        START,
        "synbrain completion bash > ~/.local/share/bash-completion/completions/synbrain",
    ),
    "simulate": Command(
        "synbrain.simulate.experiment:simulate",
        "write an NSD-layout tree of simulated subjects",
        DATA,
        "synbrain simulate tree --subjects 2 --size demo",
        HERE + "telling:simulated",
    ),
    "download nsd": Command(
        HERE + "download:download_nsd",
        "fetch the Natural Scenes Dataset",
        DATA,
        "synbrain download nsd nsd --subjects 1 --sessions 2 --dry-run",
    ),
    "prepare table": Command(
        "synbrain.prepare.table:prepare_table",
        "images/ + trials.csv + responses.npy to a dataset",
        DATA,
        "synbrain prepare table my-recordings data/me --unit 'percent signal change'",
        HERE + "telling:prepared",
    ),
    "prepare nsd": Command(
        "synbrain.prepare.nsd.prepare:prepare_nsd",
        "the NSD layout to a dataset",
        DATA,
        "synbrain prepare nsd nsd data/subj01 --subject 1",
        HERE + "telling:prepared",
    ),
    "prepare bids": Command(
        "synbrain.prepare.bids:prepare_bids",
        "single-trial NIfTI betas with events to a dataset",
        DATA,
        "synbrain prepare bids derivatives/glmsingle data/sub-01 --subject 01 --images stimuli",
        HERE + "telling:prepared",
    ),
    "check": Command(HERE + "check:check", "find data that is out of step", DATA, "synbrain check data/me"),
    "features": Command(
        "synbrain.features.store:make_tokens",
        "images to tokens",
        DATA,
        "synbrain features data/me --encoder efficientnet-lite0",
        HERE + "telling:encoded",
    ),
    "train": Command(HERE + "train:train", "fit a model", MODEL, "synbrain train data/me --out runs/me"),
    "adapt": Command(
        HERE + "adapt:adapt",
        "fit a trained model to a new subject",
        MODEL,
        "synbrain adapt runs/group data/me --out runs/me --budget 1h",
    ),
    "calibrate": Command(
        HERE + "calibrate:calibrate",
        "refit the trial noise of a run",
        MODEL,
        "synbrain calibrate runs/me data/more --out runs/me-again",
    ),
    "import-reference": Command(
        HERE + "import_reference:import_reference",
        "published checkpoints to a run",
        MODEL,
        "synbrain import-reference --vae last.pth --mapper last.pt --out runs/published",
    ),
    "synthesize": Command(
        HERE + "synthesize:synthesize",
        "images to synthetic responses",
        MODEL,
        "synbrain synthesize runs/me pictures --samples 8 --out synthetic.npy",
    ),
    "evaluate": Command(
        HERE + "evaluate:evaluate",
        "score a run on a dataset",
        SCORES,
        "synbrain evaluate runs/me data/me --out scores.json",
    ),
    "report": Command(
        HERE + "report:report",
        "score a run and write one page of pictures",
        SCORES,
        "synbrain report runs/me data/me --out report",
    ),
    "compare": Command(
        HERE + "compare:compare",
        "train and score every method on one dataset",
        SCORES,
        "synbrain compare data/me --out comparison --methods linear",
    ),
    "consistency": Command(
        HERE + "consistency:consistency",
        "ROI profiles across subjects and trials",
        SCORES,
        "synbrain consistency runs/me data/me --out consistency",
    ),
}


def main(argv: list[str] | None = None) -> int:
    """Run one command; bad input is told in one line on stderr with exit code 2."""
    words = sys.argv[1:] if argv is None else argv
    try:
        code = _dispatch(words)
        sys.stdout.flush()
    except KeyboardInterrupt:
        print(f"{_name(words)}: interrupted; finished parts are kept", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of a pipe has gone; nothing may be flushed to it any more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return code


def _dispatch(words: list[str]) -> int:
    _set_threads()
    if words[:1] == ["--version"]:
        from synbrain import __version__

        print(f"synbrain {__version__}")
        return 0
    name = next((n for n in (" ".join(words[:2]), " ".join(words[:1])) if n in COMMANDS), None)
    return _list_commands(words) if name is None else _run(name, words[len(name.split()) :])


def _run(name: str, words: list[str]) -> int:
    from synbrain.commands.parsing import prepare_call
    from synbrain.errors import SynBrainError, of_os_error

    command = COMMANDS[name]
    try:
        call = prepare_call(command.home, name, words, command.hidden, command.example)
        result = call.run()
        if command.tell:
            module, _, function = command.tell.partition(":")
            result = getattr(import_module(module), function)(result, call.typed)
    except SynBrainError as error:
        print(f"synbrain {name}: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        raise
    except OSError as error:
        print(f"synbrain {name}: {of_os_error(error)}", file=sys.stderr)
        return 2
    return result if isinstance(result, int) else 0


def _name(words: list[str]) -> str:
    name = next((n for n in (" ".join(words[:2]), " ".join(words[:1])) if n in COMMANDS), "")
    return f"synbrain {name}".strip()


def _set_threads() -> None:
    """Set what numpy and torch read when they start their threads, unless the user has.

    Waiting threads sleep instead of spinning. On few cores OpenBLAS gets one thread: its own wait by
    spinning whatever the policy says, and on a busy two-core machine that costs ten times the time.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if (os.cpu_count() or 1) <= FEW_CORES:
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def _list_commands(words: list[str]) -> int:
    """All commands, those of a group (``synbrain prepare``), or one line about a word that is none."""
    typed = [word for word in words if not word.startswith("-")]
    inside = {n: c for n, c in COMMANDS.items() if typed and n.startswith(typed[0] + " ")}
    if len(typed) > 1 or (typed and not inside):
        wrong = " ".join(typed[:2]) if inside else typed[0]
        near = get_close_matches(wrong, COMMANDS, n=1, cutoff=0.5) or get_close_matches(
            wrong, {n.split()[0] for n in COMMANDS}, n=1
        )
        hint = f"did you mean {near[0]}?" if near else "synbrain --help lists them"
        print(f"synbrain: there is no command {wrong!r} ({hint})", file=sys.stderr)
        return 2
    asked = not words or words[-1] in ("-h", "--help")
    print(f"usage: synbrain {typed[0]} WHAT ..." if inside else USAGE)
    listed = inside or COMMANDS
    for group in dict.fromkeys(command.group for command in listed.values()):
        rows = [f"  {n:<18} {c.help}" for n, c in listed.items() if c.group == group]
        print(f"\n{group}:", *rows, sep="\n")
    if not inside:
        print("\nsynbrain --version says the version.")
    return 0 if asked else 2


if __name__ == "__main__":
    sys.exit(main())
