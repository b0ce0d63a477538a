"""The command line: finds the command, runs it, and tells mistakes in one line.

The list of commands, and how to add one, is in :mod:`synbrain.commands.registry`.
"""

from __future__ import annotations

import os
import sys
import warnings
from difflib import get_close_matches
from importlib import import_module

from synbrain.commands.registry import COMMANDS

FEW_CORES = 4
HABITS = {  # what other packages call the same
    "fit": "train", "finetune": "adapt", "fine-tune": "adapt", "score": "evaluate", "test": "evaluate",
    "sample": "synthesize", "generate": "synthesize", "synthesise": "synthesize", "infer": "predict",
    "encode": "features", "extract": "features", "tokens": "features", "import": "prepare",
    "convert": "prepare", "validate": "check", "plot": "report", "show": "view", "decode": "decoder",
    "upload": "push", "benchmark": "compare",
}  # fmt: skip
USAGE = "usage: synbrain COMMAND ...   (synbrain COMMAND --help says more)"


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
    words = _take_work(words)
    if words[:1] == ["--version"]:
        from synbrain import __version__

        print(f"synbrain {__version__}")
        return 0
    name = next((n for n in (" ".join(words[:2]), " ".join(words[:1])) if n in COMMANDS), None)
    return _list_commands(words) if name is None else _run(name, words[len(name.split()) :])


def _take_work(words: list[str]) -> list[str]:
    """``--work DIR`` before or after any command: where what belongs to read-only storage goes."""
    from synbrain.files import WORK

    for place, word in enumerate(words):
        if word == "--work" and place + 1 < len(words):
            os.environ[WORK] = words[place + 1]
            return words[:place] + words[place + 2 :]
        if word.startswith("--work="):
            os.environ[WORK] = word.removeprefix("--work=")
            return words[:place] + words[place + 1 :]
    return words


def _run(name: str, words: list[str]) -> int:
    from synbrain.commands.outputs import require_outputs
    from synbrain.commands.parsing import prepare_call
    from synbrain.errors import SynBrainError, of_os_error

    command = COMMANDS[name]
    try:
        call = prepare_call(command, name, words)
        require_outputs(name, call.typed)
        with warnings.catch_warnings():
            warnings.showwarning = _note  # type: ignore[assignment]
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


def _note(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: object) -> None:
    """A warning of this package as one line; those of other packages with their place."""
    from synbrain.errors import SynBrainWarning

    if issubclass(category, SynBrainWarning):
        text = f"note: {message}\n" if os.environ.get("RANK", "0") == "0" else ""
    else:
        text = warnings.formatwarning(message, category, filename, lineno)
    sys.stderr.write(text)


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
        near = [HABITS[wrong]] if wrong in HABITS else []
        near = (
            near
            or get_close_matches(wrong, COMMANDS, n=1, cutoff=0.5)
            or get_close_matches(wrong, {n.split()[0] for n in COMMANDS}, n=1)
        )
        hint = f"did you mean {near[0]}?" if near else "synbrain --help lists them"
        print(f"synbrain: there is no command {wrong!r} ({hint})", file=sys.stderr)
        return 2
    asked = not words or words[-1] in ("-h", "--help")
    print(f"usage: synbrain {typed[0]} WHAT ..." if inside else USAGE)
    listed = inside or COMMANDS
    for group in dict.fromkeys(command.group for command in listed.values()):
        rows = [f"  {n:<19} {c.help}" for n, c in listed.items() if c.group == group]
        print(f"\n{group}:", *rows, sep="\n")
    if not inside:
        print("\nsynbrain --version says the version.")
        print(
            "--work DIR, with any command, puts tokens, scores and cards of read-only datasets and "
            "runs there "
            "(or set SYNBRAIN_WORK)."
        )
    return 0 if asked else 2


if __name__ == "__main__":
    sys.exit(main())
