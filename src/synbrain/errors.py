"""The one error that users see: it says what is wrong and how to mend it."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


class SynBrainError(ValueError):
    """Bad input, told so that the user can mend it.

    The command line prints the message and exits with code 2; anything else that is raised is a
    bug and keeps its traceback.

    Args:
        problem: what is wrong, with the values that show it.
        mend: what to do about it, as an instruction.

    >>> str(SynBrainError("data/me is not a dataset", "make one with `synbrain prepare`"))
    'data/me is not a dataset: make one with `synbrain prepare`'
    """

    def __init__(self, problem: str, mend: str) -> None:
        super().__init__(f"{problem}: {mend}" if mend else problem)
        self.problem = problem
        self.mend = mend


class SynBrainWarning(UserWarning):
    """Something that a user should know, and that is no error; the command line prints it as a note."""


def of_os_error(error: OSError) -> SynBrainError:
    """An error of the operating system, with what to do about it.

    >>> import errno
    >>> str(of_os_error(OSError(errno.ENOSPC, "No space left on device", "out.npy")))
    'out.npy: No space left on device: free some space, or choose an output on another disk'
    """
    mends = {
        errno.EACCES: "check who may read and write there, or choose another place",
        errno.EPERM: "check who may read and write there, or choose another place",
        errno.EROFS: "the disk is read-only: choose an output elsewhere",
        errno.ENOSPC: "free some space, or choose an output on another disk",
        errno.EDQUOT: "your quota is used up: free some space, or choose an output on another disk",
        errno.ENOENT: "check the path",
        errno.ENOTDIR: "a file stands where a folder is needed: choose another path",
        errno.EISDIR: "a folder stands where a file is needed: choose another path",
        errno.EEXIST: "choose another output",
    }
    where = f"{error.filename}: " if error.filename else ""
    return SynBrainError(
        f"{where}{error.strerror or error}", mends.get(error.errno or 0, "check the path and its disk")
    )


def refused_option(error: ValidationError) -> SynBrainError:
    """One line about an option whose value is refused, or that does not go with others."""
    first = error.errors()[0]
    option = "--" + ".".join(map(str, first["loc"])).replace("_", "-") if first["loc"] else ""
    problem = first["msg"].removeprefix("Value error, ")
    if option and isinstance(first["input"], dict):  # a rule over several options: all that there are
        problem = f"{option}: {problem}"
    elif option:
        problem = f"{option} cannot be {first['input']!r} ({problem})"
    return SynBrainError(problem, "give another value; --help says what each option takes")


POINTERS = {
    b"/annex/objects/": "git annex get",
    b"../.git/annex/": "git annex get",
    b"version https://git-lfs": "git lfs pull --include",
}


def unreadable(path: Path, error: BaseException, mend: str = "") -> SynBrainError:
    """Why a file could not be read, with the mend: missing, not fetched, not allowed, locked, or damaged.

    Args:
        path: the file.
        error: what the reading library raised.
        mend: what to do where the file is damaged; "copy or download it again" if left out.
    """
    if path.is_symlink() and not path.exists():
        target = os.readlink(path)
        if "annex/objects" in target:
            return SynBrainError(
                f"the content of {path} is not on this disk (a git-annex link)", f"run `git annex get {path}`"
            )
        return SynBrainError(f"{path} is a link to {target}, which is missing", "restore what it points to")
    if isinstance(error, FileNotFoundError) or not path.exists():
        return SynBrainError(f"{path} is missing", "check the path, or fetch or make it again")
    if path.is_dir():
        return SynBrainError(f"{path} is a folder", "give the file itself")
    if isinstance(error, BlockingIOError) or "unable to lock file" in str(error):  # HDF5's own words
        return SynBrainError(
            f"{path} is locked ({error})",
            "wait for the process that writes it; on a disk without file locks set "
            "HDF5_USE_FILE_LOCKING=FALSE",
        )
    if isinstance(error, PermissionError):
        return SynBrainError(f"{path} may not be read", "ask its owner for the right to read it")
    try:
        with path.open("rb") as handle:
            first = handle.read(64)
    except OSError:
        first = b""
    for start, command in POINTERS.items():
        if first.startswith(start):
            return SynBrainError(
                f"{path} is a pointer, its content was not fetched", f"run `{command} {path}`"
            )
    return SynBrainError(
        f"{path} is damaged or cut short ({error or type(error).__name__})",
        mend or "copy or download it again",
    )
